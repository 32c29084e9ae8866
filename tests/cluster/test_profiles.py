"""Every job is planned for every kind of machine, and the table of models that fit is what the arithmetic gives."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))

import tiny_jobs
import tiny_perturbation
import tiny_routing

from modularity.capture import plan_memory
from modularity.cli import app, run_as_job
from modularity.data import series_path
from modularity.models import ModelConfig, describe_model
from modularity.pipelines.machine_plan import gpus_needed
from modularity.pipelines.machines import profile_files, read_profile
from modularity.pipelines.plan import Load

REPO = Path(__file__).parent.parent.parent
JOBS = sorted(path.stem for path in (REPO / "jobs").glob("*.py") if path.stem != "__init__")
LAST_STEP = "step00002000"
PROFILES = {name: read_profile(name) for name in profile_files()}
FITTING: dict[str, Any] = yaml.safe_load((REPO / "cluster" / "models.yaml").read_text())


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Arguments of each job, with models that are here."""
    folder = tmp_path_factory.mktemp("profiles")
    checkpoint = tiny_perturbation.checkpoint(folder / "m", shared=False)
    source = tiny_jobs.run(tiny_perturbation.source_job(folder, checkpoint), folder / "source")
    words = folder / "words.yaml"
    words.write_text(yaml.safe_dump({"label_words": {name: list(w) for name, w in tiny_perturbation.WORDS.items()}}))
    mixture = tiny_jobs.run(
        tiny_routing.source_job(folder, tiny_routing.checkpoint(folder / "switch")), folder / "mixture"
    )
    routing_words = folder / "routing_words.yaml"
    routing_words.write_text(yaml.safe_dump({"label_words": {name: list(w) for name, w in tiny_routing.WORDS.items()},
                                             "n_examples": 20}))  # fmt: skip
    series = ["--model", str(series_path() / LAST_STEP)]
    corpora = ["--target", "planted:brackets", "--retain", "planted:relations"]
    small = (
        "target.max_texts=150",
        "retain.max_texts=150",
        "continuations.n_prompt_tokens=3",
        "continuations.n_new=24",
    )
    return {
        "emergent_modularity": series,
        "graph_modularity": [*series, "--set", "methods=[spectral]"],
        "moefication": ["--model", "series"],
        "opt_modularity": ["--model", "series", "--set", "graph_modularity.methods=[spectral]",
                           "--set", "pruning=null"],
        "pruning": [*series, *corpora, *(word for setting in small for word in ("--set", setting))],
        "restricted_routing": ["--run", mixture.uri, "--words", str(routing_words)],
        "similarity": ["--model", "series"],
        "tight_pass": [*series, "--texts", "sample:planted_languages", "--set", "texts.per_category=4",
                       "--set", "texts.category=label"],
        "perturbation": ["--run", source.uri, "--words", str(words)],
        "pretrain_tiny": ["--steps", "100"],
        "quickstart": ["--no-series"],
        "scan_checkpoints": ["--model", "series"],
    }  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_jobs_are_planned_for_every_profile(
    name: str, arguments: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "quickstart":  # its own weights are a package that need not be installed
        monkeypatch.setattr("jobs.quickstart.weights_folder", lambda: str(series_path() / LAST_STEP))
    command = importlib.import_module(f"jobs.{name}").command
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [*arguments[name], "--plan", "--profile", "all"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    blocks = {block.split()[1]: block for block in f"\n{said.out}".split("\nOn ")[1:] for block in [f"On {block}"]}
    assert set(blocks) == set(PROFILES)
    for machine, block in blocks.items():
        assert "does not fit" not in block, machine
        rows = [line.split()[0] for line in block.splitlines()[1:]]
        assert rows == ["model", "workers", "machines", "time", "settings"], machine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "OUT", "--profile", "l4"], "--profile l4 is for a plan: add --plan"),
        (["--plan", "--profile", "l5"], "--profile 'l5' is not known"),
        (["--plan", "--profile", "DESK"], "the job fits no machine of desk: a worker needs"),
    ],
)
def test_profiles_that_cannot_be_planned_for_are_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    """By `modularity run`, which shares the way with the jobs."""
    job = tmp_path / "job.yaml"
    model = {"name": str(series_path() / LAST_STEP)}
    job.write_text(yaml.safe_dump({"model": model, "functions": [tiny_jobs.word_function(tmp_path)]}))
    desk = tmp_path / "desk.yaml"
    desk.write_text("name: desk\ncpus: 1\nmemory_gib: 0.1\nstore_gbit_s: 1\n")
    places = {"OUT": str(tmp_path / "run"), "DESK": str(desk)}
    result = CliRunner().invoke(app, ["run", str(job), *(places.get(argument, argument) for argument in arguments)])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", FITTING["models"])
def test_models_fit_as_the_table_says(model: str, tmp_path: Path) -> None:
    """From the config alone: weights in the dtype of the table, the default batch, texts of 512 tokens."""
    entry = FITTING["models"][model]
    (tmp_path / "config.json").write_text(json.dumps(entry["config"]))
    description = describe_model(ModelConfig(name=str(tmp_path), dtype=FITTING["dtype"]))
    shapes = {site: shape for site, shape in description.shapes.items() if site.name == "ffn.neurons"}
    memory = plan_memory(
        description, shapes, storage_dtype="bfloat16", n_rows_per_item=128,
        tokens_per_batch=FITTING["tokens_per_batch"], longest_tokens=512, on_device=True,
    )  # fmt: skip
    load = Load(
        on_gpu=True, n_parallel=1, forward_flops=0.0, dtype=description.dtype, weight_bytes=memory.parameter_bytes,
        device_bytes=memory.device_bytes, worker_bytes=memory.host_bytes, store_bytes=0, analysis_seconds=0.0,
        flops_per_cpu=1.0,
    )  # fmt: skip
    found = {}
    for name, profile in PROFILES.items():
        if profile.gpu is not None:
            needed = gpus_needed(load, profile.gpu_bytes)
            found[name] = needed if needed is not None and needed <= profile.gpu.count else "no"
    assert found == entry["gpus"]
    assert round(memory.parameter_bytes / 1e9, 1) == entry["weights_gb"]
