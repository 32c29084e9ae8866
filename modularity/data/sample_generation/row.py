"""One example of the sample files, and how a file is written."""

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One example."""

    id: str
    text: str
    subfunction: str
    label: int
    pair: str
    """Cluster: the minimal pair, or the fillings of one frame; all in one half."""
    split: str
    """`selection` or `evaluation`."""
    text_pair: str | None = None
    target: tuple[int, int] | None = None
    """Characters [start, end) of the ambiguous word."""

    def as_json(self) -> dict[str, str | int]:
        """Columns of the row; `text_pair`, `start` and `end` only where they mean something."""
        columns: dict[str, str | int] = {"id": self.id, "text": self.text}
        if self.text_pair is not None:
            columns["text_pair"] = self.text_pair
        columns |= {"subfunction": self.subfunction, "label": self.label}
        if self.target is not None:
            columns |= {"start": self.target[0], "end": self.target[1]}
        return columns | {"pair": self.pair, "split": self.split}


def to_jsonl(rows: Iterable[Row]) -> str:
    """The rows as JSON Lines."""
    return "".join(json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in rows)
