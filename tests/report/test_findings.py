from dataclasses import replace

import numpy as np
import pytest

from modularity.report import ExpertTest, FunctionCurve, headline_findings
from modularity.report.findings import best_layer, holm, within_between


def one_curve(**changes):
    fields = {
        "function": "task", "layers": (4, 5), "best_L": [0.5, 0.62], "low_L": [0.4, 0.55], "high_L": [0.6, 0.69],
        "null_L": [0.1, 0.11], "null_high_L": [0.14, 0.15], "n_subfunctions": 6, "n_neurons": 9216, "p_value": 0.005,
    }  # fmt: skip
    return FunctionCurve(**(fields | changes))


def sentence(build_content, curve):
    return headline_findings(build_content(curves=(curve,)))[0]


def test_a_function_beyond_chance(build_content):
    found = sentence(build_content, one_curve())
    assert found.strength == "supported"
    assert found.text == (
        "task: the best neurons of the best layer (layer 5), one for each of 6 sub-functions, separate their labels "
        "with mean normalised AP 0.62 [0.55, 0.69] on held-out examples; chance for the best of 9,216 neurons is 0.11 "
        "(p = 0.005)."
    )


def test_the_null_case_does_not_claim_anything(build_content):
    found = sentence(build_content, one_curve(best_L=[0.08, 0.09], low_L=[0, 0.02], high_L=[0.2, 0.15], p_value=0.41))
    assert found.strength == "unsupported"
    assert found.text == (
        "task: chance is not excluded; the best neurons of the best layer (layer 5), one for each of 6 sub-functions, "
        "reach mean normalised AP 0.09 [0.02, 0.15] on held-out examples; chance for the best of 9,216 neurons is 0.11 "
        "(p = 0.41)."
    )


def test_without_a_p_value_nothing_was_tested(build_content):
    found = sentence(build_content, one_curve(p_value=None, null_L=[np.nan, np.nan]))
    assert found.strength == "descriptive"
    assert found.text.endswith("on held-out examples; no chance level was computed; no test was run.")


def test_a_single_layer_and_a_single_subfunction_are_named_so(build_content):
    curve = one_curve(
        layers=(3,), best_L=[0.6], low_L=[np.nan], high_L=[0.7], null_L=[0.1], null_high_L=[0.2], n_subfunctions=1
    )
    text = sentence(build_content, curve).text
    assert text.startswith(
        "task: the best neuron of the only layer captured (layer 3) separates the labels of its sub-function with"
    )
    assert "normalised AP 0.60 on held-out examples" in text


def test_the_best_layer_is_chosen_on_selection_examples(build_content):
    curve = one_curve(selection_L=[0.7, 0.66])
    assert best_layer(curve) == 0
    assert "where the neurons were chosen they reach 0.70, and chance" in sentence(build_content, curve).text


def test_missing_values_are_passed_over(build_content):
    assert best_layer(one_curve(best_L=[0.5, np.nan])) == 0
    found = sentence(build_content, one_curve(best_L=[np.nan, np.nan]))
    assert found.text == "task: no normalised AP could be computed in any layer."


def test_layers_above_random_weights_are_counted_interval_above_interval(build_content):
    curve = one_curve(random_L=[0.2, 0.6], random_low_L=[0.1, 0.5], random_high_L=[0.3, 0.7])
    found = headline_findings(build_content(curves=(curve,)))
    text = next(each.text for each in found if "random weights" in each.text)
    lead = np.mean(curve.best_L - curve.random_L)
    n_above = int((curve.low_L > curve.random_high_L).sum())
    assert n_above == 1
    assert f"in 1 of 2 layers and below it in 0; mean difference {lead:.2f}." in text
    alone = headline_findings(build_content(curves=(one_curve(),)))
    assert not any("random weights" in each.text for each in alone)


def test_correction_over_functions_can_withdraw_a_claim(build_content):
    curves = tuple(one_curve(function=name, p_value=p) for name, p in (("a", 0.01), ("b", 0.03), ("c", 0.04)))
    found = headline_findings(build_content(curves=curves))[:3]
    assert [each.strength for each in found] == ["supported", "unsupported", "unsupported"]
    assert "(p = 0.01, corrected 0.03)" in found[0].text


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([float("nan")]) == [None]


def test_overlap_within_and_between_leave_out_self_pairs(content):
    matrix = replace(
        content.overlaps[1], names=("a", "b", "c"), groups=("f", "f", "g"), p_value_SS=None,
        value_SS=[[1, 0.4, 0.1], [0.4, 1, 0.3], [0.1, 0.3, 1]],
    )  # fmt: skip
    assert within_between(matrix) == pytest.approx((0.4, 0.2))


@pytest.mark.parametrize(("p", "words"), [(0.005, "use more of the same"), (0.3, "do not share clearly more")])
def test_overlap_sentence_follows_its_p_value(content, p, words):
    matrices = (content.overlaps[0], replace(content.overlaps[1], block_p_value=p))
    texts = [each.text for each in headline_findings(replace(content, overlaps=matrices)) if each.section == "overlap"]
    assert len(texts) == 1
    assert words in texts[0]


@pytest.mark.parametrize(
    ("p", "strength", "words"),
    [
        (0.005, "supported", "experts carry the function, more than they carry permuted labels"),
        (0.5, "unsupported", "it was not shown that experts carry the function"),
        (float("nan"), "descriptive", "no p-value was computed"),
    ],
)
def test_expert_sentence_follows_the_p_value_under_permuted_labels(content, p, strength, words):
    test = ExpertTest(5, 1536, 0.31, p, 0.02, 0.001)
    curve = replace(content.expert_curves[0], test=test)
    found = [each for each in headline_findings(replace(content, expert_curves=(curve,))) if each.section == "experts"]
    assert [each.strength for each in found] == [strength]
    p_words = {"supported": "p = 0.005", "unsupported": "p = 0.50", "descriptive": "no p-value"}[strength]
    assert found[0].text == (
        f"semantic: {words}; functional experts: 5 of 1,536 cells (8 sub-functions × 12 layers × 16 experts); under "
        f"permuted labels 0.31 on average, {p_words}. The same lists of top neurons in random partitions: 0.020 on "
        "average, p = 0.001; 1 under random partition and 3 under shuffled weights."
    )


def test_expert_sentences_are_corrected_over_functions_and_untested_ones_say_so(content):
    tests = [ExpertTest(5, 1536, 0.31, p, 0.02, 0.001) for p in (0.02, 0.03)]
    curves = [replace(curve, test=test) for curve, test in zip(content.expert_curves, [*tests, None])]
    found = headline_findings(replace(content, expert_curves=tuple(curves)))
    found = [each for each in found if each.section == "experts"]
    assert [each.strength for each in found] == ["supported", "supported", "descriptive"]
    assert "on average, p = 0.02, corrected 0.04. The same" in found[0].text
    assert "on average, p = 0.03, corrected 0.04. The same" in found[1].text
    assert found[2].text == "task: functional experts were not tested over all layers."


def test_sensitivity_names_the_functions_that_do_not_hold(content):
    weak = replace(content.sensitivity[0], degree_Q=[0.0, 1.0, 1.0, 1.0])
    texts = [f.text for f in headline_findings(replace(content, sensitivity=(weak, *content.sensitivity[1:])))]
    assert texts[-1] == (
        "Sensitivity: the modularisation degree stays above that of a random partition at every top fraction from "
        "0.5 % to 5.0 % for knowledge and task, but not for semantic."
    )
    only_weak = headline_findings(replace(content, sensitivity=(weak,)))[-1].text
    assert only_weak.startswith("Sensitivity: the modularisation degree does not stay above")


def test_no_parts_no_sentences(build_content):
    empty = build_content(curves=(), overlaps=(), expert_curves=(), sensitivity=())
    functions = tuple(replace(each, n_significant=None) for each in empty.functions)
    assert headline_findings(replace(empty, functions=functions)) == ()


def test_nothing_is_called_held_out_that_was_not(content):
    texts = [each.text for each in headline_findings(replace(content, held_out=False))]
    assert "on the examples they were chosen on; chance for the best of" in texts[0]
    assert not any("held-out" in text for text in texts)
