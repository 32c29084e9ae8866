"""Units taken out of a model: against weights set to zero, in every architecture; sums against captured values."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_texts import Tiny, logits, model_of, some_removed, texts_of

from modularity.errors import InputError, ModelError
from modularity.interventions.language_modelling import model_batches, run_batch
from modularity.interventions.pruning import (
    importance_sums,
    next_removed,
    nothing_removed,
    pruned,
    random_order,
    units_of,
)
from modularity.models.taps import linear_weight
from modularity.stats.importance import ImportanceSums

ARCHITECTURES = ["opt", "gpt2", "gpt_neox", "llama", "gemma2", "bert", "distilbert", "t5"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_removed_units_are_zero_columns_of_the_out_projection(tiny: Tiny, name: str, n_hooks: Any) -> None:
    model, other = model_of(tiny, name), model_of(tiny, name)
    removed = some_removed(model)
    for kind, units in units_of(other.base).items():
        for each in units.layers:
            (tap,) = other.base.sites.taps(each.site, [each.layer])
            linear_weight(tap.module, tap.path)[:, torch.from_numpy(removed[kind][each.span])] = 0.0
    before = logits(model)
    with pruned(model.base, removed):
        found = logits(model)
    for one, same, changed in zip(found, logits(other), before):
        assert torch.allclose(one, same, atol=1e-5)
        assert not torch.allclose(one, changed, atol=1e-3)
    assert n_hooks(model) == 0
    assert all(torch.equal(one, again) for one, again in zip(before, logits(model)))


@pytest.mark.parametrize("name", ["opt", "gpt2", "t5"])
def test_sums_are_those_of_the_values_at_real_tokens(tiny: Tiny, name: str) -> None:
    model = model_of(tiny, name)
    removed = nothing_removed(units_of(model.base))
    removed["ffn"][3] = True
    texts = texts_of(model)
    found = importance_sums(model, texts, removed, ["ffn", "attention"], tokens_per_batch=24)
    for kind, units in units_of(model.base).items():
        for each in units.layers:
            (tap,) = model.base.sites.taps(each.site, [each.layer])
            rows = []
            for batch in model_batches(model, texts, tokens_per_batch=1):
                seen: list[torch.Tensor] = []
                with pruned(model.base, removed), torch.inference_mode():
                    handle = tap.attach(seen.append)
                    run_batch(model, batch)
                    handle.remove()
                rows.append(seen[0].reshape(-1, tap.width)[batch.real[each.site.stack].reshape(-1)])
            expected = ImportanceSums.of(torch.cat(rows).numpy())
            for part, array in expected.arrays().items():
                assert getattr(found[kind], part)[each.span] == pytest.approx(array, rel=1e-4, abs=1e-6), part
    assert found["ffn"].importance("rms")[3] == 0.0


def test_a_step_removes_the_highest_of_all_layers_together(tiny: Tiny) -> None:
    model = tiny("opt")
    n = units_of(model.base)["ffn"].n
    kept = {"ffn": ImportanceSums.of(np.ones((2, n)))}
    scores = np.zeros(n)
    scores[[5, 30, 31, 47]] = [4.0, 9.0, 3.0, 5.0]
    out = {"ffn": ImportanceSums.of(np.tile(scores, (2, 1)))}
    first = next_removed(nothing_removed(units_of(model.base)), out, kept, "abs", {"ffn": 2, "attention": 0})
    assert np.flatnonzero(first["ffn"]).tolist() == [30, 47]
    second = next_removed(first, out, kept, "abs", {"ffn": 2, "attention": 0})
    assert np.flatnonzero(second["ffn"]).tolist() == [5, 30, 31, 47]
    assert not second["attention"].any()


def test_units_are_numbered_over_stacks_and_layers(tiny: Tiny) -> None:
    units = units_of(model_of(tiny, "t5").base)["ffn"]
    stack, layer, number = units.place
    assert units.n == 4 * 24
    assert [each.site.stack for each in units.layers] == ["encoder", "encoder", "decoder", "decoder"]
    assert (stack[50], layer[50], number[50]) == (1, 0, 2)


def test_random_orders_differ_by_seed_and_are_the_same_again(tiny: Tiny) -> None:
    units = units_of(tiny("opt").base)
    one, again, other = (random_order(units, seed)["ffn"].tolist() for seed in (1, 1, 2))
    assert one == again != other
    assert sorted(one) == list(range(units["ffn"].n))


def test_what_does_not_fit_is_refused(tiny: Tiny) -> None:
    with (
        pytest.raises(InputError, match=r"removed units 'ffn' have shape \(3,\) and dtype bool"),
        pruned(tiny("opt").base, {"ffn": np.zeros(3, bool)}),
    ):
        pass
    with pytest.raises(ModelError, match="only dense FFNs are pruned"):
        units_of(tiny("olmoe").base)
    chunked = tiny("bert", chunk_size_feed_forward=1)
    with pytest.raises(InputError, match="set chunk_size_feed_forward to 0"):
        importance_sums(chunked, texts_of(chunked), nothing_removed(units_of(chunked.base)), ["ffn"])
