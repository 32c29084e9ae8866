"""MoEfications of the tiny OPT of `tiny_perturbation`: three neurons for each of eight words, so eight true experts."""

from pathlib import Path
from typing import Any

import tiny_jobs
import tiny_perturbation as tiny

from modularity.config import validate_config
from modularity.pipelines import MoeficationConfig, run_moefication
from modularity.store import Run

N_EXPERTS = 8
"""Neurons of one expert have equal input weights; the last token of a text makes one expert active."""


def function(folder: Path) -> dict[str, Any]:
    """The texts of the four tasks, half of them for each side."""
    path = folder / "tasks.jsonl"
    if not path.exists():
        tiny_jobs.write_rows(path, tiny.rows())
    return {
        "name": "tasks", "kind": "task", "source": str(path),
        "columns": {"id": "id", "subfunction": "subfunction"},
    }  # fmt: skip


def config(folder: Path, model: Path, **changes: Any) -> MoeficationConfig:
    """One share, in which a token keeps one expert, and the whole; in this process."""
    values: dict[str, Any] = {
        "model": {"name": str(model), "device": "cpu", "matmul": "highest"},
        "functions": [function(folder)],
        "label_words": tiny.WORDS,
        "layers": [0],
        "n_experts": N_EXPERTS,
        "partitions": ["balanced", "random"],
        "shares": [0.125, 1.0],
        "seeds": [0, 1],
        "training": {"share": 0.125, "n_epochs": 20, "rows_per_batch": 128},
        "n_bootstrap": 100,
        "tokens_per_batch": 512,
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
        **changes,
    }
    return validate_config(MoeficationConfig, values)


def run(settings: MoeficationConfig, out: Path) -> Run:
    """Run a MoEfication without a word."""
    return run_moefication(settings, str(out), quiet=True).run
