"""A tiny BERT whose first layer is wired in four groups and whose second is not, and graph studies of it."""

from pathlib import Path
from typing import Any

import numpy as np
import tiny_jobs
import torch

from modularity.config import validate_config
from modularity.pipelines import GraphModularityConfig, run_graph_modularity
from modularity.store import Run

N_GROUPS, N_NEURONS, WIDTH = 4, 96, 32
PLANTED_F = np.arange(N_NEURONS) * 7 % N_GROUPS
"""Group of every neuron of layer 0."""
CHANNELS_D = np.arange(WIDTH) * 3 % N_GROUPS
"""Group of every channel, as it is read and as it is written."""


def checkpoint(folder: Path) -> Path:
    """Weights within a group are five times those between groups."""
    module = tiny_jobs.random_module(tiny_jobs.bert_config(intermediate_size=N_NEURONS), seed=2)
    same = torch.tensor(PLANTED_F[:, None] == CHANNELS_D)
    layer = module.encoder.layer[0]
    with torch.no_grad():
        layer.intermediate.dense.weight *= torch.where(same, 5.0, 1.0)
        layer.output.dense.weight *= torch.where(same.T, 5.0, 1.0)
    return tiny_jobs.save(folder, module)


def config(**changes: Any) -> GraphModularityConfig:
    """Few draws, one thread, without Ray."""
    values: dict[str, Any] = {
        "graphs": ["weights"], "n_groups": N_GROUPS, "n_draws": 19, "draws_per_item": 10, "n_permutations": 100,
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    }  # fmt: skip
    return validate_config(GraphModularityConfig, values | changes)


def model(path: Path) -> dict[str, Any]:
    return {"name": str(path), "device": "cpu"}


def run(config: GraphModularityConfig, out: Path) -> Run:
    return run_graph_modularity(config, str(out), quiet=True).run
