from dataclasses import replace

from modularity.report import ExampleValue, Limits
from modularity.report.limits import apply_limits


def test_nothing_is_cut_or_said_within_the_limits(content):
    shown, cuts = apply_limits(content, Limits())
    assert cuts == {}
    assert shown.neurons == content.neurons


def test_every_cut_is_put_into_words(content):
    long = ExampleValue("x" * 500, 1.0, True, target=(490, 495))
    neurons = (replace(content.neurons[0], highest=(long,) * 9), *content.neurons[1:])
    config = replace(content.provenance, config="y" * 300)
    limits = Limits(neurons=5, examples=3, text=50, expert_cells=700, config=100)
    shown, cuts = apply_limits(replace(content, neurons=neurons, provenance=config), limits)
    assert len(shown.neurons) == 5
    assert len(shown.neurons[0].highest) == 3
    assert shown.neurons[0].highest[0].text == "x" * 49 + "…"
    assert shown.neurons[0].highest[0].target is None
    assert cuts["neurons"] == (
        "To keep the page small, the first 5 of 40 neurons are shown; at most 3 examples at each end; texts are cut to "
        "50 characters (…). The run’s tables hold all."
    )
    assert cuts["provenance"].startswith("The config is cut to its first 100 of 300 characters")
    assert [each.layer for each in shown.expert_maps] == sorted(each.layer for each in shown.expert_maps)
    assert len(shown.expert_maps) == 2
    assert cuts["experts"].startswith("Maps are shown for 2 of 12 layers, those with most functional experts")


def test_one_map_is_kept_however_small_the_limit(content):
    shown, _ = apply_limits(content, Limits(expert_cells=1))
    most = max(content.expert_maps, key=lambda each: each.functional_SE.sum())
    assert [each.layer for each in shown.expert_maps] == [most.layer]
