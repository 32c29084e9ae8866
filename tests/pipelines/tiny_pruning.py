"""Prunings of the last checkpoint of the shipped series on two planted languages, small enough for a test."""

import tempfile
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from modularity.config import validate_config
from modularity.data import sentences, series_path
from modularity.pipelines.pruning import run_pruning
from modularity.pipelines.pruning_config import PruningConfig
from modularity.store import Run


@cache
def source(language: str) -> str:
    """File of 360 held-out sentences of a language, one a line; drawn once, as most draws are not held out."""
    path = Path(tempfile.mkdtemp(prefix="pruning-")) / f"{language}.txt"
    texts = dict.fromkeys(each.text for each in islice(sentences(seed=5, languages=(language,), side="held_out"), 380))
    path.write_text("\n".join(list(texts)[:360]))
    return str(path)


def config(**changes: Any) -> PruningConfig:
    """Counting against agreement, six steps of 8 %, in this process."""
    values: dict[str, Any] = {
        "model": {"name": str(series_path() / "step00002000"), "dtype": "float32", "matmul": "highest"},
        "target": {"name": "counting", "source": source("counting"), "lines": True},
        "retain": {"name": "agreement", "source": source("agreement"), "lines": True},
        "scores": ["abs"],
        "schedules": ["iterative"],
        "ffn_share": 0.08,
        "n_steps": 6,
        "n_random": 5,
        "n_common": 16,
        "n_bootstrap": 100,
        "scoring_tokens": 500,
        "validation_tokens": 300,
        "evaluation_tokens": 600,
        "continuations": {"n_prompts": 30, "n_prompt_tokens": 4, "n_new": 8, "n_least": 3, "features": "words"},
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    }
    return validate_config(PruningConfig, {**values, **changes})


def run(settings: PruningConfig, out: Path) -> Run:
    """Run a pruning without a word."""
    return run_pruning(settings, str(out), quiet=True).run
