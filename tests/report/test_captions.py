from dataclasses import replace

from modularity.report import captions


def test_curves_state_what_the_null_is_compared_with(content):
    text = captions.curve_caption(content.curves, "normalised AP")
    assert "is to be compared with the open circles" in text
    assert text.endswith(
        "Means over sub-functions (n: semantic 8, knowledge 6, task 6); each best is the best of 3,072 neurons."
    )
    without = [replace(curve, selection_L=None, n_neurons=100 * i) for i, curve in enumerate(content.curves, 1)]
    text = captions.curve_caption(without, "normalised AP")
    assert "open circles" not in text
    assert text.endswith("the best of 100 to 300 neurons.")


def test_overlap_states_k_n_and_chance(content):
    whole, sub = content.overlaps
    start = "Share of top neurons in common: top 32 of 3,072 neurons, averaged over 12 layers. Chance, 0.0104, is "
    assert captions.overlap_caption(sub) == start + "the triangle on the scale. Self-pairs are left out."
    assert "different sub-functions of one function" in captions.overlap_caption(replace(whole, n_layers=1))


def test_experts_state_the_test_and_name_who_serves(content):
    assert "top 30 neurons than chance allows (exact test, α = 0.001)" in captions.expert_caption(content.expert_curves)
    alone = replace(content.expert_curves[0], controls=())
    assert "Controls" not in captions.expert_caption([alone])
    each = replace(
        content.expert_maps[0], row_names=("a", "b"), row_groups=("f", "g"), count_SE=[[9] * 14, [0] * 14],
        expected_SE=[1] * 14, functional_SE=[[1] * 14, [0] * 14], p_value_SE=None,
    )  # fmt: skip
    text = captions.expert_map_caption(each)
    assert "50.0 % of all cells" in text
    assert "f 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more; g none." in text


def test_heat_map_and_sensitivity(content):
    assert "mean best value under permuted labels, 0.16" in captions.heatmap_caption(
        content.heatmaps[1], "normalised AP"
    )
    assert "triangle" not in captions.heatmap_caption(replace(content.heatmaps[0], chance=None), "AUROC")
    assert "over 12 layers" in captions.sensitivity_caption(content.sensitivity)
