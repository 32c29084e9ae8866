"""Names that lead nowhere, and a hub that does not answer: what is said, and how fast."""

import json
import time
from pathlib import Path

import pytest
import transformers
from huggingface_hub import constants

from modularity.errors import InputError, ModelError
from modularity.models import ModelConfig, describe_model, load_model
from modularity.models.source import find_source


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nothing"), "./nothing", "~/nothing", "a/b/c"):
        with pytest.raises(InputError, match=rf"model folder '{name}' does not exist; give a folder with config.json"):
            load_model(ModelConfig(name=name))


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"is not a folder; give a folder with config.json, model.safetensors"):
        load_model(ModelConfig(name=str(tmp_path / "model.safetensors")))


def test_name_that_cannot_be_a_hub_id() -> None:
    with pytest.raises(
        InputError, match=r"'my model!' is neither a local folder nor a hub id; a hub id is .*owner/name"
    ):
        load_model(ModelConfig(name="my model!"))


def test_revision_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"revision='step1000' with the local folder .*: a folder has no revisions"):
        load_model(ModelConfig(name=str(tmp_path), revision="step1000"))


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"holds no config.json; give the folder that save_pretrained or 'hf download'"
    ):
        load_model(ModelConfig(name=str(tmp_path)))


def test_model_type_unknown_to_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    with pytest.raises(ModelError, match=r"config of folder .* cannot be loaded \(ValueError: .*`no-such-type`"):
        load_model(ModelConfig(name=str(tmp_path)))


def test_model_type_unknown_to_the_site_table(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bloom"}))
    for call in (load_model, describe_model):
        with pytest.raises(ModelError, match=r"'bloom' is not in the site table; known: bert, .*register_architecture"):
            call(ModelConfig(name=str(tmp_path)))


def test_offline_says_how_to_use_a_folder(tmp_path: Path) -> None:
    config = ModelConfig(name="facebook/opt-125m", cache_dir=str(tmp_path))
    expected = (
        r"config of 'facebook/opt-125m': the Hugging Face hub cannot be reached \(HF_HUB_OFFLINE is set\), and the "
        r"local cache does not hold it; .*'hf download facebook/opt-125m --local-dir FOLDER', copy FOLDER here"
    )
    for call in (load_model, describe_model):
        with pytest.raises(ModelError, match=expected):
            call(config)


def test_unreachable_hub_is_given_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    with pytest.raises(ModelError, match=r"hub cannot be reached \(http://127.0.0.1:9: \w+: .*\), and the local cache"):
        load_model(ModelConfig(name="facebook/opt-125m", cache_dir=str(tmp_path)))
    assert time.perf_counter() - start < 5


def test_cached_models_are_used_offline(tmp_path: Path, tiny_tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    """A cache as huggingface_hub lays it out, without the hub: the commit is known from its folder."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / commit
    module = transformers.GPT2Model(
        transformers.GPT2Config(vocab_size=48, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    )
    module.save_pretrained(snapshot)
    tiny_tokenizer.save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    config = ModelConfig(name="someone/tiny", cache_dir=str(tmp_path), device="cpu")
    model = load_model(config)
    assert (model.identity.name, model.identity.revision) == ("someone/tiny", commit)
    assert describe_model(config).revision == commit
    with pytest.raises(ModelError, match="config of 'someone/tiny': the Hugging Face hub cannot be reached"):
        load_model(config.replace(revision="step2000"))


def test_source_options(tmp_path: Path) -> None:
    config = ModelConfig(name="someone/tiny", revision="step1", cache_dir=str(tmp_path))
    assert find_source(config).options["revision"] == "step1"
    assert "revision" not in find_source(config, "someone/words").options
    local = find_source(config, str(tmp_path))
    assert (local.folder, local.offline, local.options) == (tmp_path, None, {"trust_remote_code": False})
