import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from modularity.report import figures
from modularity.report.figures import expert_order, page_figures

SVG = "{http://www.w3.org/2000/svg}"
EMPTY = dict.fromkeys(
    ("curves", "heatmaps", "overlaps", "expert_curves", "function_expert_curves", "expert_maps", "sensitivity"), ()
)


def parsed(text):
    return ElementTree.fromstring(text.removeprefix('<?xml version="1.0" encoding="UTF-8"?>\n'))


def test_every_figure_is_a_file_of_its_own_with_title_and_description(content):
    files = figures(content)
    expected = {
        "predictivity",
        "heatmap-functions",
        "heatmap-subfunctions",
        "overlap-functions",
        "overlap-subfunctions",
    }
    expected |= {"experts", "experts-functions", "sensitivity", *(f"experts-layer-{layer}" for layer in range(12))}
    assert set(files) == expected
    for text in files.values():
        root = parsed(text)
        assert root.find(f"{SVG}title").text
        assert len(root.find(f"{SVG}desc").text) > 20
        assert root.get("aria-labelledby").split() == [root.find(f"{SVG}{tag}").get("id") for tag in ("title", "desc")]


def test_axes_null_and_chance_are_drawn(content):
    files = figures(content)
    words = {
        name: " ".join(node.text or "" for node in parsed(text).iter(f"{SVG}text")) for name, text in files.items()
    }
    for label in ("layer", "normalised AP", "best neuron under permuted labels (mean)", "5–95 % of permutations"):
        assert label in words["predictivity"]
    assert files["predictivity"].count('class="band"') == 3 + 1
    assert "functional experts (%)" in words["experts"]
    assert "shuffled weights" in words["experts"]
    assert "chance" in words["overlap-subfunctions"]
    assert "count ÷ chance" in words["experts-layer-0"]


def test_every_mark_has_a_tooltip(content):
    for figure in page_figures(content):
        for drawing in (figure.wide, figure.narrow):
            root = parsed(str(drawing))
            if root.get("data-kind") == "points":
                assert len(root.get("data-points").split()) == len(figure.data["tips"])
            else:
                assert len(root.get("data-x").split()) == len(figure.data["cols"])
                assert len(root.get("data-y").split()) == len(figure.data["rows"])
                for _, values in figure.data["fields"]:
                    assert isinstance(values, str) or np.shape(values) == (
                        len(figure.data["rows"]),
                        len(figure.data["cols"]),
                    )


def test_points_lie_where_their_values_are(content):
    """A curve that rises by equal steps is drawn by equal steps upwards."""
    curve = replace(content.curves[0], best_L=np.linspace(0, 1, 12), low_L=None, high_L=None, selection_L=None)
    curve = replace(curve, low_L=curve.best_L, high_L=curve.best_L)
    (figure,) = page_figures(replace(content, **EMPTY | {"curves": (curve,)}))
    points = np.array([point.split(",") for point in parsed(str(figure.wide)).get("data-points").split()], float)
    assert np.diff(points[:, 0]) == pytest.approx(np.diff(points[:, 0])[0], abs=0.02)
    assert np.diff(points[:, 1]) == pytest.approx(np.diff(points[:, 1])[0], abs=0.02)
    assert points[0, 1] > points[-1, 1]


def test_missing_values_are_gaps_not_numbers(content):
    best = content.curves[0].best_L.copy()
    best[3] = np.nan
    value = content.heatmaps[1].value_YL.copy()
    value[0, :] = np.nan
    changed = replace(
        content,
        curves=(replace(content.curves[0], best_L=best), *content.curves[1:]),
        heatmaps=(replace(content.heatmaps[1], value_YL=value),),
    )
    files = figures(changed)
    assert not any("nan" in text.lower() for text in files.values())
    assert 'class="na"' in files["heatmap-subfunctions"]


def test_all_missing_is_still_a_figure(content):
    nothing = np.full((3, 12), np.nan)
    heatmap = replace(content.heatmaps[0], value_YL=nothing, chance=None)
    text = figures(replace(content, **EMPTY | {"heatmaps": (heatmap,)}))["heatmap-functions"]
    assert "All values are missing." in text


def test_one_layer_and_one_function(content, parts):
    rng = np.random.default_rng(0)
    curve = parts["curve"]("task", 1, rng, layers=(5,))
    whole, _ = parts["heatmaps"](rng, {"task": ("one",)}, layers=(5,))
    files = figures(replace(content, **EMPTY | {"curves": (curve,), "heatmaps": (whole,)}))
    assert set(files) == {"predictivity", "heatmap-functions"}
    assert "other functions" not in files["predictivity"]


def test_sixty_subfunctions(content, parts):
    names = {function: tuple(f"{function} number {i}" for i in range(20)) for function in ("a", "b", "c")}
    rng = np.random.default_rng(0)
    drawn = {"heatmaps": parts["heatmaps"](rng, names), "overlaps": parts["overlaps"](rng, names)}
    changed = replace(content, **EMPTY | drawn)
    drawn = {figure.name: figure for figure in page_figures(changed)}
    assert len(drawn["overlap-subfunctions"].data["rows"]) == 60
    assert drawn["overlap-subfunctions"].table is None
    assert float(parsed(str(drawn["overlap-subfunctions"].wide)).get("width")) < 900


def test_experts_are_ordered_by_what_they_serve(content):
    each = replace(
        content.expert_maps[0], row_names=("a", "b"), row_groups=("f", "g"), count_SE=[[1, 9, 8, 1], [9, 1, 1, 1]],
        expected_SE=[3, 3, 3, 3], functional_SE=[[0, 1, 1, 0], [1, 0, 0, 0]], p_value_SE=None,
    )  # fmt: skip
    assert expert_order(each) == [1, 2, 0, 3]


def test_a_dot_means_significant_in_every_matrix(content):
    """The synthetic report has q of .005 above a value, and of .4 or .3 below it."""
    drawn = {figure.name: figure for figure in page_figures(content)}
    for name, part, at in (
        ("heatmap-subfunctions", content.heatmaps[1], "p_value_YL"),
        ("overlap-subfunctions", content.overlaps[1], "p_value_SS"),
    ):
        q_value = getattr(part, at).copy()
        if part is content.overlaps[1]:
            np.fill_diagonal(q_value, 1.0)
        paths = [node.get("d") for node in parsed(str(drawn[name].wide)).iter(f"{SVG}path")
                 if (node.get("class") or "").startswith("mark")]  # fmt: skip
        assert sum(path.count("M") for path in paths) == (q_value <= 0.05).sum() > 10
        texts = " ".join(node.text or "" for node in parsed(str(drawn[name].narrow)).iter(f"{SVG}text"))
        assert "significant after correction" in texts


def test_tips_of_heat_maps_say_which_half_a_number_is_of(content):
    names = [name for name, _ in page_figures(content)[2].data["fields"]]
    assert names == ["normalised AP on held-out examples", "95 % bootstrap interval", "q on selection examples"]
    paper = page_figures(replace(content, held_out=False))[2]
    names = [name for name, _ in paper.data["fields"]]
    assert names == ["normalised AP on the examples they were chosen on", "95 % bootstrap interval", "q"]


def test_pairs_tell_what_permuted_labels_give(content):
    each = content.overlaps[1]
    shares, p_values = np.full((2, 20, 20), [[[0.02]], [[0.3]]])
    fields = [name for name, _ in page_figures(content)[4].data["fields"]]
    assert not any("permuted" in name for name in fields)
    changed = replace(each, label_value_SS=shares, label_p_SS=p_values)
    [figure] = page_figures(replace(content, **EMPTY | {"overlaps": (changed,)}))
    assert dict(figure.data["fields"])["under permuted labels"][0][1] == "0.0200"
    assert dict(figure.data["fields"])["p under permuted labels"][0][1] == "0.30"
    assert "compares with lists of permuted labels" in figure.caption


def test_self_pairs_are_not_drawn(content):
    drawn = {figure.name: figure for figure in page_figures(content)}
    values = drawn["overlap-subfunctions"].data["fields"][0][1]
    assert {values[i][i] for i in range(20)} == {"–"}
    assert "–" not in {values[0][i] for i in range(1, 20)}
