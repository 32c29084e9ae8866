"""Numbers as text, the same in sentences, tables, axes and tooltips.

A minus sign is U+2212, thousands are separated by a comma, a value that is not finite is an en dash.
"""

import math

MISSING = "–"


def number(value: float | None, digits: int = 2) -> str:
    """`value` with a fixed number of decimals."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def significant(value: float | None, digits: int = 3) -> str:
    """`value` with a number of significant digits, without an exponent between 0.0001 and 1,000,000."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if -5 < magnitude < 6:
        return number(value, max(0, digits - 1 - magnitude))
    return f"{value:.{digits - 1}e}".replace("-", "−")


def count(value: int) -> str:
    """Whole number with thousands separated."""
    return f"{value:,}".replace("-", "−")


def plural(value: int, word: str) -> str:
    """`3 layers`, `1 layer`."""
    return f"{count(value)} {word}" if value == 1 else f"{count(value)} {word}s"


def percent(share: float | None, digits: int = 1) -> str:
    """Share between 0 and 1 as per cent."""
    text = number(None if share is None else 100 * share, digits)
    return text if text == MISSING else f"{text} %"


def p_value(value: float | None, name: str = "p") -> str:
    """`p = 0.005`, `p < 0.001`, or the words that there is none."""
    if value is None or not math.isfinite(value):
        return f"no {name}-value"
    if value < 0.001:
        return f"{name} < 0.001"
    digits = 2 if value >= 0.0995 else 1 - math.floor(math.log10(value))
    text = number(value, digits)
    return f"{name} = {text.rstrip('0') if value < 0.0995 else text}"


def p_cell(value: float | None) -> str:
    """p-value for a table cell: the number alone, with `<` where it is below 0.001."""
    if value is None or not math.isfinite(value):
        return MISSING
    return p_value(value).removeprefix("p ").removeprefix("= ")


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """`[0.55, 0.69]`, empty when an end is missing."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def with_interval(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """`0.62 [0.55, 0.69]`, or the value alone when the interval is missing."""
    return f"{number(value, digits)} {interval(low, high, digits)}".rstrip()


def clipped(text: str, length: int) -> str:
    """`text` cut to `length` characters, with an ellipsis where something was cut."""
    return text if len(text) <= length else text[: max(1, length - 1)].rstrip() + "…"


def joined(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def capital(text: str) -> str:
    """`text` with its first letter as a capital."""
    return text[:1].upper() + text[1:]
