"""The series that ships with the package: as its command makes it, small, untrained at first and learnt at last."""

import hashlib
import re

import pytest
import torch

from modularity.data import series_path
from modularity.models import ModelConfig, load_head_model
from modularity.pretraining import PretrainConfig, build_module, checkpoint_steps, evaluate, read_record
from modularity.pretraining.corpus import held_out_sentences

CONFIG = PretrainConfig(architecture="opt", steps=2000, saved_dtype="float16")
RECORD = read_record(series_path())
README = (series_path().parent / "README.md").read_text(encoding="utf-8")


def test_the_record_is_that_of_the_command_in_the_readme() -> None:
    command = "--architecture opt --steps 2000 --out modularity/data/samples/series/opt --set saved_dtype=float16"
    assert f"python -m jobs.pretrain_tiny {command}" in README
    assert RECORD.config == CONFIG
    assert RECORD.config_digest == CONFIG.digest()
    assert RECORD.state == "finished"
    assert tuple(checkpoint.step for checkpoint in RECORD.checkpoints) == checkpoint_steps(CONFIG)
    assert len(RECORD.checkpoints) >= 12


def test_the_table_in_the_readme_is_that_of_the_record() -> None:
    for checkpoint in RECORD.checkpoints:
        scores = [f"{100 * s.rule.share:.0f} / {100 * s.verdict.share:.0f}" for s in checkpoint.languages.values()]
        assert f"| {checkpoint.step} | {' | '.join(scores)} |" in README
    assert re.search(r"\| step \| (.*) \|", README)[1].split(" | ") == list(RECORD.checkpoints[0].languages)  # type: ignore[index]
    assert f"{RECORD.n_parameters:,} parameters" in README


def test_the_files_are_those_recorded_and_small() -> None:
    for checkpoint in RECORD.checkpoints:
        weights = (series_path() / checkpoint.folder / "model.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == checkpoint.weights_sha256
    names = {path.name for path in series_path().iterdir()}
    assert names == {"training.json", *(checkpoint.folder for checkpoint in RECORD.checkpoints)}
    assert sum(path.stat().st_size for path in series_path().rglob("*")) < 4e6


def test_the_first_checkpoint_is_what_the_code_builds() -> None:
    folder = series_path() / RECORD.checkpoints[0].folder
    stored = load_head_model(ModelConfig(name=str(folder), device="cpu")).module
    for name, parameter in build_module(CONFIG).half().named_parameters():
        torch.testing.assert_close(stored.get_parameter(name), parameter, atol=1e-4, rtol=1e-3)


def test_nothing_is_known_at_first_and_every_language_at_last() -> None:
    for score in RECORD.checkpoints[0].languages.values():
        assert 0.4 < score.rule.share < 0.6
        assert 0.45 < score.verdict.share < 0.55
    for score in RECORD.checkpoints[-1].languages.values():
        assert score.rule.low > 0.95
        assert score.verdict.low > 0.95


def test_the_last_checkpoint_scores_as_recorded() -> None:
    last = RECORD.checkpoints[-1]
    folder = series_path() / last.folder
    head = load_head_model(ModelConfig(name=str(folder), device="cpu", dtype="float32"))
    scores = evaluate(head.module, held_out_sentences(CONFIG), CONFIG)
    for language, score in scores.items():
        assert score.rule.share == pytest.approx(last.languages[language].rule.share, abs=0.0101)
        assert score.verdict.share == pytest.approx(last.languages[language].verdict.share, abs=0.0101)
        assert score.loss == pytest.approx(last.languages[language].loss, rel=1e-3)
