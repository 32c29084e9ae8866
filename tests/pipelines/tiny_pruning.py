"""Prunings of the last checkpoint of the shipped series on two planted languages, small enough for a test."""

from pathlib import Path
from typing import Any

from modularity.config import validate_config
from modularity.data import series_path
from modularity.pipelines.pruning import run_pruning
from modularity.pipelines.pruning_config import PruningConfig
from modularity.store import Run


def config(**changes: Any) -> PruningConfig:
    """Counting against agreement, eight steps of 6 %, in this process."""
    values: dict[str, Any] = {
        "model": {"name": str(series_path() / "step00002000"), "dtype": "float32", "matmul": "highest"},
        "target": {"name": "counting", "source": "planted:counting", "max_texts": 400},
        "retain": {"name": "agreement", "source": "planted:agreement", "max_texts": 400},
        "scores": ["abs"],
        "schedules": ["iterative"],
        "ffn_share": 0.06,
        "n_steps": 8,
        "n_random": 5,
        "n_common": 16,
        "n_bootstrap": 100,
        "scoring_tokens": 600,
        "validation_tokens": 400,
        "evaluation_tokens": 800,
        "continuations": {"n_prompts": 30, "n_prompt_tokens": 4, "n_new": 8, "n_least": 3, "features": "words"},
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    }
    return validate_config(PruningConfig, {**values, **changes})


def run(settings: PruningConfig, out: Path) -> Run:
    """Run a pruning without a word."""
    return run_pruning(settings, str(out), quiet=True).run
