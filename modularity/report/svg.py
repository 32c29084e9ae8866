"""SVG as text: escaped elements, tick positions and estimated text widths, for the two kinds of figure.

Lengths are CSS pixels. Every drawing carries a `<title>` and a `<desc>` that its root refers to. Colours are classes,
so that the page restyles a figure for a dark screen; a standalone file gets the light colours of `STANDALONE_CSS`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from modularity.report.palette import figure_css
from modularity.report.wording import clipped, number

FONT_PX = 11.5
FIGURE_CSS = (
    f"text{{font-size:{FONT_PX}px;fill:var(--ink)}}"
    ".small{font-size:9.5px}.muted{fill:var(--muted)}.strong{font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}"
    ".axis{stroke:var(--rule-strong);fill:none}.grid{stroke:var(--rule);fill:none}.frame{fill:none;stroke:none}"
    ".line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".other{fill:none;stroke:var(--faint);stroke-width:1.25}"
    ".whisker{stroke:currentColor;stroke-width:1.25;opacity:.75}.dot{fill:currentColor;stroke:var(--paper);stroke-width:1}"
    ".open{fill:var(--paper);stroke:currentColor;stroke-width:1.5}"
    ".band{fill:var(--null-band)}.null{fill:none;stroke:var(--null);stroke-width:1.5;stroke-dasharray:5 3}"
    ".control1,.control2,.control3{fill:none;stroke-width:1.6}.control1{stroke-dasharray:1.5 2.5}"
    ".control2{stroke-dasharray:8 3 1.5 3}.control3{stroke-dasharray:11 3}"
    ".tint{stroke:none;fill-opacity:.16}.tint-line{fill:currentColor}.tint-null{fill:var(--null)}"
    ".na{fill:var(--na)}.self{fill:none;stroke:var(--rule)}"
    ".mark{fill:#fff}.mark.on-light{fill:#111}.cell-text{fill:#fff;text-anchor:middle}.cell-text.on-light{fill:#111}"
    ".key{fill:currentColor}"
)
_LIGHT = {
    "ink": "#1b1e23", "muted": "#5b626c", "paper": "#ffffff", "rule": "#e6e8eb", "rule-strong": "#8d949e",
    "faint": "#c9ced5", "null": "#757c86", "null-band": "#e3e6ea", "na": "#eceef0",
}  # fmt: skip
_DARK = {
    "ink": "#e4e7eb", "muted": "#9aa3ae", "paper": "#14171b", "rule": "#2a2f36", "rule-strong": "#6c7580",
    "faint": "#474e58", "null": "#98a0ab", "null-band": "#2a3038", "na": "#21262c",
}  # fmt: skip
_FONT = "font-family:'Helvetica Neue',Helvetica,Arial,'Liberation Sans',Roboto,system-ui,sans-serif"


def variables(*, dark: bool) -> str:
    """The custom properties that figure classes refer to, as CSS declarations."""
    return "".join(f"--{name}:{value};" for name, value in (_DARK if dark else _LIGHT).items())


def _resolved(css: str) -> str:
    """CSS with the light colours written out, for programs that read SVG but know no custom properties."""
    for name, value in _LIGHT.items():
        css = css.replace(f"var(--{name})", value)
    return css


STANDALONE_CSS = f"text{{{_FONT}}}{_resolved(FIGURE_CSS)}{figure_css(dark=False)}"


@dataclass(frozen=True)
class Box:
    """A rectangle of the drawing."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """X of the right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Y of the lower edge."""
        return self.y + self.height


def coordinate(value: float) -> str:
    """Shortest text of a length to a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def drawable(value: object) -> object:
    """A text with U+FFFD for every character that XML and HTML forbid, such as the escape of a terminal's colours."""
    return value.translate(_FORBIDDEN) if isinstance(value, str) and not value.isprintable() else value


_FORBIDDEN = dict.fromkeys([*(code for code in range(32) if chr(code) not in "\t\n\r"), 0xFFFE, 0xFFFF], "\ufffd")


def element(name: str, *children: object, **attributes: object) -> Markup:
    """One element; `_` in attribute names becomes `-`, a trailing one is dropped; None leaves an attribute out."""
    parts = []
    for key, value in attributes.items():
        if value is not None:
            text = coordinate(value) if isinstance(value, float) else value
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(drawable(text))}"')
    inner = Markup("").join(escape(drawable(child)) for child in children)
    return Markup(f"<{name}{''.join(parts)}>{inner}</{name}>") if inner else Markup(f"<{name}{''.join(parts)}/>")


def text(
    x: float, y: float, value: str, *, class_: str = "", limit_px: float = math.inf, turned: bool = False
) -> Markup:
    """A label; one that is wider than `limit_px` is cut, with its whole text in a `<title>`."""
    shown = fitted(value, limit_px)
    title = element("title", value) if shown != value else ""
    turn = f"rotate(-90 {coordinate(x)} {coordinate(y)})" if turned else None
    return element("text", shown, title, x=float(x), y=float(y), class_=class_ or None, transform=turn)


_WIDTHS_EM = {**dict.fromkeys("iljtfr.,:;'|![]() I", 0.31), **dict.fromkeys("mwMW@%", 0.88)}


def text_width(value: str, font_px: float = FONT_PX) -> float:
    """Estimated width of `value` in a sans-serif like Arial, rather too wide than too narrow."""
    widths = (_WIDTHS_EM.get(letter, 0.71 if letter.isupper() or ord(letter) > 0x2E80 else 0.58) for letter in value)
    return sum(widths) * font_px


def fitted(value: str, limit_px: float) -> str:
    """`value`, cut with an ellipsis so that its estimated width is at most `limit_px`."""
    if text_width(value) <= limit_px:
        return value
    length = len(value)
    while length > 2 and text_width(clipped(value, length)) > limit_px:
        length -= 1
    return clipped(value, length)


def wrapped(value: str, limit_px: float) -> list[str]:
    """`value` in lines of at most `limit_px`, broken between words; a longer word gets a line of its own."""
    lines: list[str] = []
    for word in value.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer) <= limit_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """Path data through the points, broken where one is not finite; a lone point gives a short dash."""
    parts: list[str] = []
    run: list[tuple[float, float]] = []
    for point in [*points, (math.nan, math.nan)]:
        if all(map(math.isfinite, point)):
            run.append(point)
            continue
        if len(run) == 1:
            run = [(run[0][0] - 5, run[0][1]), (run[0][0] + 5, run[0][1])]
        if run:
            parts.append("M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in run))
        run = []
    return "".join(parts)


def ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round positions from `low` to `high`, about `target` of them."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / max(1, target)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_labels(positions: Sequence[float]) -> list[str]:
    """Labels with as many decimals as tell the ticks apart."""
    for digits in range(7):
        labels = [number(position, digits) for position in positions]
        if all(abs(round(position, digits) - position) < 1e-9 for position in positions):
            break
    return labels


def drawing(
    name: str, title: str, description: str, width: float, height: float, *body: object, data: dict[str, str]
) -> Markup:
    """The root element, labelled for assistive technology; `data` become `data-…` attributes."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        width=float(width),
        height=float(height),
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        **{f"data_{key}": value for key, value in data.items()},
    )


def standalone(svg: Markup) -> str:
    """The drawing as an SVG file of its own, with the light colours on paper of their own."""
    start = svg.index(">") + 1
    paper = f'<rect width="100%" height="100%" fill="{_LIGHT["paper"]}"/>'
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return f"{head}{svg[:start]}<style>{STANDALONE_CSS}</style>{paper}{svg[start:]}\n"
