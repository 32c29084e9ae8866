"""What the run keeps of the data: coordinates of the stored rows, the sub-functions, and the texts."""

from typing import Any

import numpy as np

from modularity.data import FunctionData, TokenTable
from modularity.pipelines.prepare import PreparedJob
from modularity.store import RowCoordinates, Run, table_from_columns
from modularity.types import WorkItem


def row_coordinates(function: FunctionData, table: TokenTable) -> RowCoordinates:
    """Ids, labels, halves, positions and fingerprints of the rows of a function."""
    rows = table.row_example_R
    examples = function.examples
    by_token = table.reduction is None
    return RowCoordinates(
        example_id_R=[examples[index].id for index in rows],
        example_R=rows,
        position_R=table.row_position_R.astype(np.int32),
        subfunctions=function.subfunctions,
        labels_SR=function.labels_SE[:, rows],
        selection_R=function.selection_E[rows],
        text_fingerprint_R=[examples[index].fingerprint for index in rows],
        n_tokens_R=table.lengths_E[rows].astype(np.int32),
        token_id_R=table.row_tokens_R if by_token else None,
        extra={"cluster": function.cluster_E[rows], "truncated": table.truncated_E[rows].astype(np.int8)},
    )


def record_functions(run: Run, job: PreparedJob) -> None:
    """Write the tables `subfunctions`, `example_labels` and (unless the job keeps no text) `examples`, once."""
    for function in job.functions:
        item = WorkItem.of("functions", function=function.name, data=job.tables[function.name].fingerprint)
        if run.is_done(item):
            continue
        writes = [
            run.write_table("subfunctions", item, table_from_columns(_subfunctions(function))),
            run.write_table("example_labels", item, table_from_columns(_labels(function))),
        ]
        if job.config.store_text:
            columns = _examples(function, job.tables[function.name])
            writes.append(run.write_table("examples", item, table_from_columns(columns)))
        run.commit(item, tables=writes)


def _subfunctions(function: FunctionData) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("function", "kind", "subfunction", "half", "n_examples", "n_positive")
    }
    for name, labels_E in zip(function.subfunctions, function.labels_SE):
        for half, in_half_E in (("selection", function.selection_E), ("evaluation", ~function.selection_E)):
            chosen = labels_E[in_half_E & (labels_E >= 0)]
            values = (function.name, function.kind, name, half, len(chosen), int(chosen.sum()))
            for column, value in zip(columns.values(), values):
                column.append(value)
    return columns


def _labels(function: FunctionData) -> dict[str, list[Any]]:
    """One row for each example of each sub-function: texts stand in `examples` only once."""
    examples = function.examples
    columns: dict[str, list[Any]] = {name: [] for name in ("function", "subfunction", "example_id", "half", "label")}
    for name, labels_E in zip(function.subfunctions, function.labels_SE):
        for index in np.flatnonzero(labels_E >= 0):
            half = "selection" if function.selection_E[index] else "evaluation"
            values = (function.name, name, examples[index].id, half, int(labels_E[index]))
            for column, value in zip(columns.values(), values):
                column.append(value)
    return columns


def _examples(function: FunctionData, table: TokenTable) -> dict[str, list[Any]]:
    examples = function.examples
    return {
        "function": [function.name] * len(examples),
        "example_id": [example.id for example in examples],
        "text": [example.text for example in examples],
        "text_pair": [example.text_pair or "" for example in examples],
        "target_start": [example.target[0] if example.target else -1 for example in examples],
        "target_end": [example.target[1] if example.target else -1 for example in examples],
        "half": ["selection" if chosen else "evaluation" for chosen in function.selection_E],
        "n_tokens": [int(length) for length in table.lengths_E],
        "truncated": [bool(truncated) for truncated in table.truncated_E],
        "source": [example.source.rpartition("/")[2] for example in examples],
    }
