"""Collect every problem of the input before raising, with the long lists cut but counted."""

from modularity.errors import InputError

LISTED = 20
"""Messages of one kind that are shown; the rest is counted."""


class Problems:
    """Problems by kind, in the order in which the kinds were first seen.

    Parameters
    ----------
    what : what has them (`function`, `corpus`); stands with its name before every message
    """

    def __init__(self, what: str = "function") -> None:
        self._what = what
        self._by_kind: dict[tuple[str, str], list[str]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, function: str, kind: str, message: str) -> None:
        """Note one problem of a function, or with "" of no one; `kind` groups what is listed and counted together."""
        key = (function, kind)
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._counts[key] <= LISTED:
            self._by_kind.setdefault(key, []).append(f"{self._owner(function)}{message}")

    def count(self, function: str | None = None) -> int:
        """Number of problems noted so far, of one function or of all."""
        return sum(count for (owner, _), count in self._counts.items() if function in (None, owner))

    def take(self, function: str, kind: str) -> int:
        """Forget the problems of one kind; their number."""
        self._by_kind.pop((function, kind), None)
        return self._counts.pop((function, kind), 0)

    def extend(self, other: "Problems") -> None:
        """Add the problems of another collection, whose kinds are counted on."""
        for (owner, kind), messages in other._by_kind.items():
            before = self._counts.get((owner, kind), 0)
            kept = self._by_kind.setdefault((owner, kind), [])
            kept += messages[: max(0, LISTED - before)]
            self._counts[owner, kind] = before + other._counts[owner, kind]

    def messages(self) -> list[str]:
        """What is shown: up to `LISTED` of each kind, then how many more there are."""
        shown = []
        for key, messages in self._by_kind.items():
            shown += messages
            more = self._counts[key] - len(messages)
            if more:
                shown.append(f"{self._owner(key[0])}and {more} more of this kind ({key[1]})")
        return shown

    def _owner(self, name: str) -> str:
        return f"{self._what} {name!r}: " if name else ""

    def raise_any(self) -> None:
        """Raise one InputError with all problems, if there are any."""
        if self._by_kind:
            raise InputError(self.messages())


class RowError(Exception):
    """One thing wrong with one row of a source; becomes a line of an InputError before it leaves this room."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
