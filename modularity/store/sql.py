"""SQL over the tables of a run, by DuckDB in memory: every table is a view, and nothing else can be reached.

The statement sees no file, no network, no Python variable, and cannot change settings.
"""

import re

import duckdb
import pyarrow as pa

from modularity.errors import InputError
from modularity.store.run import Run
from modularity.store.tables import schema_text

_CLOSED = {
    "python_enable_replacements": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
}


def sql(run: Run, text: str) -> pa.Table:
    """Answer of one SELECT (or DESCRIBE, SHOW) over the tables of a run.

    Raises
    ------
    InputError
        The statement cannot be parsed, names something that does not exist, is not one reading statement, or reaches
        for files or settings; the message lists the tables and their columns.
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
        return connection.sql(text).to_arrow_table()
    except duckdb.Error as error:
        raise InputError(_problem(run, text, str(error))) from None
    finally:
        connection.close()


def _check_statement(run: Run, text: str) -> None:
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise InputError(_problem(run, text, str(error))) from None
    kinds = [statement.type.name for statement in statements]
    if len(kinds) != 1 or kinds[0] != "SELECT":
        found = ", ".join(kinds) or "nothing"
        raise InputError(_problem(run, text, f"expected one SELECT, found {found}; the tables of a run are read-only"))


def _problem(run: Run, text: str, cause: str) -> str:
    known = "\n".join(f"  {name}({schema_text(run.table(name).schema)})" for name in run.tables()) or "  none yet"
    return f"SQL {text.strip()!r} failed: {cause.strip()}\ntables:\n{known}"
