"""Rows of a source that are facts, as rows of statements: what `FunctionConfig.triples` declares."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modularity.data.files import open_file
from modularity.data.function_part import TriplesConfig
from modularity.data.functions import FunctionConfig
from modularity.data.problems import Problems, RowError
from modularity.data.readers import Rows, read_json, read_rows
from modularity.data.row_values import name_value, text_value
from modularity.data.statements import Statement, Triple, statements_from_triples
from modularity.errors import InputError


@dataclass(frozen=True)
class _Fact:
    triple: Triple
    file: int
    row: int


def with_statements(
    files: Sequence[Rows], config: FunctionConfig, problems: Problems, left_out: Counter[str]
) -> list[Rows]:
    """Rows of each file with a true and a false statement in place of every fact; files without any as they are.

    Parameters
    ----------
    files : rows as they were read
    config : its `triples` say how
    problems : receives bad rows and relations without pattern
    left_out : receives how many facts have no statements
    """
    if config.triples is None:
        return list(files)
    facts = _facts(files, config, problems, left_out)
    try:
        patterns = read_patterns(config.triples, {fact.triple.relation for fact in facts})
        statements, dropped = statements_from_triples([fact.triple for fact in facts], patterns, seed=config.seed)
    except InputError as error:
        for message in error.problems:
            problems.add(config.name, "triples", f"triples: {message}")
        return []
    if dropped:
        relations = Counter(facts[index].triple.relation for index in dropped)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(relations.items()))
        left_out[f"facts that repeat, or without another object to exchange ({counts})"] += len(dropped)
    made = [Rows(rows.place, columns=rows.columns) for rows in files]
    for statement in statements:
        fact = facts[statement.triple]
        _add(made[fact.file], files[fact.file], fact.row, statement, config)
    return made


def read_patterns(config: TriplesConfig, relations: set[str]) -> dict[str, str]:
    """One text for each relation that has any.

    Raises
    ------
    InputError
        The file is unreadable or of another form, or the list of a wanted relation is too short.
    """
    if not isinstance(config.patterns, str):
        return dict(config.patterns)
    listed = _listed(config.patterns)
    short = sorted(name for name in relations & listed.keys() if len(listed[name]) <= config.pattern)
    if short:
        raise InputError(
            [f"relation {name!r} has {len(listed[name])} patterns, pattern={config.pattern} asks for one more; "
             "lower it" for name in short]
        )  # fmt: skip
    return {name: texts[config.pattern] for name, texts in listed.items() if len(texts) > config.pattern}


def _listed(name: str) -> dict[str, list[str]]:
    file = open_file(name)
    if not name.lower().endswith(".json"):
        rows: dict[str, list[str]] = {}
        for value in read_rows(file, None).values:
            rows.setdefault(str(value.get("relation")), []).append(str(value.get("template")))
        return rows
    values: Any = read_json(file)
    listed = {
        str(relation): [texts] if isinstance(texts, str) else texts
        for relation, texts in (values.items() if isinstance(values, Mapping) else ())
    }
    if not listed or not all(
        isinstance(texts, list) and all(isinstance(t, str) for t in texts) for texts in listed.values()
    ):
        raise InputError(f"patterns={name!r}: expected texts, or lists of texts, by relation")
    return listed


def _facts(files: Sequence[Rows], config: FunctionConfig, problems: Problems, left_out: Counter[str]) -> list[_Fact]:
    assert config.triples is not None
    assert config.columns.subfunction is not None
    found = []
    for number, rows in enumerate(files):
        for row, (values, place) in enumerate(zip(rows.values, rows.places)):
            try:
                relation = name_value(values, config.columns.subfunction, "sub-function")
                if config.subfunctions is not None and relation not in config.subfunctions:
                    left_out["rows of sub-functions that were not asked for"] += 1
                    continue
                subject, name = (
                    text_value(values, column) for column in (config.triples.subject, config.triples.object)
                )
            except RowError as error:
                problems.add(config.name, error.kind, f"{place}: {error}")
                continue
            found.append(_Fact(Triple(relation, subject, name), number, row))
    return found


def _add(made: Rows, rows: Rows, row: int, statement: Statement, config: FunctionConfig) -> None:
    """The statement as a row: text and label in their columns, `/true` or `/false` after id and place."""
    ending = "/true" if statement.label else "/false"
    columns = config.columns
    values = rows.values[row] | {columns.text: statement.text, columns.label: statement.label}
    if columns.id is not None:
        values[columns.id] = f"{values.get(columns.id)}{ending}"
    made.values.append(values)
    made.places.append(f"{rows.places[row]}{ending}")
