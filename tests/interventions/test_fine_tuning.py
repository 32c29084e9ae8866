"""Fine-tuning: what is trained and nothing else, by which experts, the same bits for a seed, the best checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modularity.data import example_batch
from modularity.errors import InputError, NumericError
from modularity.interventions import (
    FineTuning,
    LabelTask,
    fine_tuned,
    fine_tuning,
    label_logits,
    label_task,
    measure_task,
    restricted_routing,
    routers,
    trainable_parameters,
)
from modularity.interventions.forward import Forward
from modularity.models import HeadModel

STACKS = {"switch": "encoder", "olmoe": "decoder", "mixtral": "decoder"}
QUICK = FineTuning(n_epochs=3, learning_rate=0.01, batch_size=8, evaluate_every=2)


@pytest.fixture
def task(word_tokenizer, function_of):
    """`task(seed, n)`: texts with w3 are answered by w21, those with w4 by w20."""

    def build(seed: int = 0, n: int = 24) -> LabelTask:
        generator = np.random.default_rng(seed)
        texts = []
        for number in range(n):
            words = [f"w{word}" for word in generator.integers(5, 20, size=int(generator.integers(3, 7)))]
            texts.append(" ".join([*words, f"w{4 - number % 2}"]))
        return label_task(function_of(texts, [np.arange(n) % 2]), word_tokenizer, ("w20", "w21"))

    return build


def weights(model: HeadModel) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in model.base.module.named_parameters()}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("switch", {}, [f"encoder.block.1.layer.1.mlp.experts.expert_{e}.wo.weight" for e in range(5)]
         + ["encoder.block.1.layer.1.mlp.router.classifier.weight"]),
        ("olmoe", {}, ["layers.1.mlp.gate.weight", "layers.1.mlp.experts.down_proj"]),
        ("mixtral", {}, ["layers.1.mlp.gate.weight", "layers.1.mlp.experts.down_proj"]),
        ("t5", {}, ["encoder.block.1.layer.1.DenseReluDense.wo.weight"]),
    ],
)  # fmt: skip
def test_exactly_output_matrices_and_routers_are_trained(tiny, name, changes, expected) -> None:
    model = tiny(name, **changes)
    found = trainable_parameters(model.base, STACKS.get(name, "encoder"), first_layer=1)
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", ["switch", "olmoe"])
def test_only_these_change_and_all_come_back(tiny, task, name) -> None:
    model = tiny(name)
    parameters = trainable_parameters(model.base, STACKS[name], first_layer=1)
    before = weights(model)
    with fine_tuned(model, task(), task(1), parameters, QUICK) as found:
        inside = weights(model)
        changed = {each for each in before if not torch.equal(before[each], inside[each])}
        assert not model.module.training
    after = weights(model)
    assert changed == set(parameters)
    assert all(torch.equal(before[each], after[each]) for each in before)
    assert not any(each.requires_grad for each in model.module.parameters())
    assert [each.step for each in found.checkpoints] == [0, 2, 4, 6, 8, 9]
    assert len(found.checkpoints) == QUICK.n_evaluations(24)


def test_a_seed_gives_the_same_bits_and_another_does_not(tiny, task) -> None:
    model = tiny("switch")
    parameters = trainable_parameters(model.base, "encoder", first_layer=1)
    found = []
    for seed in (0, 0, 1):
        torch.rand(3)  # the state of the caller's generator does not matter
        with fine_tuned(model, task(), task(1), parameters, replace(QUICK, seed=seed)):
            found.append(label_logits(model, task(2)))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_one_step_is_adam_on_the_cross_entropy_of_the_label_words(tiny, task) -> None:
    model, one = tiny("switch"), task(0, 6)
    (router,) = (each for each in routers(model.base) if each.stack == "encoder")
    parameters = trainable_parameters(model.base, "encoder", first_layer=1)
    name = f"{router.path}.classifier.weight"
    before = parameters[name].detach().clone()
    settings = FineTuning(n_epochs=1, learning_rate=0.001, batch_size=6, evaluate_every=1, dropout=False)
    with fine_tuned(model, one, one, parameters, settings) as found:
        step = parameters[name].detach() - before
    logits_EC = label_logits(model, one)
    probability_E = np.exp(logits_EC - np.logaddexp(*logits_EC.T)[:, None])[np.arange(6), one.gold_E]
    assert found.checkpoints[1].loss == pytest.approx(float(-np.log(probability_E).mean()), rel=1e-5)
    # The first step of Adam has the size of the rate wherever the gradient is not zero.
    size = step.abs().numpy().ravel()
    assert size.max() == pytest.approx(0.001, rel=1e-3)
    assert (size > 0.00099).mean() > 0.9


def test_the_loss_can_be_over_the_whole_vocabulary(tiny, task) -> None:
    model, one = tiny("switch"), task(0, 6)
    parameters = trainable_parameters(model.base, "encoder", first_layer=1)
    settings = FineTuning(n_epochs=1, batch_size=6, evaluate_every=1, dropout=False, loss="vocabulary")
    with fine_tuned(model, one, one, parameters, settings) as found:
        pass
    losses = []
    for row in range(6):
        batch = example_batch(one.tokens, np.array([row]), pad_id=model.base.pad_id)
        logits_V = Forward(model.module, model.base)(batch).logits[0, 0].double()
        losses.append(float(torch.logsumexp(logits_V, 0) - logits_V[one.word_ids_C[one.gold_E[row]]]))
    assert found.checkpoints[1].loss == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize(("evaluates_first", "steps"), [(False, [4, 8, 9]), (True, [1, 5, 9])])
def test_checkpoints_are_counted_from_the_first_step_or_from_the_start(evaluates_first, steps) -> None:
    settings = FineTuning(n_epochs=3, batch_size=8, evaluate_every=4, evaluates_first=evaluates_first)
    assert [step for step in range(1, 10) if settings.evaluates(step, 9)] == steps
    assert settings.n_evaluations(24) == 1 + len(steps)


def test_restricted_layers_only_choose_allowed_experts_while_training(tiny, task) -> None:
    model = tiny("switch")
    (router,) = (each for each in routers(model.base) if each.stack == "encoder")
    parameters = trainable_parameters(model.base, "encoder", first_layer=1)
    chosen: list[torch.Tensor] = []
    before = weights(model)
    with restricted_routing(model.base, {("encoder", 1): (1, 3)}):
        watch = router.module.register_forward_hook(lambda _, args, output: chosen.append(output[0].sum((0, 1))))
        with fine_tuned(model, task(), task(1), parameters, QUICK):
            inside = weights(model)
        watch.remove()
    used = torch.stack(chosen).sum(0)
    assert used[[0, 2, 4]].tolist() == [0, 0, 0]
    assert (used[[1, 3]] > 0).all()
    for expert in range(5):
        name = f"encoder.block.1.layer.1.mlp.experts.expert_{expert}.wo.weight"
        assert torch.equal(before[name], inside[name]) == (expert not in (1, 3))


def test_training_learns_and_the_best_checkpoint_is_kept(tiny, task) -> None:
    model = tiny("switch")
    parameters = trainable_parameters(model.base, "encoder", first_layer=0)
    settings = FineTuning(n_epochs=20, learning_rate=0.01, batch_size=8, evaluate_every=4)
    with fine_tuned(model, task(0, 48), task(1, 30), parameters, settings) as found:
        again = measure_task(model, task(1, 30))
    assert found.checkpoints[-1].loss < 0.5 * found.checkpoints[1].loss
    accuracy = [each.validation.accuracy for each in found.checkpoints[1:]]
    assert found.chosen == found.checkpoints[1 + int(np.argmax(accuracy))]
    assert again == found.chosen.validation
    assert again.accuracy > 0.8


def test_wrong_settings_are_refused(tiny, task) -> None:
    with pytest.raises(InputError, match="n_epochs is 0") as caught:
        FineTuning(n_epochs=0, learning_rate=-1.0)
    assert len(caught.value.problems) == 2
    model = tiny("switch", dtype=torch.bfloat16)
    with pytest.raises(InputError, match=r"first_layer=2: the encoder has layers 0 to 1"):
        trainable_parameters(model.base, "encoder", first_layer=2)
    parameters = trainable_parameters(model.base, "encoder", first_layer=1)
    with (
        pytest.raises(InputError, match=r"some of them bfloat16.*dtype float32"),
        fine_tuned(model, task(), task(1), parameters, QUICK),
    ):
        pass


def test_a_loss_that_is_not_finite_is_an_error_and_the_model_stays_as_it_was(tiny, task, monkeypatch) -> None:
    model = tiny("switch")
    parameters, before = trainable_parameters(model.base, "encoder", first_layer=1), weights(model)
    original, calls = fine_tuning.batch_logits, []

    def overflowing(*arguments):
        calls.append(1)
        return original(*arguments) * (torch.inf if len(calls) == 2 else 1.0)

    monkeypatch.setattr(fine_tuning, "batch_logits", overflowing)
    with (
        pytest.raises(NumericError, match=r"the loss is nan at step 2; take a learning_rate below 0\.01"),
        fine_tuned(model, task(), task(1), parameters, QUICK),
    ):
        pass
    assert all(torch.equal(value, weights(model)[name]) for name, value in before.items())
