"""Experts of dense layers and the scores of their routers, against the array functions."""

import numpy as np
import pytest
import torch

from modularity.errors import InputError
from modularity.experts import expert_centres, mlp_scores, oracle_scores, parameter_scores, select_top
from modularity.interventions import MlpRouter, MoefiedLayer, moefy
from modularity.interventions.moefied_layers import (
    activation_mass,
    ffn_modules,
    make_scorer,
    membership,
    top_experts,
)

LABELS = np.arange(24) % 4
DENSE = ("opt", "gpt2", "gpt_neox", "llama", "gemma2", "bert", "distilbert", "t5", "flan-t5")


def first_stack(model):
    return model.base.sites.stacks[0]


@pytest.mark.parametrize("name", DENSE)
def test_centres_are_those_of_the_input_weights(tiny, name) -> None:
    model = tiny(name)
    stack = first_stack(model)
    layer = moefy(model.base, {(stack, 1): LABELS})[stack, 1]
    expected = expert_centres(model.base.sites.ffn_input_weights(stack, 1), LABELS)
    np.testing.assert_allclose(layer.centres_ED, expected, atol=1e-6)
    assert (layer.n_experts, layer.n_selected(0.2), layer.n_selected(0.26), layer.n_selected(1)) == (4, 1, 2, 4)
    modules = ffn_modules(model.base, (stack, 1))
    assert len(modules.inputs) == (2 if name in ("llama", "gemma2", "flan-t5") else 1)
    assert modules.output.width == 24


def test_scores_and_choices_equal_those_on_arrays() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(9, 6)).astype(np.float32)
    values = rng.normal(size=(9, 24)).astype(np.float32)
    labels = rng.permutation(LABELS).astype(np.int32)
    centres, last = rng.normal(size=(4, 6)).astype(np.float32), rng.normal(size=(4, 4)).astype(np.float32)
    layer = MoefiedLayer("encoder", 0, labels, centres, MlpRouter(centres * 2, last, 1.0, 0.2))
    cpu = torch.device("cpu")
    is_member = membership(layer, cpu)
    for mass in ("absolute", "positive"):
        found = activation_mass(torch.from_numpy(values), is_member, mass).numpy()
        np.testing.assert_allclose(found, oracle_scores(values, labels, mass=mass), rtol=1e-5)
    expected = {
        "oracle": oracle_scores(values, labels),
        "parameter": parameter_scores(inputs, centres),
        "mlp": mlp_scores(inputs, centres * 2, last),
    }
    mass_RE = torch.from_numpy(expected["oracle"].astype(np.float32))
    for router, scores in expected.items():
        found = make_scorer(layer, router, cpu)(torch.from_numpy(inputs), mass_RE)
        for n in (1, 2, 4):
            assert (top_experts(found, n).numpy() == select_top(scores, n)).all()
    random = make_scorer(layer, "random", cpu, seed=1)(torch.from_numpy(inputs), mass_RE)
    again = make_scorer(layer, "random", cpu, seed=1)(torch.from_numpy(inputs[:3] * 7), mass_RE[:3])
    torch.testing.assert_close(random[:3], again)


def test_ties_go_to_the_lowest_index() -> None:
    assert top_experts(torch.zeros(1, 200), 3)[0].nonzero()[:, 0].tolist() == [0, 1, 2]


def test_all_problems_are_listed(tiny) -> None:
    model = tiny("t5").base
    with pytest.raises(InputError) as error:
        moefy(
            model,
            {
                ("encoder", 0): LABELS[:23],
                ("encoder", 1): np.where(LABELS == 1, 5, LABELS),
                ("decoder", 7): LABELS,
                ("decoder", 0): LABELS * 1.0,
            },
        )
    text = str(error.value)
    assert "4 problems" in text
    assert "labels of layer 0 of the encoder have shape (23,) and dtype int64: expected 24 integers" in text
    assert "labels of layer 1 of the encoder hold 4 experts from 0 to 5: expected numbers from 0 without gaps" in text
    assert "expected one or more different numbers from 0 to 1" in text
    assert "labels of layer 0 of the decoder have shape (24,) and dtype float64" in text


def test_layers_that_cannot_be_divided(tiny) -> None:
    with pytest.raises(InputError, match="layer 1 of the encoder has experts of its own; only dense layers"):
        moefy(tiny("switch").base, {("encoder", 1): np.zeros(120, int)})
    with pytest.raises(InputError, match="chunk_size_feed_forward=2: the FFN sees a batch in slices"):
        moefy(tiny("bert", chunk_size_feed_forward=2).base, {("encoder", 1): LABELS})
    with pytest.raises(InputError, match="partition names no layer"):
        moefy(tiny("bert").base, {})


def test_unknown_and_untrained_routers(tiny) -> None:
    layer = moefy(tiny("opt").base, {("decoder", 0): LABELS})["decoder", 0]
    with pytest.raises(InputError, match="layer 0 of the decoder has no trained router: call train_routers"):
        make_scorer(layer, "mlp", torch.device("cpu"))
    with pytest.raises(InputError, match="router 'best': expected one of oracle, parameter, mlp, random"):
        make_scorer(layer, "best", torch.device("cpu"))  # type: ignore[arg-type]
