"""Checked values of single cells: names, texts, integers, target spans. Each raises RowError with the value in it."""

import math
from collections.abc import Mapping
from typing import Any

from modularity.data.problems import RowError

Row = Mapping[str, Any]
SHOWN = 80
"""Characters of a value that a message shows."""
LONGEST_TEXT = 2**31
"""Places in texts are below this."""


def is_absent(value: Any) -> bool:
    """True for null, NaN, empty or blank text: what files hold where there is no value."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def shown(value: Any) -> str:
    """A value as messages show it: the first 80 characters of long ones."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"


def encodable(text: str, column: str) -> str:
    """The text itself; RowError where it holds half of a surrogate pair, which no file and no hash can take."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            "broken text", f"{column} holds half of a surrogate pair at character {error.start}; repair the encoding"
        ) from None
    return text


def name_value(values: Row, column: str, what: str) -> str:
    """A name: text or an integer."""
    value = values.get(column)
    if is_absent(value):
        raise RowError(f"no {what}", f"no {what} ({column}={value!r}); expected a name")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"bad {what}", f"{what} {column}={shown(value)} is not a name; expected text or an integer")
    return encodable(str(value), column)


def text_value(values: Row, column: str) -> str:
    """A text that is not empty and can be encoded."""
    value = values.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise RowError("no text", f"no text ({column}={value!r}); remove the row or fill it in")
    if not isinstance(value, str):
        raise RowError("text of another type", f"{column}={shown(value)} is {type(value).__name__}, expected text")
    if not value.strip():
        raise RowError("empty text", f"empty text ({column}={shown(value)}); remove the row or fill it in")
    return encodable(value, column)


def field_value(values: Row, column: str) -> str:
    """Value of a template field: a text, or a number written out."""
    value = values.get(column)
    return str(value) if isinstance(value, int | float) and not is_absent(value) else text_value(values, column)


def integer_value(values: Row, column: str, what: str) -> int:
    """An integer of a place in a text, also when written as text or as a float without fraction."""
    value: Any = values.get(column)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or abs(number) >= LONGEST_TEXT:
        raise RowError(f"bad {what}", f"{what} {column}={shown(value)} is not an integer below {LONGEST_TEXT}")
    return int(number)


def target_span(start: int, end: int, text: str) -> tuple[int, int]:
    """Character span [start, end) that lies in the text and holds more than white space."""
    if not 0 <= start < end <= len(text):
        raise RowError(
            "bad target span",
            f"target span [{start}, {end}) is not inside the text of {len(text)} characters; "
            "expected 0 <= start < end <= length",
        )
    if not text[start:end].strip():
        raise RowError("bad target span", f"target span [{start}, {end}) of {text[:40]!r} holds white space only")
    return start, end
