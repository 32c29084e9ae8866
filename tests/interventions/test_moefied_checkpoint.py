"""Exported checkpoints: the same logits by plain transformers, and the same selection by the loader."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modularity.errors import IdentityError, InputError, StoreError
from modularity.interventions import export_moefied, load_moefied, moefy, selected_experts, train_routers
from modularity.interventions.forward import Forward
from modularity.models import ModelConfig, load_model, wrap_model

CLASSES = {"seq2seq": "AutoModelForSeq2SeqLM", "masked": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM"}


def divided(model, seed=0, n_experts=6):
    rng = np.random.default_rng(seed)
    return moefy(
        model,
        {
            (stack, layer): rng.permutation(24) % n_experts
            for stack in model.sites.stacks
            for layer in range(model.sites.n_layers(stack))
        },
    )


@pytest.mark.parametrize("name", ["opt", "t5", "llama", "flan-t5", "gpt2", "gpt_neox", "gemma2", "bert", "distilbert"])
def test_plain_transformers_loads_it_with_the_same_logits(tiny, batch_of, tmp_path, name) -> None:
    model = tiny(name)
    batch = batch_of([5, 7, 3])
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    plain = Forward(model.module, model.base)(batch).logits
    folder = export_moefied(model, divided(model.base), tmp_path / "moe")
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())
    loaded = getattr(transformers, CLASSES[model.kind]).from_pretrained(folder)
    assert type(loaded) is type(model.module)
    stored = loaded.state_dict()
    assert stored.keys() == before.keys()
    changed = {key for key in before if not torch.equal(stored[key], before[key])}
    assert changed
    real = torch.from_numpy(batch.attention_mask_BT)
    again = Forward(loaded.eval(), model.base)(batch).logits
    if again.shape[1] == real.shape[1]:
        plain, again = plain[real], again[real]
    torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["opt", "t5", "llama"])
def test_weights_are_expert_major(tiny, tmp_path, name) -> None:
    model = tiny(name).base
    layers = divided(model)
    loaded = load_moefied(export_moefied(model, layers, tmp_path / "moe"))
    assert loaded.head is None
    for (stack, number), layer in loaded.layers.items():
        order = loaded.original_neuron[stack, number]
        assert (layer.labels_F == np.repeat(np.arange(6), 4)).all()
        assert (layer.labels_F == layers[stack, number].labels_F[order]).all()
        for weights in ("ffn_input_weights", "ffn_output_weights"):
            stored, original = (getattr(each.sites, weights)(stack, number) for each in (loaded.base, model))
            assert (stored == original[order]).all()
        assert (layer.centres_ED == layers[stack, number].centres_ED).all()


@pytest.mark.parametrize("name", ["opt", "t5", "llama"])
def test_the_loader_selects_as_the_original_does(tiny, batch_of, tmp_path, name) -> None:
    model = tiny(name)
    layers = train_routers(model.base, divided(model.base), [batch_of([20] * 20, seed=1)])
    loaded = load_moefied(export_moefied(model, layers, tmp_path / "moe"))
    assert loaded.head is not None
    assert {key: layer.router.mass_kept for key, layer in loaded.layers.items()} == {
        key: layer.router.mass_kept for key, layer in layers.items()
    }
    batch = batch_of([6, 6])
    for share in (0.3, 1):
        for router in ("oracle", "parameter", "mlp"):
            logits = []
            for base, module, experts in (
                (model.base, model.module, layers),
                (loaded.base, loaded.head.module, loaded.layers),
            ):
                with selected_experts(base, experts, share=share, router=router):
                    logits.append(Forward(module, base)(batch).logits)
            torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-5)


def test_experts_of_unequal_size_and_dense_layers(tiny, tmp_path) -> None:
    model = tiny("opt")
    labels = np.array([2, 0, 1, 1, 0, 2, 2, 2] * 3)
    loaded = load_moefied(export_moefied(model, moefy(model.base, {("decoder", 1): labels}), tmp_path / "moe"))
    assert list(loaded.layers) == [("decoder", 1)]
    assert np.bincount(loaded.layers["decoder", 1].labels_F).tolist() == [6, 6, 12]
    stored, original = (each.sites.ffn_input_weights("decoder", 0) for each in (loaded.base, model.base))
    assert (stored == original).all()


def test_half_precision_is_kept(tiny, tmp_path) -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    loaded = load_moefied(export_moefied(model, divided(model.base), tmp_path / "moe"))
    assert loaded.base.identity.dtype == "bfloat16"
    assert load_moefied(tmp_path / "moe", dtype="float32").base.identity.dtype == "float32"


def test_the_export_is_a_checkpoint_like_others(tiny, tmp_path) -> None:
    model = tiny("t5")
    folder = export_moefied(model, divided(model.base), tmp_path / "moe")
    content = json.loads((folder / "experts.json").read_text())
    stored = load_model(ModelConfig(name=str(folder))).identity.parameter_hash
    assert stored != content["original"]["parameter_hash"]
    assert content["original"]["parameter_hash"] == model.base.identity.parameter_hash
    assert content["layers"][0]["labels"] == np.repeat(np.arange(6), 4).tolist()


def test_other_weights_are_refused(tiny, tmp_path) -> None:
    model = tiny("opt")
    folder = export_moefied(model, divided(model.base), tmp_path / "moe")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("fc1.weight"))
    save_file({**weights, name: weights[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IdentityError, match=r"its experts.json belongs to [0-9a-f]{16}: the weights were replaced"):
        load_moefied(folder)


def test_bad_folders(tiny, tmp_path) -> None:
    model = tiny("opt")
    layers = divided(model.base)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="exists and is not an empty folder: give a new one, nothing is overwritten"):
        export_moefied(model, layers, tmp_path / "full")
    with pytest.raises(InputError, match="was wrapped without a tokenizer"):
        export_moefied(wrap_model(model.base.module, None, name="bare"), layers, tmp_path / "new")
    with pytest.raises(InputError, match="layer 0 of the decoder has other neurons than its labels: 24 labels"):
        export_moefied(tiny("opt", ffn_dim=30), layers, tmp_path / "new")
    with pytest.raises(StoreError, match=r"experts.json' does not exist: expected a folder written by export_moefied"):
        load_moefied(tmp_path / "full")
    folder = export_moefied(model, layers, tmp_path / "moe")
    text = (folder / "experts.json").read_text()
    (folder / "experts.json").write_text(text.replace('"version":1', '"version":2'))
    with pytest.raises(StoreError, match=r"format and version \('modularity-moefied', 2\): expected .*, 1\)"):
        load_moefied(folder)
    (folder / "experts.json").write_text(text.replace('"n_experts":6', '"n_experts":7'))
    with pytest.raises(StoreError, match=r"experts.json or routers.safetensors is damaged .*6 centres"):
        load_moefied(folder)
    (folder / "experts.json").write_text(text[:-5])
    with pytest.raises(StoreError, match=r"experts.json' is not JSON"):
        load_moefied(folder)
