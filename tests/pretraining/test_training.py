"""Training: the same weights twice and after an interruption; checkpoints that load; what a folder refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from modularity.data.language_tokenizer import TOKEN_IDS
from modularity.errors import IdentityError, InputError, ModelError, NumericError, StoreError
from modularity.models import ModelConfig, load_head_model, load_model
from modularity.pretraining import Pace, PretrainConfig, TrainingRecord, build_module, pretrain, read_record
from modularity.pretraining.corpus import training_corpus
from modularity.pretraining.training import batch_of, learning_rate

each_architecture = pytest.mark.parametrize("architecture", ["opt", "t5", "switch"])


def hashes(record: TrainingRecord) -> list[str]:
    return [checkpoint.weights_sha256 for checkpoint in record.checkpoints]


@each_architecture
def test_checkpoints_load_and_the_loss_falls(
    architecture: str, small: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    config = small(architecture=architecture, steps=40)
    seen: list[Pace] = []
    record = pretrain(config, tmp_path / "run", progress=seen.append)
    assert record == read_record(tmp_path / "run")
    assert (record.state, record.vocabulary) == ("finished", len(TOKEN_IDS))
    assert [pace.step for pace in seen] == [checkpoint.step for checkpoint in record.checkpoints] == [0, 2, 9, 40]
    losses = [checkpoint.training_loss for checkpoint in record.checkpoints]
    assert losses[0] is None
    assert losses[3] is not None
    assert losses[1] is not None
    assert losses[3] < losses[1] - 0.3
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "step00000000", "step00000002", "step00000009", "step00000040", "training.json",
    ]  # fmt: skip
    loaded = load_model(ModelConfig(name=str(tmp_path / "run" / "step00000000"), device="cpu"))
    assert loaded.tokenizer("ada lives")["input_ids"]
    head = load_head_model(ModelConfig(name=str(tmp_path / "run" / "step00000000"), device="cpu"))
    for name, parameter in build_module(config).named_parameters():
        assert torch.equal(head.module.get_parameter(name), parameter)


def test_the_same_config_gives_the_same_weights(small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    one, two, other = (pretrain(small(seed=seed), tmp_path / name) for seed, name in ((0, "a"), (0, "b"), (1, "c")))
    assert one == two
    assert not set(hashes(one)) & set(hashes(other))


@each_architecture
def test_an_interrupted_training_goes_on_to_the_same_weights(
    architecture: str, small: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    config = small(architecture=architecture)
    whole = pretrain(config, tmp_path / "whole")

    def interrupt(pace: Pace) -> None:
        if pace.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(config, tmp_path / "cut", progress=interrupt)
    assert read_record(tmp_path / "cut").state == "running"
    seen: list[Pace] = []
    assert pretrain(config, tmp_path / "cut", progress=seen.append) == whole
    assert [pace.step for pace in seen] == [12]
    for checkpoint in whole.checkpoints:
        files = [tmp_path / name / checkpoint.folder / "model.safetensors" for name in ("whole", "cut")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_training_cut_before_its_first_state_begins_again(
    small: Callable[..., PretrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk full"):
        patched.setattr(
            "modularity.pretraining.training.save_state", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
        )
        pretrain(small(), tmp_path / "cut")
    assert pretrain(small(), tmp_path / "cut") == pretrain(small(), tmp_path / "whole")


def test_a_finished_training_is_not_touched(small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    record = pretrain(small(), tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert pretrain(small(), tmp_path, progress=pytest.fail) == record
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_another_config_or_other_files_are_refused(small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    pretrain(small(), tmp_path / "run")
    with pytest.raises(IdentityError, match=r"another config \(seed: 0 there, 3 now\); name a new folder"):
        pretrain(small(seed=3), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"files that are not of a training \(notes.txt\)"):
        pretrain(small(), tmp_path / "other")
    with pytest.raises(InputError, match=r"notes.txt' is a file; name a folder"):
        pretrain(small(), tmp_path / "other" / "notes.txt")


def test_damaged_files_are_named(small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"training.json' cannot be read"):
        read_record(tmp_path / "none")
    record = pretrain(small(), tmp_path / "run")
    running = record.as_json() | {"state": "running"}
    (tmp_path / "run" / "training.json").write_text(json.dumps(running))
    (tmp_path / "run" / "state.safetensors").write_bytes(b"not a state")
    with pytest.raises(StoreError, match=r"state.safetensors' is damaged"):
        pretrain(small(), tmp_path / "run")
    (tmp_path / "run" / "training.json").write_text("{}")
    with pytest.raises(StoreError, match=r"training.json' is not the record of a training"):
        pretrain(small(), tmp_path / "run")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_checkpoints_in_half_precision(dtype: str, small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    exact, half = pretrain(small(), tmp_path / "exact"), pretrain(small(saved_dtype=dtype), tmp_path / "half")
    assert exact.checkpoints[-1].training_loss == half.checkpoints[-1].training_loss
    models = [
        load_model(ModelConfig(name=str(tmp_path / name / "step00000012"), device="cpu")) for name in ("exact", "half")
    ]
    assert models[1].identity.dtype == dtype
    for a, b in zip(models[0].module.parameters(), models[1].module.parameters()):
        assert torch.equal(a.to(b.dtype), b)


def test_every_sentence_is_seen_once_in_an_epoch(small: Callable[..., PretrainConfig]) -> None:
    config = small(n_sentences=48)
    corpus = training_corpus(config)
    width = corpus.inputs_NT.shape[1]
    epoch = [batch_of(corpus, step, config).inputs_NT for step in range(3)]
    rows = np.vstack([np.pad(batch, ((0, 0), (0, width - batch.shape[1]))) for batch in epoch])
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, corpus.inputs_NT.tolist()))
    again = batch_of(corpus, 3, config).inputs_NT
    assert again.shape != epoch[0].shape or not np.array_equal(again, epoch[0])


def test_the_learning_rate_rises_and_falls(small: Callable[..., PretrainConfig]) -> None:
    config = small(learning_rate=1.0, warmup_steps=4, steps=14)
    rates = [learning_rate(step, config) for step in (0, 3, 4, 9, 14)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 0.55, 0.1])
    assert learning_rate(13, config.replace(decay="none")) == 1.0


def test_a_device_that_is_not_there(small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"device='cuda:99': torch sees \d+ CUDA devices; use device='cpu'"):
        pretrain(small(device="cuda:99"), tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_training(small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    with pytest.raises(NumericError, match=r"the loss between the steps .* is nan; lower learning_rate=1e"):
        pretrain(small(learning_rate=1e30, warmup_steps=0), tmp_path / "run")


def test_threads_are_put_back(small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    before = torch.get_num_threads()
    pretrain(small(), tmp_path)
    assert torch.get_num_threads() == before


@pytest.mark.gpu
@each_architecture
def test_on_a_gpu_in_bfloat16(architecture: str, small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    record = pretrain(small(architecture=architecture, device="cuda", precision="bfloat16", steps=40), tmp_path)
    losses = [checkpoint.training_loss for checkpoint in record.checkpoints[1:]]
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < losses[0]
