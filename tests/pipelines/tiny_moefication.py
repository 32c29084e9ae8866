"""MoEfications of the tiny OPT of `tiny_perturbation`: three neurons for each of eight words, so eight true experts."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tiny_jobs
import tiny_perturbation as tiny

from modularity.config import validate_config
from modularity.models import load_model
from modularity.pipelines import MoeficationConfig, run_moefication
from modularity.pipelines.layout import create_partition
from modularity.store import Manifest, Run, create_run
from modularity.types import PARTITION, Site, SiteShape, WorkItem

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


def config(folder: Path, checkpoint: Path, **changes: Any) -> MoeficationConfig:
    """One share, in which a token keeps one expert, and the whole; in this process."""
    values: dict[str, Any] = {
        "model": {"name": str(checkpoint), "device": "cpu", "matmul": "highest"},
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


def partitioned(out: Path, folder: Path, checkpoint: Path, methods: list[str]) -> Run:
    """What this job reads of a finished run of `emergent_modularity`: its partitions, config and identity.

    By the first method neuron f is in expert f mod 8; by the others the last two experts are empty.
    """
    experts = {"n_experts": N_EXPERTS, "methods": methods, "top_fraction": 0.25, "sensitivity": [0.25]}
    job = tiny.source_job(folder, checkpoint, experts=experts)
    identity = asdict(load_model(job.model).identity)
    notes = {"analysed": "decoder/ffn.neurons"}
    manifest = Manifest.of(
        "emergent_modularity", config=job.as_json(), identity={"model": identity, "data": {}}, notes=notes
    )
    source = create_run(str(out), manifest)
    shape = SiteShape(Site("decoder", "ffn.neurons"), (0,), (24,), ("neuron",), (24,))
    create_partition(source, shape, job.experts)
    labels_MLF = np.stack([np.arange(24) % (8 if index == 0 else 6) for index in range(len(methods))])[:, None]
    source.commit(
        WorkItem.of("partition"), arrays=source.write_result(PARTITION, {"expert": labels_MLF.astype(np.int32)})
    )
    source.update(state="finished")
    return source
