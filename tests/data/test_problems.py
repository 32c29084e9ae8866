import pytest

from modularity.data.problems import LISTED, Problems
from modularity.errors import InputError


def test_kinds_keep_their_order_and_their_counts() -> None:
    problems = Problems()
    for number in range(LISTED + 3):
        problems.add("f", "empty text", f"row {number}")
        problems.add("g", "empty text", "other") if number == 0 else None
    problems.add("f", "no label", "row 99")
    messages = problems.messages()
    assert messages[0] == "function 'f': row 0"
    assert messages[LISTED - 1 : LISTED + 2] == [
        "function 'f': row 19",
        "function 'f': and 3 more of this kind (empty text)",
        "function 'g': other",
    ]
    assert (problems.count("f"), problems.count("g"), problems.count()) == (24, 1, 25)
    with pytest.raises(InputError, match="23 problems"):
        problems.raise_any()


def test_nothing_wrong_raises_nothing() -> None:
    Problems().raise_any()
