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


def test_intervals_of_means_say_what_they_assume(content):
    said = "take the sampling errors of the sub-functions for independent"
    assert said in captions.curve_caption(content.curves, "normalised AP")
    alone = [replace(content.curves[0], n_subfunctions=1)]
    assert said not in captions.curve_caption(alone, "normalised AP")
    low = content.heatmaps[0].value_YL - 0.1
    means = replace(content.heatmaps[0], low_YL=low, high_YL=low + 0.2)
    assert said in captions.heatmap_caption(means, "normalised AP")
    assert said not in captions.heatmap_caption(content.heatmaps[1], "normalised AP")


def test_heat_maps_say_on_which_examples_they_are_tested(content):
    text = captions.heatmap_caption(content.heatmaps[1], "normalised AP")
    assert "A dot marks cells in which that neuron on selection examples, where it was chosen, exceeds" in text
    assert "On held-out examples chance is zero" in text
    paper = captions.heatmap_caption(content.heatmaps[1], "normalised AP", "the examples they were chosen on")
    assert "that neuron there exceeds the best neuron under permuted labels (q ≤ 0.05)" in paper
    assert "held-out" not in paper


def test_whole_functions_state_their_lists_and_tests(content):
    text = captions.function_expert_caption(content.function_expert_curves)
    assert "(semantic 8 × 30, knowledge 6 × 30, task 6 × 30 entries in each layer)" in text
    assert "(binomial test, α = 0.001)" in text
    each = "p = 0.005 (random partitions p < 0.001)"
    assert f"against permuted labels, not corrected over functions: semantic {each}; knowledge {each};" in text


def test_a_fraction_of_less_than_one_neuron_is_told(content):
    curve = replace(content.sensitivity[0], k_Q=[1, 1, 2, 5], asked_Q=[0.5, 1.0, 2.0, 5.0])
    assert "raised to one neuron" in captions.sensitivity_caption([curve])
    assert "raised" not in captions.sensitivity_caption(content.sensitivity)


def test_overlap_states_k_n_and_chance(content):
    whole, sub = content.overlaps
    start = "Share of top neurons in common: top 32 of 3,072 neurons, averaged over 12 layers. Chance, 0.0104, is "
    assert captions.overlap_caption(sub) == (
        f"{start}the triangle on the scale. Self-pairs are left out. A dot marks pairs with q ≤ 0.05."
    )
    assert "dot" not in captions.overlap_caption(replace(sub, p_value_SS=None))
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
    assert "α = 0.001; 14 of 28 cells)" in text
    assert "f 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more; g none." in text


def test_heat_map_and_sensitivity(content):
    assert "mean best value under permuted labels, 0.16" in captions.heatmap_caption(
        content.heatmaps[1], "normalised AP"
    )
    assert "triangle" not in captions.heatmap_caption(replace(content.heatmaps[0], chance=None), "AUROC")
    assert "over 12 layers" in captions.sensitivity_caption(content.sensitivity)
