"""SQL over the tables of a run, by DuckDB in memory: every table is a view, and nothing else can be reached.

The statement sees no file, no network, no Python variable, and cannot change settings.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

import duckdb
import pyarrow as pa

from modularity.errors import InputError
from modularity.store.run import Run

N_NEAREST = 3
"""Names that are offered for one that does not exist."""
_CLOSED = {
    "python_enable_replacements": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
}


def sql(run: Run, text: str) -> pa.Table:
    """Answer of one SELECT (or DESCRIBE, SHOW) over the tables of a run; a repeated column name gets a number.

    Raises
    ------
    InputError
        The statement cannot be parsed, names something that does not exist, is not one reading statement, or reaches
        for files or settings; the message holds the nearest names of tables or columns.
    """
    _check_statement(run, text)
    names = run.tables()
    wanted = [name for name in names if re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE)]
    # SHOW and information_schema name no table, so they see all of them.
    tables = {name: run.table(name) for name in wanted or names}
    connection = duckdb.connect(":memory:", config=_CLOSED)
    try:
        for name, table in tables.items():
            connection.register(name, table)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return _with_names(connection.sql(text).to_arrow_table())
    except duckdb.Error as error:
        raise InputError(_problem(run, text, str(error))) from None
    finally:
        connection.close()


def _with_names(table: pa.Table) -> pa.Table:
    """The table with each name once (`layer`, `layer_2`), as a join gives names twice, and rows are read by name."""
    names: list[str] = []
    for name in table.column_names:
        number = 1
        while (unique := name if number == 1 else f"{name}_{number}") in names:
            number += 1
        names.append(unique)
    return table.rename_columns(names)


def _check_statement(run: Run, text: str) -> None:
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise InputError(_problem(run, text, str(error))) from None
    kinds = [statement.type.name for statement in statements]
    if len(kinds) != 1 or kinds[0] != "SELECT":
        found = ", ".join(kinds) or "nothing"
        raise InputError(_problem(run, text, f"expected one SELECT, found {found}; the tables of a run are read-only"))


def table_columns(run: Run) -> pa.Table:
    """Every table of a run with its number of rows and its columns, as `name type, ...`."""
    rows = []
    for name in run.tables():
        table = run.table(name)
        columns = ", ".join(f"{column.name} {column.type}" for column in table.schema)
        rows.append({"table": name, "rows": table.num_rows, "columns": columns})
    schema = pa.schema({"table": pa.string(), "rows": pa.int64(), "columns": pa.string()})
    return pa.Table.from_pylist(rows, schema=schema)


def _problem(run: Run, text: str, cause: str) -> str:
    nearest = _nearest(run, text, cause)
    proposals = r"\n(?:Did you mean|Candidate bindings).*" if nearest else r"$^"
    lines = [f"SQL {text.strip()!r} failed: {re.sub(proposals, '', cause.strip()).rstrip()}", *nearest]
    if not run.tables():
        return "\n".join([*lines, f"{run.uri} has no tables yet: run the job again to finish it"])
    return "\n".join([*lines, f"`modularity sql {run.uri}` without a query lists all tables and columns"])


def _nearest(run: Run, text: str, cause: str) -> list[str]:
    """The tables, or the columns of the tables in the statement, that a name may mean which DuckDB did not find."""
    table = re.search(r"Table with name (\S+) does not exist", cause)
    if table:
        found = _closest(table[1], run.tables())
        return [f"nearest tables: {', '.join(found)}"] if found else []
    column = re.search(r'column(?: named)? "([^"]+)"', cause.split("\n", 1)[0], re.IGNORECASE)
    if column is None or "GROUP BY" in cause:
        return []
    lines = []
    for name in run.tables():
        if re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE):
            known = run.table(name).column_names
            found = _closest(column[1], known)
            lines.append(f"{'nearest columns' if found else 'columns'} of {name}: {', '.join(found or known)}")
    return lines


def _closest(wanted: str, known: Iterable[str]) -> list[str]:
    by_lower = {name.lower(): name for name in known}
    return [by_lower[name] for name in get_close_matches(wanted.lower(), by_lower, n=N_NEAREST, cutoff=0.5)]
