"""A tiny scan for the tests: four checkpoints, of which the third has the parameters of the second."""

from pathlib import Path
from typing import Any

import tiny_jobs

from modularity.config import validate_config
from modularity.pipelines import ScanConfig

SEEDS = {0: 1, 10: 2, 100: 2, 1000: 3}
"""Seed of the weights by step."""


def save_series(folder: Path) -> Path:
    """Training directory with the checkpoints, random weights."""
    for step, seed in SEEDS.items():
        module = tiny_jobs.random_module(tiny_jobs.bert_config(), seed=seed)
        tiny_jobs.save(folder / f"step{step:08d}", module)
    return folder


def scan(series: Path, functions: list[dict[str, Any]], **changes: Any) -> ScanConfig:
    """A scan in this process with few permutations; nested changes replace single keys."""
    experts = {"methods": ["balanced", "random"]} | changes.pop("experts", {})
    settings = {"n_random": 4, "n_bootstrap": 100} | changes.pop("scan", {})
    values = tiny_jobs.job(series, functions, experts=experts, **changes).as_json()
    return validate_config(ScanConfig, {**values, "job": "scan_checkpoints", "scan": settings})
