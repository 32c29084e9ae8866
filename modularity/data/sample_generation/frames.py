"""Frames: sentences with slots, and how a frame is filled.

A frame is a line of one of the text files of this folder. `{a|b|c}` is a slot with its options; `{who}`, `{they}` and
`{when}` are slots with shared lists, which carry no label. Filling `k` of a frame takes option `k` of every slot; a
slot that has run out starts again, shifted by its place in the frame, so that two fillings rarely share more than one
option. Equal slots of a frame are filled alike.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
_SHARED_LISTS = {
    "who": (
        "Anna|Omar|Priya|Lucas|Mei|Fatima|Jonas|Elena|Kofi|Sara|Tom|Ingrid|Diego|Nadia|Peter|Yuki|Ruth|Ahmed|Clara|Ivan"
        "|Leila|Marcus|Olga|Daniel|Hannah|Pedro|Aisha|Simon|Greta"
    ),
    "they": (
        "my neighbour|her brother|our teacher|the old man|a young woman|the visitor|my cousin|his friend|the girl"
        "|a tourist|our aunt|the farmer|my uncle|the student|her mother|a stranger|the boy"
    ),
    "when": (
        "yesterday|last week|on Monday|this morning|two days ago|last night|on Friday evening|last month|this afternoon"
        "|on Sunday|earlier this week|a year ago|last summer"
    ),
}
"""Options that stand in all frames alike: names, people, times."""

_SLOT = re.compile(r"\{([^{}]*)\}")


def read_lines(name: str) -> Iterator[str]:
    """Lines of a text file of this folder, without blank lines and comments."""
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("# "):
            yield line.strip()


def stable_rank(*parts: object) -> int:
    """Number that depends on the parts alone, the same on every machine and version of Python."""
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "big")


def fill(frame: str, filling: int) -> str:
    """The frame with every slot replaced by the option of this filling (0, 1, 2 …)."""
    slots = list(dict.fromkeys(_SLOT.findall(frame)))

    def option(slot: re.Match[str]) -> str:
        name = slot.group(1)
        options = _SHARED_LISTS.get(name, name).split("|")
        start = stable_rank(frame, name) if name in _SHARED_LISTS else 0
        second_round_shift = slots.index(name) * (filling // len(options))
        return options[(start + filling + second_round_shift) % len(options)]

    return _SLOT.sub(option, frame)


def sentence(text: str, end: str = ".") -> str:
    """The text with a capital letter first and `end` last, unless it ends in a mark already."""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?")) else end)


def half_of(index: int) -> str:
    """Half of the frame or fact with this index: they alternate."""
    return "evaluation" if index % 2 else "selection"
