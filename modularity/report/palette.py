"""Colours: a categorical palette for functions and a computed sequential ramp for heat maps.

Categories are those of Okabe and Ito (2008), told apart under the common forms of colour blindness; the yellow is left
out because it is too faint for lines on white. Controls have three others: wine, olive and indigo of the muted scheme
of P. Tol (2021, Colour Schemes), olive darker for contrast, and light forms of them on dark paper. The ramp runs along
the hues of viridis at evenly spaced lightness in OKLCH (B. Ottosson 2020), so that it is monotone in grey, too. On
light paper low values are light, on dark paper low values are dark: the paper is always the zero.
"""

import numpy as np
import numpy.typing as npt

CATEGORIES_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#a87500", "#5a5a5a")
CATEGORIES_DARK = ("#56b4e9", "#ff8c42", "#2fc59b", "#e39ac4", "#9ad4f5", "#e6b84a", "#b5b5b5")
CONTROLS_LIGHT = ("#882255", "#7d7d1a", "#332288")
CONTROLS_DARK = ("#ffb3d1", "#cfcf5c", "#8f84f0")
N_LEVELS = 32

_OKLAB_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def oklch_to_rgb(lightness: float, chroma: float, hue_degrees: float) -> tuple[int, int, int]:
    """Eight-bit sRGB of an OKLCH colour; chroma is lowered until the colour exists in sRGB."""
    hue = np.deg2rad(hue_degrees)
    for scale in np.linspace(1, 0, 41):
        lab = np.array([lightness, scale * chroma * np.cos(hue), scale * chroma * np.sin(hue)])
        linear = _LMS_TO_RGB @ (_OKLAB_TO_LMS @ lab) ** 3
        if (linear >= -1e-6).all() and (linear <= 1 + 1e-6).all():
            break
    red, green, blue = (round(255 * value) for value in _gamma(np.clip(linear, 0, 1)))
    return red, green, blue


def _gamma(linear: npt.NDArray[np.float64]) -> list[float]:
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [float(value) for value in encoded]


def ramp(*, dark: bool) -> tuple[str, ...]:
    """`N_LEVELS` hexadecimal colours from the lowest value to the highest."""
    position = np.linspace(0, 1, N_LEVELS)
    lightness = 0.965 - 0.665 * position
    hue = np.interp(position, [0, 0.3, 0.6, 1], [105, 165, 240, 292])
    chroma = np.interp(position, [0, 0.12, 0.35, 0.75, 1], [0.025, 0.09, 0.12, 0.12, 0.14])
    if dark:
        lightness = 0.275 + 0.625 * position
        hue = np.interp(position, [0, 0.35, 0.65, 1], [285, 245, 165, 105])
        chroma = np.interp(position, [0, 0.3, 0.6, 1], [0.045, 0.11, 0.13, 0.16])
    colours = (oklch_to_rgb(*map(float, row)) for row in zip(lightness, chroma, hue))
    return tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours)


def diverging_ramp(*, dark: bool) -> tuple[str, ...]:
    """`N_LEVELS` hexadecimal colours from the most negative value (blue) over paper to the most positive (orange)."""
    position = np.linspace(-1, 1, N_LEVELS)
    size = np.abs(position)
    lightness = 0.275 + 0.55 * size if dark else 0.965 - 0.52 * size
    chroma = np.interp(size, [0, 0.15, 1], [0.005, 0.045, 0.15])
    hue = np.where(position < 0, 255.0, 48.0)
    colours = (oklch_to_rgb(*map(float, row)) for row in zip(lightness, chroma, hue))
    return tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours)


def figure_css(*, dark: bool) -> str:
    """CSS rules for the fills of heat map levels (`q0`…, signed ones `d0`…), colours of functions (`k0`…) and strokes
    of controls.
    """
    rules = [f".q{level}{{fill:{colour}}}" for level, colour in enumerate(ramp(dark=dark))]
    rules += [f".d{level}{{fill:{colour}}}" for level, colour in enumerate(diverging_ramp(dark=dark))]
    categories = CATEGORIES_DARK if dark else CATEGORIES_LIGHT
    rules += [f".k{index}{{color:{colour}}}" for index, colour in enumerate(categories)]
    controls = CONTROLS_DARK if dark else CONTROLS_LIGHT
    rules += [f".control{number}{{stroke:{colour}}}" for number, colour in enumerate(controls, 1)]
    rules += [f".tint-control{number}{{fill:{colour}}}" for number, colour in enumerate(controls, 1)]
    return "".join(rules)


def category(index: int) -> str:
    """CSS class of the function with this position; beyond the palette's length all share its last, grey."""
    return f"k{min(index, len(CATEGORIES_LIGHT) - 1)}"
