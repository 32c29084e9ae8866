import re

import numpy as np
import pytest

from modularity.report.lines import Band, Panel, Series, XAxis, line_figure, y_range
from modularity.report.svg import Box

X = np.array([0.0, 1.0, 2.0])
AXIS = XAxis("layer", X, ("0", "1", "2"))


def panel(y, row=0, **changes):
    tips = tuple((f"tip {index}",) for index in range(len(y)))
    series = Series(X, np.array(y), "line", tips=tips, **changes)
    return Panel("title", "k0", (series,), (), "value", row)


def test_range_starts_at_zero_and_holds_whiskers_and_bands():
    low, high = y_range([panel([0.2, 0.4, 0.3], low=X * 0, high=X + 1)])
    assert low == 0
    assert high == pytest.approx(3 * 1.06)
    assert y_range([panel([-0.1, 0.4, 0.3])])[0] < -0.1
    assert y_range([panel([np.nan] * 3)]) == (0.0, pytest.approx(1.06))
    banded = Panel("t", "k0", (), (Band(X, X, X + 5),))
    assert y_range([banded])[1] > 7


def test_positions_on_linear_logarithmic_and_single_axes():
    box = Box(0, 0, 120, 50)
    assert AXIS.scale(box, X).tolist() == [10, 60, 110]
    logarithmic = XAxis("q", np.array([1.0, 10.0, 100.0]), ("1", "10", "100"), logarithmic=True)
    assert logarithmic.scale(box, logarithmic.positions) == pytest.approx([10, 60, 110])
    assert XAxis("layer", np.array([5.0]), ("5",)).scale(box, np.array([5.0])).tolist() == [60]


def test_points_and_tips_correspond_and_missing_points_have_none():
    drawing, tips = line_figure("n", "T", "D", (panel([0.1, np.nan, 0.3]),), AXIS, width=736.0)
    points = re.search(r'data-points="([^"]*)"', str(drawing)).group(1).split()
    assert len(points) == len(tips) == 2
    assert tips == [("tip 0",), ("tip 2",)]


def test_both_widths_have_the_points_in_the_same_order():
    panels = (panel([0.1, 0.2, 0.3]), panel([0.3, 0.2, 0.1]), panel([1, 2, 3], row=1))
    drawn = [line_figure("n", "T", "D", panels, AXIS, width=width) for width in (736.0, 340.0)]
    assert drawn[0][1] == drawn[1][1]
    assert [float(re.search(r'width="([\d.]+)"', str(drawing)).group(1)) for drawing, _ in drawn] == [736, 340]


def test_rows_have_scales_of_their_own():
    panels = (panel([0.1, 0.2, 0.3]), panel([100.0, 200.0, 300.0], row=1))
    text = str(line_figure("n", "T", "D", panels, AXIS, width=736.0)[0])
    assert ">0.3<" in text
    assert ">300<" in text


def test_legend_wraps_within_the_width():
    legend = tuple(("null", f"a rather long meaning of line {index}") for index in range(4))
    text = str(line_figure("n", "T", "D", (panel([0.1, 0.2, 0.3]),), AXIS, width=340.0, legend=legend)[0])
    assert len(set(re.findall(r'y="([\d.]+)"[^>]*>a rather', text))) == 4
