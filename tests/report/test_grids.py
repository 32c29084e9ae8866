import re
from dataclasses import replace

import numpy as np
import pytest

from modularity.report.grids import Grid, grid_figure, levels
from modularity.report.palette import N_LEVELS


def grid(**changes):
    made = Grid(("a", "b"), ("0", "1", "2"), np.array([[0.0, 0.5, 1.0], [np.nan, 0.25, -0.2]]), "value", "layer")
    return replace(made, **changes)


def draw(made, width=736.0):
    return str(grid_figure("g", "T", "D", made, width=width))


def test_levels_by_hand():
    found = levels(np.array([[0.0, 0.5, 1.0, np.nan, -3.0, 7.0]]), 1.0)
    assert found.tolist() == [[0, N_LEVELS // 2, N_LEVELS - 1, -1, 0, N_LEVELS - 1]]


@pytest.mark.parametrize(
    ("values", "reference", "top"),
    [
        ([[0.93]], None, 1.0),
        ([[0.083]], None, 0.1),
        ([[0.01]], 0.14, 0.15),
        ([[np.nan]], None, 1.0),
        ([[-1.0]], None, 1.0),
    ],
)
def test_scale_starts_at_zero_and_ends_at_a_round_number(values, reference, top):
    assert grid(value=np.array(values), reference=reference).top == pytest.approx(top)


def test_cells_of_one_colour_are_one_path_and_missing_ones_are_marked():
    text = draw(grid())
    assert len(re.findall(r'<path d="M[^"]*" class="na"/>', text)) == 1
    assert re.search(r'<path d="(M[\d. ]+h[\d.]+v[\d.]+h-[\d.]+z){2}" class="q0"/>', text)
    assert text.count('class="cell-text') == 5


def test_blank_cells_are_not_drawn():
    text = draw(grid(blank=np.array([[True, False, False], [True, False, False]])))
    assert 'class="na"' not in text
    assert text.count('class="cell-text') == 4


def test_marks_and_reference_come_with_their_meaning():
    marked = np.array([[True, False, False], [False, False, False]])
    text = draw(grid(marked=marked, mark_label="p > 0.05", reference=0.1))
    assert "p &gt; 0.05" in text
    assert ">chance<" in text
    assert len(re.findall(r'class="mark[^"]*"', text)) == 1


def test_long_legends_are_wrapped_not_cut():
    marked = np.ones((2, 3), dtype=bool)
    label = "a mark that takes a good many words to explain to the reader of the figure"
    plain, text = (draw(grid(marked=marked, mark_label=each), 340.0) for each in ("short", label))
    assert "…" not in text
    words = re.findall(r">([^<>]+)</text>", text)
    assert label in " ".join(words)
    height = [float(re.search(r' height="([\d.]+)"', each).group(1)) for each in (plain, text)]
    assert height[1] > height[0] + 30


def test_groups_part_the_rows():
    plain = draw(grid(row_groups=("f", "f"), group_order=("f", "g")))
    parted = draw(grid(row_groups=("f", "g"), group_order=("f", "g")))
    gaps = [
        np.diff([float(y) for y in re.search(r'data-y="([^"]+)"', text).group(1).split()])[0]
        for text in (plain, parted)
    ]
    assert gaps[1] > gaps[0]
    assert 'class="key k1"' in parted


def test_narrow_drawing_fits_a_phone_until_cells_would_vanish():
    assert float(re.search(r'width="([\d.]+)"', draw(grid(), 340.0)).group(1)) <= 340
    wide = grid(column_names=tuple(map(str, range(96))), value=np.zeros((2, 96)))
    assert float(re.search(r'width="([\d.]+)"', draw(wide, 340.0)).group(1)) > 340


def test_signed_values_have_two_colours_and_a_scale_on_both_sides():
    made = grid(value=np.array([[-0.9, 0.0, 0.9], [0.3, np.nan, -0.3]]), diverging=True, marked=np.ones((2, 3), bool))
    assert made.top == pytest.approx(1.0)
    assert levels(made.value, 1.0, bottom=-1.0).tolist() == [[1, 16, 30], [20, -1, 11]]
    text = draw(made)
    assert set(re.findall(r'<path d="[^"]*" class="(d\d+)"', text)) == {"d1", "d16", "d30", "d20", "d11"}
    assert not re.search(r'class="q\d', text)
    labels = re.findall(r">(−?[\d.]+)</text>", text)
    assert {"−1.0", "0.0", "1.0"} <= set(labels)
    assert text.count('class="cell-text on-light"') == 3
    assert text.count('class="cell-text"') == 2
