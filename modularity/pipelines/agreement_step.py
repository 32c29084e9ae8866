"""Whether partitions agree: table `partition_agreement` (layer × pair of methods), each against permuted experts."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from modularity.experts import partition_agreement
from modularity.pipelines.config import ExpertsConfig
from modularity.stats import benjamini_hochberg
from modularity.store import Run, table_from_columns
from modularity.types import PARTITION, WorkItem


def compare_partitions(run: Run, item: WorkItem, config: ExpertsConfig) -> Mapping[str, Any]:
    """Write the agreement of every two methods in every layer."""
    partition = run.results(PARTITION, partial=True)
    expert_MLF, widths = partition["expert"].values, partition["width"].values.tolist()
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(partition["layer"].values.tolist()):
        for a, b in combinations(range(len(config.methods)), 2):
            found = partition_agreement(
                expert_MLF[a, index, : widths[index]],
                expert_MLF[b, index, : widths[index]],
                n_permutations=config.n_permutations,
                seed=config.seed,
            )
            rows.append(
                {
                    "layer": layer,
                    "partition_a": config.methods[a],
                    "partition_b": config.methods[b],
                    "adjusted_rand": found.adjusted_rand,
                    "adjusted_mutual_information": found.adjusted_mutual_information,
                    "null_mean": found.null_mean,
                    "null_sd": found.null_sd,
                    "p_value": found.p_value,
                    "n_neurons": widths[index],
                    "n_permutations": found.n_permutations,
                }
            )
    q_values = benjamini_hochberg(np.array([row["p_value"] for row in rows]))
    for row, q_value in zip(rows, q_values.tolist(), strict=True):
        row["q_value"] = q_value
    table = table_from_columns({name: [row[name] for row in rows] for name in rows[0]})
    run.commit(item, tables=[run.write_table("partition_agreement", item, table)])
    return {}
