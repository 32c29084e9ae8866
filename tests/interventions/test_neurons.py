"""Changed neurons, proven by recomputing layers from weights and the changed activations."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from modularity.data import TokenBatch
from modularity.errors import InputError, SiteError
from modularity.interventions import Gaussian, Mean, Noise, Resample, Shuffle, Zero, perturbed
from modularity.interventions.forward import Forward
from modularity.models import HeadModel
from modularity.types import Site

N_NEURONS, N_LAYERS = 24, 2
DENSE = ("opt", "gpt2", "gpt_neox", "llama", "gemma2", "bert", "roberta", "distilbert", "t5", "flan-t5")
SPARSE = ("switch", "olmoe", "mixtral", "qwen3_moe")
OUT_PROJECTION = {
    "opt": "model.decoder.layers.{}.fc2",
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "llama": "model.layers.{}.mlp.down_proj",
    "gemma2": "model.layers.{}.mlp.down_proj",
    "bert": "bert.encoder.layer.{}.output.dense",
    "roberta": "roberta.encoder.layer.{}.output.dense",
    "distilbert": "distilbert.transformer.layer.{}.ffn.lin2",
    "t5": "encoder.block.{}.layer.1.DenseReluDense.wo",
    "flan-t5": "encoder.block.{}.layer.1.DenseReluDense.wo",
}
CHOSEN = np.array([1, 2, 7, 20])


def mask_of(layers: tuple[int, ...] = (0,), width: int = N_NEURONS, chosen: np.ndarray = CHOSEN) -> np.ndarray:
    mask = np.zeros((N_LAYERS, width), dtype=bool)
    mask[np.ix_(layers, chosen)] = True
    return mask


@contextmanager
def recorded(module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """What a module gets, after all changes, and what it returns, in the last call."""
    seen: dict[str, torch.Tensor] = {}

    def note(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.update(input=args[0].clone(), output=output.clone())

    handle = module.register_forward_hook(note)
    yield seen
    handle.remove()


def one_forward(
    model: HeadModel, batch: TokenBatch, module: nn.Module
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(input of `module` by position, its output, logits)."""
    with recorded(module) as seen:
        logits = Forward(model.module, model.base)(batch).logits
    shape = batch.input_ids_BT.shape
    return seen["input"].reshape(*shape, -1), seen["output"].reshape(*shape, -1), logits


def by_hand(model: HeadModel, name: str, layer: int, inputs: torch.Tensor) -> torch.Tensor:
    """Output of the out-projection, from the weights of the state dict."""
    path = OUT_PROJECTION[name].format(layer)
    state = model.module.state_dict()
    weight = state[f"{path}.weight"].T if name == "gpt2" else state[f"{path}.weight"]
    return functional.linear(inputs, weight, state.get(f"{path}.bias"))


def noises(n_rows: int = 9) -> dict[str, Noise]:
    rng = np.random.default_rng(0)
    mean, sd = rng.random((N_LAYERS, N_NEURONS)), rng.random((N_LAYERS, N_NEURONS))
    bank = rng.random((n_rows, N_LAYERS, N_NEURONS))
    return {
        "shuffle": Shuffle(),
        "released": Shuffle(variant="released"),
        "gaussian": Gaussian(mean, sd),
        "zero": Zero(),
        "mean": Mean(mean),
        "resample": Resample(),
        "bank": Resample(bank),
    }


@pytest.mark.parametrize("kind", ["zero", "mean"])
@pytest.mark.parametrize("name", DENSE)
def test_the_layer_computes_its_output_from_the_changed_activations(tiny, batch_of, n_hooks, name, kind) -> None:
    model, batch = tiny(name), batch_of([7, 4, 6])
    module = model.module.get_submodule(OUT_PROJECTION[name].format(0))
    before, _, plain = one_forward(model, batch, module)
    with perturbed(model.base, mask_of(), noises()[kind]):
        inputs, outputs, logits = one_forward(model, batch, module)
    real = torch.from_numpy(batch.attention_mask_BT)
    expected = before.clone()
    new = torch.zeros(N_NEURONS) if kind == "zero" else torch.from_numpy(noises()["mean"].mean_LF[0]).float()
    for neuron in CHOSEN:
        expected[..., neuron][real] = new[neuron]
    torch.testing.assert_close(inputs, expected, rtol=0, atol=0)
    torch.testing.assert_close(outputs, by_hand(model, name, 0, expected), rtol=1e-5, atol=1e-6)
    assert (logits - plain).abs().max() > 1e-3
    assert n_hooks(model) == 0
    torch.testing.assert_close(one_forward(model, batch, module)[2], plain, rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["released", "corrected"])
@pytest.mark.parametrize("name", ["t5", "gpt2", "opt", "llama"])
def test_shuffled_values_are_the_pool_times_four(tiny, batch_of, name, variant) -> None:
    model, batch = tiny(name), batch_of([7, 4, 6])
    module = model.module.get_submodule(OUT_PROJECTION[name].format(1))
    before, _, _ = one_forward(model, batch, module)
    with perturbed(model.base, mask_of((1,)), Shuffle(variant=variant), seed=3):
        inputs, outputs, _ = one_forward(model, batch, module)
    pooled = np.ones_like(batch.attention_mask_BT) if variant == "released" else batch.attention_mask_BT
    old, new = (values[..., CHOSEN][torch.from_numpy(pooled)].flatten() for values in (before, inputs))
    expected = (4 * old).relu() if variant == "released" else 4 * old
    torch.testing.assert_close(new.sort().values, expected.sort().values, rtol=0, atol=0)
    assert (new != expected).float().mean() > 0.5
    others = np.setdiff1d(np.arange(N_NEURONS), CHOSEN)
    assert (inputs[..., others] == before[..., others]).all()
    assert (inputs == before).all(dim=-1)[~torch.from_numpy(pooled)].all()
    torch.testing.assert_close(outputs, by_hand(model, name, 1, inputs), rtol=1e-5, atol=1e-6)


def test_clipping_changes_models_without_relu_and_no_others(tiny, batch_of) -> None:
    batch = batch_of([6, 6])
    for name, is_relu in (("t5", True), ("opt", True), ("gpt2", False), ("llama", False)):
        results = []
        for variant in ("released", "corrected"):
            model = tiny(name)
            with perturbed(model.base, mask_of(), Shuffle(variant=variant)):
                results.append(Forward(model.module, model.base)(batch).logits)
        assert torch.equal(*results) == is_relu


def test_gaussian_values_have_the_given_moments(tiny, batch_of) -> None:
    model, batch = tiny("gpt2"), batch_of([50] * 40)
    noise = noises()["gaussian"]
    module = model.module.get_submodule(OUT_PROJECTION["gpt2"].format(0))
    with perturbed(model.base, mask_of(), noise):
        inputs, _, _ = one_forward(model, batch, module)
    values = inputs[..., CHOSEN].reshape(-1, len(CHOSEN)).numpy()
    assert values.mean(axis=0) == pytest.approx(noise.mean_LF[0, CHOSEN], abs=0.08)
    assert values.std(axis=0) == pytest.approx(noise.sd_LF[0, CHOSEN], rel=0.06)
    assert np.abs(np.corrcoef(values.T) - np.eye(len(CHOSEN))).max() < 0.1


def test_resampling_takes_one_other_example_at_the_same_position_in_all_layers(tiny, batch_of) -> None:
    model, batch = tiny("bert"), batch_of([7, 4, 6, 5])
    donors = []
    for layer in range(N_LAYERS):
        module = model.module.get_submodule(OUT_PROJECTION["bert"].format(layer))
        before, _, _ = one_forward(model, batch, module)
        with perturbed(model.base, mask_of((layer,)), Resample(), seed=2):
            inputs, _, _ = one_forward(model, batch, module)
        lengths = batch.attention_mask_BT.sum(axis=1)
        found = []
        for example, length in enumerate(lengths):
            (donor,) = [
                other
                for other in range(4)
                if all(
                    torch.equal(inputs[example, at, CHOSEN], before[other, at % lengths[other], CHOSEN])
                    for at in range(length)
                )
            ]
            found.append(donor)
        assert sorted(found) == [0, 1, 2, 3]
        assert all(donor != example for example, donor in enumerate(found))
        donors.append(found)
    assert donors[0] == donors[1]


def test_a_bank_gives_whole_rows_the_same_in_all_layers(tiny, batch_of) -> None:
    model, batch = tiny("t5"), batch_of([6, 3])
    bank = noises()["bank"].bank_RLF.astype(np.float32)
    rows = []
    for layer in range(N_LAYERS):
        module = model.module.get_submodule(OUT_PROJECTION["t5"].format(layer))
        with perturbed(model.base, mask_of((0, 1)), Resample(bank)):
            inputs, _, _ = one_forward(model, batch, module)
        values = inputs[torch.from_numpy(batch.attention_mask_BT)][:, CHOSEN].numpy()
        rows.append([np.flatnonzero((bank[:, layer, CHOSEN] == value).all(axis=1)).item() for value in values])
    assert rows[0] == rows[1]
    assert len(set(rows[0])) > 2


@pytest.mark.parametrize("kind", ["gaussian", "zero", "mean", "bank"])
@pytest.mark.parametrize("name", ["t5", "opt", "bert", "llama"])
def test_values_do_not_depend_on_batching(tiny, batch_of, name, kind) -> None:
    model = tiny(name)
    together = batch_of([7, 4, 6])
    with perturbed(model.base, mask_of((0, 1)), noises()[kind], seed=1):
        logits = Forward(model.module, model.base)(together).logits
        for example, length in enumerate([7, 4, 6]):
            alone = Forward(model.module, model.base)(batch_of([length], first=example)).logits[0]
            torch.testing.assert_close(logits[example, : len(alone)], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gaussian", "bank"])
def test_values_do_not_depend_on_the_side_of_padding(tiny, batch_of, kind) -> None:
    model = tiny("t5")
    module = model.module.get_submodule(OUT_PROJECTION["t5"].format(0))
    values = []
    for left in (False, True):
        batch = batch_of([7, 4], left=left)
        with perturbed(model.base, mask_of(), noises()[kind]):
            inputs, _, _ = one_forward(model, batch, module)
        values.append(inputs[torch.from_numpy(batch.attention_mask_BT)][:, CHOSEN])
    torch.testing.assert_close(*values, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["shuffle", "released", "gaussian", "resample", "bank"])
def test_a_seed_gives_the_same_values_whatever_ran_before(tiny, batch_of, kind) -> None:
    model, batch, other = tiny("t5"), batch_of([7, 4, 6]), batch_of([5, 5], seed=9)

    def logits(seed: int, *, first: bool = False) -> torch.Tensor:
        forward = Forward(model.module, model.base)
        with perturbed(model.base, mask_of((0, 1)), noises()[kind], seed=seed):
            if first:
                forward(other)
            return forward(batch).logits

    assert torch.equal(logits(0), logits(0, first=True))
    assert any(not torch.equal(logits(0), logits(seed)) for seed in (1, 2, 3))


def test_layers_and_examples_get_different_draws(tiny, batch_of) -> None:
    model, batch = tiny("t5"), batch_of([6, 6])
    ones = np.ones((N_LAYERS, N_NEURONS))
    drawn = []
    for layer in range(N_LAYERS):
        module = model.module.get_submodule(OUT_PROJECTION["t5"].format(layer))
        with perturbed(model.base, mask_of((0, 1)), Gaussian(0 * ones, ones)):
            drawn.append(one_forward(model, batch, module)[0][..., CHOSEN])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_both_stacks_of_an_encoder_decoder_model(tiny, batch_of) -> None:
    model, batch = tiny("t5"), batch_of([6, 6, 6])
    module = model.module.get_submodule("decoder.block.1.layer.2.DenseReluDense.wo")
    decoder = Site("decoder", "ffn.neurons")
    ones = np.ones((N_LAYERS, N_NEURONS))
    with recorded(module) as seen, perturbed(model.base, {decoder: mask_of((1,))}, Gaussian(0 * ones, ones)):
        Forward(model.module, model.base)(batch)
    values = seen["input"][:, 0, CHOSEN]
    assert len(np.unique(values.numpy())) == values.numel()  # all examples begin with the same decoder token


def test_the_base_model_can_be_called_too(tiny, batch_of) -> None:
    for name in ("opt", "bert"):
        model, batch = tiny(name), batch_of([6, 4])
        hidden = []
        for noise in (Zero(), Gaussian(*np.ones((2, N_LAYERS, N_NEURONS)))):
            with perturbed(model.base, mask_of(), noise):
                hidden.append(Forward(model.base.module, model.base)(batch).last_hidden_state)
        assert not torch.allclose(*hidden)


def chosen_experts(model: HeadModel, stack: str, layer: int, batch: TokenBatch) -> dict[str, torch.Tensor]:
    """What enters and leaves the experts, and the router's weights, from hooks of the test's own."""
    (tap,) = model.base.sites.taps(Site(stack, "ffn.neurons"), [layer])
    seen: dict[str, torch.Tensor] = {}

    def note(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.update(hidden=args[0].clone(), first=args[1].clone(), second=args[2].clone(), output=output.clone())

    handle = tap.module.register_forward_hook(note)
    Forward(model.module, model.base)(batch)
    handle.remove()
    return seen


def experts_by_hand(
    model: HeadModel, seen: dict[str, torch.Tensor], stack: str, layer: int, zero: np.ndarray
) -> torch.Tensor:
    """Output of the experts with the neurons `zero` (expert-major) silenced, token by token from the weights."""
    (tap,) = model.base.sites.taps(Site(stack, "ffn.neurons"), [layer])
    module = tap.module
    keep = torch.ones(tap.width)
    keep[zero] = 0
    output = torch.zeros_like(seen["hidden"])
    for token, hidden in enumerate(seen["hidden"]):
        if stack == "encoder":
            routed = [(int(e), seen["second"][token, 0]) for e in seen["first"][token, 0].nonzero().flatten()]
        else:
            routed = list(zip(seen["first"][token].tolist(), seen["second"][token]))
        for expert, weight in routed:
            here = keep.view(-1, N_NEURONS)[expert]
            if stack == "encoder":
                one = module[f"expert_{expert}"]
                written = one.wo.weight @ (here * (one.wi.weight @ hidden).relu())
            else:
                gate, up = (module.gate_up_proj[expert] @ hidden).chunk(2)
                written = module.down_proj[expert] @ (here * functional.silu(gate) * up)
            output[token] += weight * written
    return output


@pytest.mark.parametrize("name", SPARSE)
def test_silenced_neurons_of_experts_are_missing_in_the_output(tiny, batch_of, n_hooks, name) -> None:
    model, batch = tiny(name), batch_of([7, 4, 6])
    stack = model.base.sites.stacks[0]
    layer = model.base.sites.sparse_layers(stack)[0]
    width = max(model.base.sites.shape(Site(stack, "ffn.neurons")).widths)
    chosen = np.concatenate([np.arange(0, 20), np.arange(50, 90)])
    plain = chosen_experts(model, stack, layer, batch)
    torch.testing.assert_close(plain["output"], experts_by_hand(model, plain, stack, layer, np.array([], int)))
    with perturbed(model.base, mask_of((layer,), width, chosen), Zero()):
        changed = chosen_experts(model, stack, layer, batch)
    real = torch.from_numpy(batch.attention_mask_BT.reshape(-1))
    expected = experts_by_hand(model, plain, stack, layer, chosen)
    torch.testing.assert_close(changed["output"][real], expected[real], rtol=1e-4, atol=1e-5)
    assert (changed["output"][real] - plain["output"][real]).abs().max() > 1e-3
    assert torch.equal(changed["output"][~real], plain["output"][~real])
    assert n_hooks(model) == 0


@pytest.mark.parametrize("name", SPARSE)
def test_noise_on_expert_neurons_does_not_depend_on_batching(tiny, batch_of, name) -> None:
    model = tiny(name)
    shape = model.base.sites.shape(Site(model.base.sites.stacks[0], "ffn.neurons"))
    width = max(shape.widths)
    layer = shape.widths.index(width)
    ones = np.ones((N_LAYERS, width))
    with perturbed(model.base, mask_of((layer,), width, np.arange(10, 100)), Gaussian(0 * ones, ones)):
        logits = Forward(model.module, model.base)(batch_of([7, 4])).logits
        alone = Forward(model.module, model.base)(batch_of([4], first=1)).logits[0]
    torch.testing.assert_close(logits[1, : len(alone)], alone, rtol=1e-4, atol=1e-4)


def test_shuffled_expert_neurons_need_no_whole_batch_and_resampled_ones_do(tiny, batch_of) -> None:
    model, batch = tiny("mixtral"), batch_of([6, 6])
    mask = mask_of((0,), 5 * N_NEURONS, np.arange(0, 120, 3))
    plain = Forward(model.module, model.base)(batch).logits
    with perturbed(model.base, mask, Shuffle()):
        assert not torch.equal(Forward(model.module, model.base)(batch).logits, plain)
    with pytest.raises(InputError, match="give a bank"), perturbed(model.base, mask, Resample()):
        Forward(model.module, model.base)(batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["t5", "llama", "mixtral"])
def test_values_keep_the_dtype_of_the_model(tiny, batch_of, name, dtype) -> None:
    model = tiny(name, dtype=dtype)
    width = max(model.base.sites.shape(Site(model.base.sites.stacks[0], "ffn.neurons")).widths)
    with perturbed(model.base, mask_of(width=width), Shuffle()):
        assert Forward(model.module, model.base)(batch_of([5, 5])).logits.dtype == dtype


def test_hooks_go_after_an_error(tiny, n_hooks) -> None:
    model = tiny("t5")
    with pytest.raises(RuntimeError, match="stop"), perturbed(model.base, mask_of(), Zero()):
        raise RuntimeError("stop")
    assert n_hooks(model) == 0


@pytest.mark.parametrize(
    ("masks", "noise", "message"),
    [
        (np.zeros((2, 23), bool), Zero(), r"shape \(2, 23\).*expected bool of shape \(2, 24\)"),
        (np.zeros((2, 24)), Zero(), "dtype float64"),
        ({Site("encoder", "residual"): np.zeros((2, 24), bool)}, Zero(), "expected ffn.neurons"),
        (np.zeros((2, 24), bool), Mean(np.zeros((1, 24))), r"mean_LF has shape \(1, 24\)"),
        (np.zeros((2, 24), bool), Gaussian(np.zeros((2, 24)), np.zeros(24)), r"sd_LF has shape \(24,\)"),
        (np.zeros((2, 24), bool), Resample(np.zeros((0, 2, 24))), r"bank_RLF has shape \(0, 2, 24\)"),
    ],
)
def test_masks_and_noise_that_do_not_fit_are_refused(tiny, masks, noise, message) -> None:
    with pytest.raises(InputError, match=message), perturbed(tiny("t5").base, masks, noise):
        pass


def test_neurons_that_a_narrower_layer_lacks_are_refused(tiny) -> None:
    model = tiny("switch")
    mask = np.zeros((N_LAYERS, 5 * N_NEURONS), dtype=bool)
    mask[0, N_NEURONS] = True  # layer 0 is dense
    with pytest.raises(InputError, match=r"layers \[0\] do not have"), perturbed(model.base, mask, Zero()):
        pass


def test_calls_without_token_ids_are_refused(tiny) -> None:
    model = tiny("llama")
    embedded = torch.zeros((1, 3, 32))
    with pytest.raises(InputError, match="runs without input_ids"), perturbed(model.base, mask_of(), Zero()):
        model.module(inputs_embeds=embedded)


def test_a_batch_of_one_cannot_be_resampled_from_itself(tiny, batch_of) -> None:
    model = tiny("t5")
    with pytest.raises(InputError, match="a batch of 1 examples"), perturbed(model.base, mask_of(), Resample()):
        Forward(model.module, model.base)(batch_of([4]))


def test_a_sliced_ffn_is_refused(tiny) -> None:
    model = tiny("bert", chunk_size_feed_forward=2)
    with pytest.raises(InputError, match="chunk_size_feed_forward=2"), perturbed(model.base, mask_of(), Zero()):
        pass


def test_a_layer_that_did_not_run_is_an_error(tiny, batch_of) -> None:
    model = tiny("llama")
    layers = model.base.module.layers
    mask = mask_of((1,))
    with pytest.raises(SiteError, match=r"layer 1: module .* did not run"), perturbed(model.base, mask, Zero()):
        model.base.module.layers = layers[:1]
        Forward(model.module, model.base)(batch_of([4]))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["gaussian", "zero", "mean", "bank", "resample"])
@pytest.mark.parametrize("name", ["t5", "llama"])
def test_values_do_not_depend_on_the_device(tiny, batch_of, name, kind) -> None:
    logits = []
    for device in ("cpu", "cuda"):
        model = tiny(name)
        model.module.to(device)
        with perturbed(model.base, mask_of((0, 1)), noises()[kind]):
            logits.append(Forward(model.module, model.base)(batch_of([7, 4])).logits.cpu())
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)
