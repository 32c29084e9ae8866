"""Reductions on live models equal NumPy's accumulators over the stored rows of all tokens, for any split."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from modularity.capture import Capturer, Reduced, Reducer, ReductionConfig
from modularity.capture.reduction_config import REDUCTION_NAMES
from modularity.data import TokenBatch
from modularity.errors import AllowanceError, DataError, InputError, NumericError
from modularity.models import LoadedModel
from modularity.stats import (
    Accumulator,
    CoActivation,
    FiringRate,
    Histogram,
    LabelSums,
    Moments,
    TopExamples,
    merge_in_order,
)
from modularity.types import Site

LENGTHS = (9, 3, 12, 1, 8, 17)
LABELS = np.array([[1, 0, 1, 0, -1, 1], [0, 0, 1, -1, 1, 1]])
ALL = ReductionConfig(kinds=REDUCTION_NAMES, n_top=4, n_bins=5, smallest=0.01, largest=1.0)


def every_token(model: LoadedModel, site: Site, batch: TokenBatch, layers: Sequence[int] | None = None) -> np.ndarray:
    """Rows of all real tokens, example by example: (tokens, layers, units)."""
    capturer = Capturer(model, [site], layers=layers)
    shape = capturer.shapes[site]
    out = {site: np.zeros((batch.n_tokens, len(shape.layers), *shape.unit_shape), np.float32)}
    capturer.capture([batch], out, reduction=None)
    return out[site].reshape(batch.n_tokens, len(shape.layers), -1)


def expected(values_RF: np.ndarray, lengths: Sequence[int], labels: np.ndarray = LABELS) -> dict[str, Accumulator]:
    """What the accumulators of `ALL` hold after one pass in NumPy over the tokens of all examples."""
    n_neurons = values_RF.shape[1]
    texts = np.split(values_RF, np.cumsum(lengths)[:-1])
    groups, n_groups = [], 0
    for length in lengths:
        groups.append(n_groups + np.arange(length) // 8)
        n_groups = int(groups[-1][-1]) + 1
    found = {
        "moments": Moments.empty(n_neurons),
        "firing_rate": FiringRate.empty(n_neurons),
        "histogram": Histogram.empty(n_neurons, ALL.edges),
        "co_activation": CoActivation.empty(n_neurons, ALL.co_activation),
        "top_examples": TopExamples.empty(n_neurons, ALL.n_top),
        "per_label": LabelSums.empty(len(labels), n_neurons),
    }
    for name in ("moments", "firing_rate", "histogram"):
        found[name].update(values_RF)  # type: ignore[attr-defined]
    found["co_activation"].update(values_RF, np.concatenate(groups))  # type: ignore[attr-defined]
    best, where = np.stack([text.max(0) for text in texts]), np.stack([text.argmax(0) for text in texts])
    found["top_examples"].update(best, np.arange(len(texts)), where)  # type: ignore[attr-defined]
    found["per_label"].update(best, labels)  # type: ignore[attr-defined]
    return found  # type: ignore[return-value]


def assert_same(found: dict[str, Accumulator], wanted: dict[str, Accumulator], *, rtol: float = 1e-9) -> None:
    assert found.keys() == wanted.keys()
    for kind, accumulator in wanted.items():
        assert type(found[kind]) is type(accumulator)
        for name, array in accumulator.arrays().items():
            own = found[kind].arrays()[name]
            assert (own.dtype, own.shape) == (array.dtype, array.shape), (kind, name)
            if array.dtype == np.float64:
                np.testing.assert_allclose(own, array, rtol=rtol, atol=1e-10, err_msg=f"{kind}.{name}")
            else:
                np.testing.assert_array_equal(own, array, err_msg=f"{kind}.{name}")


def reduce(
    model: LoadedModel, site: Site, batches: Sequence[TokenBatch], config: ReductionConfig = ALL, **options: object
) -> Reduced:
    reducer = Reducer(model, [site], config, n_subfunctions=len(LABELS), layers=options.pop("layers", None))  # type: ignore[arg-type]
    labels = LABELS if "per_label" in config.kinds else None
    return reducer.reduce(batches, **{"reduction": "max", "labels_SE": labels} | options)  # type: ignore[arg-type]


def batches_of(whole: TokenBatch, parts: Sequence[Sequence[int]]) -> list[TokenBatch]:
    """Batches of the chosen examples, each cut to its longest."""
    made = []
    for part in parts:
        chosen = list(part)
        mask = whole.attention_mask_BT[chosen]
        width = int(mask.sum(1).max())
        rows = np.asarray(whole.row_ids)[chosen]
        made.append(
            TokenBatch(
                whole.input_ids_BT[chosen, :width],
                mask[:, :width],
                None,
                mask[:, :width],
                rows,
                None,
                int(mask.sum()),
                not mask[:, :width].all(),
            )
        )
    return made


@pytest.mark.parametrize("architecture", ["opt", "bert", "gpt2", "llama", "t5"])
@pytest.mark.parametrize("rule", ["positive", "groups"])
def test_all_kinds_equal_numpy_over_all_tokens(
    tiny: Callable[..., LoadedModel], batch_of: Callable[..., TokenBatch], neurons, architecture: str, rule: str
) -> None:
    model, config = tiny(architecture), ALL.replace(co_activation=rule)
    site = neurons(model)
    found = reduce(model, site, [batch_of(LENGTHS)], config)
    values_RLF = every_token(model, site, batch_of(LENGTHS, pooled=False))
    for layer in range(3):
        wanted = expected(values_RLF[:, layer], LENGTHS)
        if rule == "groups":
            groups = CoActivation.empty(48, "groups")
            groups.update(
                values_RLF[:, layer], np.concatenate([np.arange(n) // 8 + 10 * i for i, n in enumerate(LENGTHS)])
            )
            wanted["co_activation"] = groups
        assert_same(found.of(site, layer), wanted)
    assert found.stats.n_selected == found.stats.n_tokens == sum(LENGTHS)
    assert found.stats.n_examples == len(LENGTHS)


@pytest.mark.parametrize("parts", [[[0, 1, 2], [3, 4, 5]], [[5], [2, 0], [1, 3, 4]], [[i] for i in range(6)]])
def test_any_split_over_batches_and_reducers_equals_one_pass(
    tiny: Callable[..., LoadedModel], batch_of: Callable[..., TokenBatch], neurons, parts: list[list[int]]
) -> None:
    # In float64 values do not depend on the batch beyond what the tolerance admits.
    model = tiny("bert", dtype=torch.float64)
    site, whole = neurons(model), batch_of(LENGTHS)
    one = reduce(model, site, [whole])
    pieces = batches_of(whole, parts)
    several = reduce(model, site, pieces)
    workers = [reduce(model, site, [piece]) for piece in pieces]
    for layer in range(3):
        wanted = one.of(site, layer)
        assert_same(several.of(site, layer), wanted)
        merged = {kind: merge_in_order(worker.of(site, layer)[kind] for worker in workers) for kind in wanted}
        assert_same(merged, wanted)


def test_the_pool_mask_chooses_the_tokens(
    tiny: Callable[..., LoadedModel], batch_of: Callable[..., TokenBatch], neurons
) -> None:
    model, batch = tiny("bert"), batch_of([6, 4])
    inner = batch.attention_mask_BT.copy()
    inner[:, 0] = False
    masked = TokenBatch(batch.input_ids_BT, batch.attention_mask_BT, None, inner, batch.rows_B, None, 10, True)
    config = ReductionConfig(kinds=("moments", "top_examples"), n_top=2)
    found = reduce(model, neurons(model), [masked], config)
    values_RF = every_token(model, neurons(model), batch_of([6, 4], pooled=False))[:, 1]
    texts = [values_RF[1:6], values_RF[7:10]]
    moments = found.of(neurons(model), 1)["moments"]
    assert isinstance(moments, Moments)
    np.testing.assert_allclose(moments.mean, np.concatenate(texts).astype(np.float64).mean(0), rtol=1e-12)
    assert found.stats.n_selected == 8
    top = found.of(neurons(model), 1)["top_examples"]
    assert isinstance(top, TopExamples)
    first = top.example[:, 0]
    best = np.stack([text.max(0) for text in texts])
    np.testing.assert_array_equal(top.value[:, 0], best.max(0))
    np.testing.assert_array_equal(first, best.argmax(0))
    where = np.stack([text.argmax(0) + 1 for text in texts])
    np.testing.assert_array_equal(top.position[:, 0], where[first, np.arange(48)])


def test_gathered_positions_are_the_tokens_and_their_mean_is_the_row_of_an_example(
    tiny: Callable[..., LoadedModel], batch_of: Callable[..., TokenBatch], neurons
) -> None:
    model, batch = tiny("gpt2"), batch_of(LENGTHS, pooled=False)
    assert batch.gather is not None
    row_example_R = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    config = ReductionConfig(kinds=("moments", "per_label"))
    found = reduce(model, neurons(model), [batch], config, reduction=None, row_example_R=row_example_R)
    values_RF = every_token(model, neurons(model), batch)[:, 2]
    sums = LabelSums.empty(2, 48)
    sums.update(np.stack([text.astype(float).mean(0) for text in np.split(values_RF, np.cumsum(LENGTHS)[:-1])]), LABELS)
    moments = Moments.empty(48)
    moments.update(values_RF)
    assert_same(found.of(neurons(model), 2), {"moments": moments, "per_label": sums})


@pytest.mark.parametrize("architecture", ["mixtral", "switch"])
def test_neurons_of_experts_count_only_the_tokens_of_their_expert(
    tiny: Callable[..., LoadedModel], batch_of: Callable[..., TokenBatch], neurons, architecture: str
) -> None:
    model = tiny(architecture)
    site = neurons(model)
    layer = model.sites.shape(Site(site.stack, "router.choices")).layers[-1]
    kinds = tuple(name for name in REDUCTION_NAMES if name != "co_activation")
    found = reduce(model, site, [batch_of(LENGTHS)], ALL.replace(kinds=kinds), layers=[layer]).of(site, layer)
    batch = batch_of(LENGTHS, pooled=False)
    values_RF = every_token(model, site, batch, [layer])[:, 0]
    choices_RE = every_token(model, Site(site.stack, "router.choices"), batch, [layer])[:, 0] > 0
    width = values_RF.shape[1] // choices_RE.shape[1]
    example_R = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    position_R = np.concatenate([np.arange(length) for length in LENGTHS])
    for expert, chosen_R in enumerate(choices_RE.T):
        own = slice(expert * width, (expert + 1) * width)
        moments, rates = Moments.empty(width), FiringRate.empty(width)
        moments.update(values_RF[chosen_R, own])
        rates.update(values_RF[chosen_R, own])
        for kind, wanted in (("moments", moments), ("firing_rate", rates)):
            for name, array in wanted.arrays().items():
                np.testing.assert_allclose(found[kind].arrays()[name][own], array, rtol=1e-6, atol=1e-9, err_msg=name)
        assert found["histogram"].arrays()["counts"][own].sum() == width * chosen_R.sum()
        top = found["top_examples"]
        assert isinstance(top, TopExamples)
        seen = np.unique(example_R[chosen_R])
        assert (top.example[own] >= 0).sum(1).tolist() == [min(4, len(seen))] * width
        for neuron in range(own.start, own.stop if len(seen) else own.start):
            masked = np.where(chosen_R, values_RF[:, neuron], -np.inf)
            best = int(masked.argmax())
            assert top.value[neuron, 0] == pytest.approx(masked[best])
            assert (top.example[neuron, 0], top.position[neuron, 0]) == (example_R[best], position_R[best])


def test_neurons_may_have_edges_of_their_own(
    tiny: Callable[..., LoadedModel], batch_of: Callable[..., TokenBatch], neurons
) -> None:
    model, batch = tiny("bert"), batch_of(LENGTHS)
    edges = np.linspace(-1, 1, 6)[None, None] * np.arange(1, 49)[None, :, None] + np.zeros((2, 1, 1))
    reducer = Reducer(
        model, [neurons(model)], ReductionConfig(kinds=("histogram",)), layers=[0, 2], edges={neurons(model): edges}
    )
    found = reducer.reduce([batch], reduction="max").of(neurons(model), 2)["histogram"]
    wanted = Histogram.empty(48, edges[1])
    wanted.update(every_token(model, neurons(model), batch_of(LENGTHS, pooled=False))[:, 2])
    np.testing.assert_array_equal(found.arrays()["counts"], wanted.counts)


def test_other_sites_and_half_precision_are_reduced(
    tiny: Callable[..., LoadedModel], batch_of: Callable[..., TokenBatch]
) -> None:
    model, site = tiny("opt", dtype=torch.bfloat16), Site("decoder", "attention.heads")
    kinds = tuple(name for name in REDUCTION_NAMES if name != "per_label")
    found = Reducer(model, [site], ALL.replace(kinds=kinds)).reduce([batch_of(LENGTHS)], reduction="max")
    wanted = expected(every_token(model, site, batch_of(LENGTHS, pooled=False))[:, 1], LENGTHS)
    del wanted["per_label"]
    assert_same(found.of(site, 1), wanted)


def test_what_cannot_be_reduced_is_refused(
    tiny: Callable[..., LoadedModel], batch_of: Callable[..., TokenBatch], neurons
) -> None:
    model = tiny("bert")
    site = neurons(model)
    with pytest.raises(InputError, match=r"kinds=\[\]: expected at least one site"):
        Reducer(model, [site], ReductionConfig())
    with pytest.raises(InputError, match="per_label without sub-functions"):
        Reducer(model, [site], ReductionConfig(kinds=("per_label",)))
    with pytest.raises(AllowanceError, match=r"hold 5,760 bytes \(moments 5,760\), allowed are 5,000"):
        Reducer(model, [site], ReductionConfig(kinds=("moments",)), allowance_bytes=5000)
    with pytest.raises(InputError, match=r"co_activation of decoder/ffn.neurons layer 0: neurons of experts"):
        Reducer(tiny("mixtral"), [Site("decoder", "ffn.neurons")], ReductionConfig(kinds=("co_activation",)))
    labelled = Reducer(model, [site], ReductionConfig(kinds=("per_label",)), n_subfunctions=2)
    with pytest.raises(DataError, match="give both or neither"):
        labelled.reduce([batch_of(LENGTHS)], reduction="max")
    with pytest.raises(DataError, match="labels of 1 sub-functions, expected 2"):
        labelled.reduce([batch_of(LENGTHS)], reduction="max", labels_SE=LABELS[:1])
    with pytest.raises(DataError, match="example 5 has no label: labels are of 3 examples"):
        labelled.reduce([batch_of(LENGTHS)], reduction="max", labels_SE=LABELS[:, :3])
    with pytest.raises(DataError, match="no batch to reduce"):
        Reducer(model, [site], ReductionConfig(kinds=("moments",))).reduce([], reduction="max")
    model.module.train()
    with pytest.raises(InputError, match="training mode"):
        Reducer(model, [site], ReductionConfig(kinds=("moments",))).reduce([batch_of(LENGTHS)], reduction="max")


def test_values_that_are_not_finite_are_refused_with_layer_and_examples(
    tiny: Callable[..., LoadedModel], batch_of: Callable[..., TokenBatch], neurons, n_hooks
) -> None:
    model = tiny("opt")
    layer = model.module.get_submodule("decoder.layers.1.fc1")
    with torch.no_grad():
        layer.bias[7] = torch.nan
    pieces = batches_of(batch_of(LENGTHS), [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(NumericError, match=r"decoder/ffn.neurons layer 1: values are NaN .* examples 0, 1, 2;"):
        reduce(model, neurons(model), pieces, ReductionConfig(kinds=("moments",)))
    assert n_hooks(model) == 0
