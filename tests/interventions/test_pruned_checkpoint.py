"""Pruned models as Hugging Face checkpoints: smaller, loaded by plain transformers, with the masked model's logits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny_texts import Tiny, logits, model_of, some_removed

from modularity.errors import InputError
from modularity.interventions.pruned_checkpoint import PRUNING_FILE, export_pruned
from modularity.interventions.pruning import pruned, units_of
from modularity.models import ModelConfig, load_head_model
from modularity.models.identity import parameter_hash

SETTINGS = {
    "opt": "ffn_dim", "gpt2": "n_inner", "gpt_neox": "intermediate_size", "llama": "intermediate_size",
    "gemma2": "intermediate_size", "bert": "intermediate_size", "distilbert": "hidden_dim", "t5": "d_ff",
    "flan-t5": "d_ff",
}  # fmt: skip


@pytest.mark.parametrize("name", list(SETTINGS))
def test_the_checkpoint_is_the_masked_model_and_smaller(tiny: Tiny, tmp_path: Path, name: str) -> None:
    model = model_of(tiny, name)
    removed, before = some_removed(model), parameter_hash(model.base.module)
    with pruned(model.base, removed):
        expected = logits(model)
    written = export_pruned(model, removed, tmp_path / "out")
    kept = [int((~removed["ffn"][each.span]).sum()) for each in units_of(model.base)["ffn"].layers]
    assert written.width == max(kept) < 24
    assert parameter_hash(model.base.module) == before
    assert all(torch.equal(one, other) for one, other in zip(logits(model), logits(model_of(tiny, name))))
    loaded = load_head_model(ModelConfig(name=str(tmp_path / "out"), device="cpu"))
    assert getattr(loaded.base.hf_config, SETTINGS[name]) == written.width
    assert getattr(model.base.hf_config, SETTINGS[name]) == 24
    assert written.n_parameters < written.n_parameters_before
    assert loaded.base.identity.parameter_hash == written.parameter_hash
    for one, other in zip(expected, logits(loaded)):
        assert torch.allclose(one, other, atol=1e-5)


def test_plain_transformers_loads_it(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("opt")
    export_pruned(model, some_removed(model), tmp_path / "out")
    module, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert module.config.ffn_dim < 24


def test_what_went_stands_beside_it(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("opt")
    removed = some_removed(model)
    written = export_pruned(model, removed, tmp_path / "out")
    content = json.loads((tmp_path / "out" / PRUNING_FILE).read_text())
    assert content["parameter_hash"] == written.parameter_hash
    assert content["original"]["parameter_hash"] == model.base.identity.parameter_hash
    units = units_of(model.base)
    for entry, (kind, each) in zip(content["layers"], [(k, e) for k, u in units.items() for e in u.layers]):
        assert (entry["kind"], entry["stack"], entry["layer"]) == (kind, each.site.stack, each.layer)
        assert entry["removed"] == np.flatnonzero(removed[kind][each.span]).tolist()


def test_a_layer_may_lose_all_and_another_none(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("opt")
    units = units_of(model.base)["ffn"]
    removed = {"ffn": np.zeros(units.n, bool)}
    removed["ffn"][units.layers[0].span] = True
    with pruned(model.base, removed):
        expected = logits(model)
    written = export_pruned(model, removed, tmp_path / "out")
    assert (written.width, written.n_parameters) == (24, written.n_parameters_before)
    loaded = load_head_model(ModelConfig(name=str(tmp_path / "out"), device="cpu"))
    for one, other in zip(expected, logits(loaded)):
        assert torch.allclose(one, other, atol=1e-5)


def test_an_own_checkpoint_is_replaced_and_other_things_are_not(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("opt")
    first = export_pruned(model, some_removed(model), tmp_path / "out")
    again = export_pruned(model, {}, tmp_path / "out")
    assert again.parameter_hash == model.base.identity.parameter_hash != first.parameter_hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no pruned checkpoint"):
        export_pruned(model, {}, tmp_path / "other")
    with pytest.raises(InputError, match="is a file"):
        export_pruned(model, {}, tmp_path / "other" / "thesis.txt")
