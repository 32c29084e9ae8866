"""Rows of a run's tables, each table read once."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from modularity.store import Run

Row = dict[str, Any]


def table_rows(run: Run, table: str) -> list[Row]:
    """Rows of a table in the order of the store; none where the run has not computed it yet."""
    found: list[Row] = run.table(table).to_pylist() if table in run.tables() else []
    return found


class RunTables:
    """Rows of the run's tables, each read once; a table that is not there yet has no rows.

    The parts of a table lie in the order of their work items' names; here rows are in the order of the functions in the
    job, so that all figures show functions and sub-functions in one order.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known = set(run.tables())
        self.functions: tuple[str, ...] = tuple(config["name"] for config in run.manifest.config["functions"])
        """Functions in the order of the job."""
        methods = run.manifest.config["experts"]["methods"]
        self.partition_shown = "native" if "native" in methods else "balanced"
        """The partition that the page shows; the others are its controls."""
        self._rows: dict[str, list[Row]] = {}

    def rows(self, table: str, **wanted: Any) -> list[Row]:
        """Rows whose columns have the wanted values."""
        if table not in self._rows:
            rows = table_rows(self._run, table) if table in self._known else []
            self._rows[table] = sorted(rows, key=self._place) if rows and "function" in rows[0] else rows
        return [row for row in self._rows[table] if all(row[name] == value for name, value in wanted.items())]

    def in_order(self, subfunctions: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Distinct pairs of function and sub-function, in the order of the job and of the function's data."""
        declared = dict.fromkeys((row["function"], row["subfunction"]) for row in self.rows("subfunctions"))
        places = {pair: place for place, pair in enumerate(declared)}
        return sorted(dict.fromkeys(subfunctions), key=lambda pair: places.get(pair, len(places)))

    def _place(self, row: Row) -> int:
        return self.functions.index(row["function"]) if row["function"] in self.functions else len(self.functions)

    @cached_property
    def texts(self) -> dict[tuple[str, str], Row]:
        """Example by function and id."""
        return {(row["function"], row["example_id"]): row for row in self.rows("examples")}
