import numpy as np
import pytest

from modularity.report.palette import (
    CATEGORIES_DARK,
    CATEGORIES_LIGHT,
    N_LEVELS,
    category,
    figure_css,
    oklch_to_rgb,
    ramp,
)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("dark", [False, True])
def test_ramp_is_strictly_monotone_in_luminance(dark):
    values = [luminance(colour) for colour in ramp(dark=dark)]
    steps = np.diff(values)
    assert len(values) == N_LEVELS
    assert (steps > 0).all() if dark else (steps < 0).all()


def test_zero_is_near_the_paper_in_both_schemes():
    assert luminance(ramp(dark=False)[0]) > 0.85
    assert luminance(ramp(dark=True)[0]) < 0.05


def test_oklch_reference_points():
    assert oklch_to_rgb(1.0, 0.0, 0.0) == (255, 255, 255)
    assert oklch_to_rgb(0.0, 0.0, 0.0) == (0, 0, 0)
    assert oklch_to_rgb(0.40101, 0.12332, 21.555) == (125, 35, 41)


def test_lines_are_seen_on_their_paper():
    """Contrast of at least 3 (WCAG 1.4.11), the light blue and pink of Okabe and Ito excepted: 2.2 and more."""
    assert all(1.05 / (luminance(colour) + 0.05) > 2.2 for colour in CATEGORIES_LIGHT)
    assert all((luminance(colour) + 0.05) / (luminance("#14171b") + 0.05) > 3 for colour in CATEGORIES_DARK)


def test_every_class_is_defined_and_many_functions_share_the_last():
    css = figure_css(dark=False)
    assert all(f".q{level}{{" in css for level in range(N_LEVELS))
    assert category(0) == "k0"
    assert category(60) == f"k{len(CATEGORIES_LIGHT) - 1}"
