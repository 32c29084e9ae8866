"""Rows of a run's tables, each table read once."""

from functools import cached_property
from typing import Any

from modularity.store import Run

Row = dict[str, Any]
PARTITION_SHOWN = "balanced"
"""The partition that the page shows; the others are its controls."""


class RunTables:
    """Rows of the run's tables, each read once; a table that is not there yet has no rows."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known = set(run.tables())
        self._rows: dict[str, list[Row]] = {}

    def rows(self, table: str, **wanted: Any) -> list[Row]:
        """Rows whose columns have the wanted values."""
        if table not in self._rows:
            self._rows[table] = self._run.table(table).to_pylist() if table in self._known else []
        return [row for row in self._rows[table] if all(row[name] == value for name, value in wanted.items())]

    @cached_property
    def texts(self) -> dict[tuple[str, str], Row]:
        """Example by function and id."""
        return {(row["function"], row["example_id"]): row for row in self.rows("examples")}
