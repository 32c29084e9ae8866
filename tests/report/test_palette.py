import numpy as np
import pytest

from modularity.report.palette import (
    CATEGORIES_DARK,
    CATEGORIES_LIGHT,
    CONTROLS_DARK,
    CONTROLS_LIGHT,
    N_LEVELS,
    category,
    diverging_ramp,
    figure_css,
    oklch_to_rgb,
    ramp,
)


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


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
    assert all(1.05 / (luminance(colour) + 0.05) > 3 for colour in CONTROLS_LIGHT)
    dark = (*CATEGORIES_DARK, *CONTROLS_DARK)
    assert all((luminance(colour) + 0.05) / (luminance("#14171b") + 0.05) > 3 for colour in dark)


# Machado, Oliveira and Fernandes 2009, full protanopia, deuteranopia and tritanopia, linear sRGB
BLINDNESS = (
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
)


def lab(linear):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.clip(to_xyz @ linear / [0.9505, 1.0, 1.089], 1e-4, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("controls", "null"), [(CONTROLS_LIGHT, "#757c86"), (CONTROLS_DARK, "#98a0ab")])
def test_controls_are_told_apart_by_the_colour_blind(controls, null):
    for matrix in (np.eye(3), *BLINDNESS):
        seen = [lab(np.clip(np.array(matrix) @ linear(colour), 0, 1)) for colour in (*controls, null)]
        apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(apart) > 11


def test_every_class_is_defined_and_many_functions_share_the_last():
    css = figure_css(dark=False)
    assert all(f".q{level}{{" in css for level in range(N_LEVELS))
    assert category(0) == "k0"
    assert category(60) == f"k{len(CATEGORIES_LIGHT) - 1}"


@pytest.mark.parametrize("dark", [False, True])
def test_signed_colours_begin_at_the_paper_and_differ_by_sign(dark):
    values = np.array([luminance(colour) for colour in diverging_ramp(dark=dark)])
    assert len(values) == N_LEVELS
    middle, ends = values[N_LEVELS // 2 - 1 : N_LEVELS // 2 + 1], values[[0, -1]]
    assert (middle > 0.8).all() if not dark else (middle < 0.06).all()
    assert (ends < 0.4).all() if not dark else (ends > 0.3).all()
    half = N_LEVELS // 2
    steps = np.concatenate([np.diff(values[half:]), np.diff(values[:half][::-1])])
    assert (steps > 0).all() if dark else (steps < 0).all()
    blue, orange = linear(diverging_ramp(dark=dark)[0]), linear(diverging_ramp(dark=dark)[-1])
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
