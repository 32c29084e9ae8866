"""The models: ReLU, no dropout, from a seed; their loss recomputed; balanced routing gives a balance of 1."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modularity.data.language_tokenizer import TOKEN_IDS
from modularity.models import wrap_model
from modularity.pretraining import PretrainConfig, build_module
from modularity.pretraining.corpus import IGNORED, training_corpus
from modularity.pretraining.modules import _imbalance, forward_logits, training_loss

each_architecture = pytest.mark.parametrize("architecture", ["opt", "t5", "switch"])


@each_architecture
def test_a_seed_gives_its_weights_and_leaves_the_generator_alone(
    architecture: str, small: Callable[..., PretrainConfig]
) -> None:
    before = torch.random.get_rng_state()
    one, two, other = (build_module(small(architecture=architecture, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(zip(one.parameters(), two.parameters(), other.parameters()))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)
    assert all(part.p == 0 for part in one.modules() if isinstance(part, nn.Dropout))


@each_architecture
def test_the_site_table_knows_them(architecture: str, small: Callable[..., PretrainConfig]) -> None:
    model = wrap_model(build_module(small(architecture=architecture)), None, name="small")
    assert model.sites.ffn_input_weights(model.sites.stacks[0], 0).shape == (12, 16)


@pytest.mark.parametrize("architecture", ["opt", "t5"])
def test_the_loss_is_that_of_words_plus_that_of_verdicts(
    architecture: str, small: Callable[..., PretrainConfig]
) -> None:
    config = small(architecture=architecture)
    module, batch = build_module(config), training_corpus(config).rows(slice(0, 20))
    inputs, targets = (torch.from_numpy(array).long() for array in (batch.inputs_NT, batch.targets_NU))
    logits = forward_logits(module, inputs, targets)
    chances = F.log_softmax(logits, -1)
    groups: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for row in range(len(batch)):
        for place, token in enumerate(targets[row].tolist()):
            if token != IGNORED:
                groups[token in (TOKEN_IDS["yes"], TOKEN_IDS["no"])].append(-chances[row, place, token])
    expected = sum(torch.stack(group).mean() for group in groups.values())
    torch.testing.assert_close(training_loss(module, batch, torch.device("cpu")), expected)


@each_architecture
def test_padding_does_not_change_the_logits(architecture: str, small: Callable[..., PretrainConfig]) -> None:
    config = small(architecture=architecture)
    module, batch = build_module(config).eval(), training_corpus(config).rows(slice(0, 5))
    inputs, targets = (torch.from_numpy(array).long() for array in (batch.inputs_NT, batch.targets_NU))
    longer = forward_logits(module, F.pad(inputs, (0, 3)), F.pad(targets, (0, 3), value=IGNORED))
    plain, real = forward_logits(module, inputs, targets), targets != IGNORED
    torch.testing.assert_close(longer[:, : plain.shape[1]][real], plain[real], atol=1e-5, rtol=1e-4)


def test_balance_by_hand() -> None:
    real = torch.tensor([[True, True, False]])
    written = torch.zeros(1, 1)
    even = torch.tensor([[[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]]])
    one = torch.tensor([[[90.0, 0.0], [90.0, 0.0], [0.0, 9.0]]])
    assert float(_imbalance([("encoder.router", even)], real, written)) == pytest.approx(1.0)
    assert float(_imbalance([("encoder.router", one)], real, written)) == pytest.approx(2.0)
    assert _imbalance([], real, written) == 0.0


def test_sparse_layers_add_their_balance(small: Callable[..., PretrainConfig]) -> None:
    config = small(architecture="switch")
    module, batch = build_module(config), training_corpus(config).rows(slice(0, 20))
    loss = training_loss(module, batch, torch.device("cpu"))
    loss.backward()
    routers = [p for name, p in module.named_parameters() if "router" in name]
    assert len(routers) == 2
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in routers)
