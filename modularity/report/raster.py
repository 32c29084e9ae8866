"""Pixels: an SVG drawing as a PNG file (by resvg), and a matrix of colours as a PNG image inside a drawing."""

import base64
import math
import struct
import zlib
from functools import cache
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from modularity.errors import InputError

MAX_SCALE = 20.0
FAMILIES = (
    "Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "Roboto", "DejaVu Sans", "Noto Sans", "Open Sans",
    "Ubuntu", "Segoe UI",
)  # fmt: skip
"""Fonts that labels are drawn in, the first that is installed."""
_PROBE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24">'
    '<text x="2" y="20" font-size="20" font-family="{}">{}</text></svg>'
)


def png_problems(scale: float) -> list[str]:
    """Why PNG files of this scale cannot be drawn; nothing where they can."""
    problems = []
    if not (math.isfinite(scale) and 0 < scale <= MAX_SCALE):
        problems.append(f"scale={scale}: expected a number above 0 and at most {MAX_SCALE:g}, such as 3")
    if find_spec("resvg_py") is None:
        problems.append(
            "PNG files are drawn by resvg-py, which is not installed: pip install resvg-py, or write SVG files only "
            "(--no-png)"
        )
    elif sans_serif() is None:
        problems.append(
            f"PNG files need a font for their labels, and none of {', '.join(FAMILIES)} is installed; install one, "
            "such as fonts-dejavu-core, or write SVG files only (--no-png)"
        )
    return problems


def svg_to_png(svg: str, scale: float) -> bytes:
    """A standalone drawing as a PNG image of `scale` pixels for each of its own; InputError where that cannot be."""
    problems = png_problems(scale)
    if problems:
        raise InputError(problems)
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(svg_string=svg, zoom=scale, font_family=sans_serif(), sans_serif_family=sans_serif())
    )


@cache
def sans_serif() -> str | None:
    """The first installed font of `FAMILIES`: resvg leaves text out whose font it does not find."""
    import resvg_py

    def drawn(letter: str, family: str) -> bytes:
        return bytes(resvg_py.svg_to_bytes(svg_string=_PROBE.format(family, letter)))

    missing, blank = drawn("M", "no such family"), drawn("", FAMILIES[0])
    for family in FAMILIES:
        if drawn("M", family) not in (missing, blank):
            return family
    return None if missing == blank else "sans-serif"


def png_image(colours_HW3: npt.NDArray[np.uint8]) -> bytes:
    """A PNG image of eight-bit colours, one pixel for each entry."""
    height, width, _ = colours_HW3.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # every line begins with filter 0
    lines[:, 1:] = colours_HW3.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def data_uri(png: bytes) -> str:
    """A PNG image as the address of an `image` element."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def coloured(
    value: npt.NDArray[np.float64], ramp: tuple[str, ...], *, low: float, high: float
) -> npt.NDArray[np.uint8]:
    """Eight-bit colours of values between `low` and `high`; missing values are grey."""
    table = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in ramp], np.uint8)
    scaled = (np.clip(np.nan_to_num(value), low, high) - low) / (high - low) * len(ramp)
    colours = table[np.clip(scaled.astype(np.int64), 0, len(ramp) - 1)]
    colours[~np.isfinite(value)] = (0xEC, 0xEE, 0xF0)
    return colours
