from typing import Any

import pytest

from modularity.data.problems import RowError
from modularity.data.row_values import field_value, integer_value, is_absent, name_value, target_span, text_value


@pytest.mark.parametrize(
    ("value", "absent"), [(None, True), (float("nan"), True), (" ", True), (0, False), ("0", False)]
)
def test_what_counts_as_absent(value: Any, absent: bool) -> None:
    assert is_absent(value) is absent


@pytest.mark.parametrize(("value", "name"), [("bank", "bank"), (7, "7"), (7.0, "7")])
def test_names(value: Any, name: str) -> None:
    assert name_value({"x": value}, "x", "id") == name


@pytest.mark.parametrize(("value", "number"), [(3, 3), ("3", 3), (3.0, 3), ("-1", -1), (" 4 ", 4)])
def test_integers(value: Any, number: int) -> None:
    assert integer_value({"x": value}, "x", "position") == number


@pytest.mark.parametrize("value", [None, True, "x", 1.5, float("inf"), float("nan"), [1]])
def test_no_integers(value: Any) -> None:
    with pytest.raises(RowError, match="is not an integer"):
        integer_value({"x": value}, "x", "position")


def test_texts_keep_their_white_space() -> None:
    assert text_value({"x": " a "}, "x") == " a "
    assert field_value({"x": 3}, "x") == "3"


def test_spans_lie_in_the_text() -> None:
    assert target_span(0, 3, "abc") == (0, 3)
    for start, end in ((-1, 2), (0, 4), (2, 2)):
        with pytest.raises(RowError, match="is not inside the text of 3 characters"):
            target_span(start, end, "abc")
