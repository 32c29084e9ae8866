"""Texts in three categories of the tiny tokenizer's words, and a similarity study of them that runs in a second."""

from pathlib import Path
from typing import Any

import numpy as np
import tiny_jobs

from modularity.config import validate_config
from modularity.pipelines import SimilarityConfig, run_similarity
from modularity.store import Run

CATEGORIES = {"none": (), "river": ("river",), "stone": ("stone",)}
N_TEXTS, N_WORDS = 4, 20
SMALL = {"n_bootstrap": 200, "n_permutations": 99, "n_draws": 499}


def folder(path: Path) -> Path:
    """Four texts of each category: filler words, every second one replaced by the word of the category."""
    generator = np.random.default_rng(0)
    for category, words in CATEGORIES.items():
        (path / category).mkdir(parents=True)
        for index in range(N_TEXTS):
            text = generator.choice(tiny_jobs.FILLERS, N_WORDS).tolist()
            text[::2] = [words[0] if words else word for word in text[::2]]
            (path / category / f"{index}.txt").write_text(" ".join(text))
    return path


def config(model: Path | str, source: Path | str, **changes: Any) -> SimilarityConfig:
    """The study of a tiny checkpoint at five positions of each text, three of them with the word of the category."""
    values: dict[str, Any] = {
        "model": {"name": str(model)},
        "texts": {"source": str(source), "length": 20, "positions": "1:6"},
        "scores": SMALL,
        "controls": ["random_tokens"],
        "experts": {"n_experts": tiny_jobs.N_EXPERTS},
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    }
    return validate_config(SimilarityConfig, {**values, **changes})


def run(config: SimilarityConfig, out: Path | str) -> Run:
    """Run a study without a word."""
    return run_similarity(config, str(out), quiet=True).run
