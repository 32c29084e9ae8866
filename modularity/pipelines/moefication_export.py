"""The divided model written as a checkpoint, loaded again, and its logits compared with those of the original.

Table `moefied_export`: one row for each comparison. Writing goes to a folder beside the target, which takes its name
when it is whole; a target that the same job has written before is compared again and not written.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modularity.errors import IdentityError, NumericError
from modularity.interventions import (
    LayerKey,
    MoefiedLayer,
    MoefiedModel,
    RouterKind,
    export_moefied,
    last_logits,
    load_moefied,
    selected_experts,
)
from modularity.models import HeadModel, LoadedModel
from modularity.pipelines.moefication_prepare import PreparedMoefication
from modularity.pipelines.moefication_route import moefied_layers
from modularity.pipelines.verification import RELATIVE_TOLERANCE
from modularity.store import Run, table_from_columns
from modularity.types import WorkItem

Row = dict[str, Any]
MAX_TEXTS = 64
"""Texts of each function whose logits are compared."""
CHECKPOINT, ALL_EXPERTS, SOME_EXPERTS = "checkpoint", "all experts", "some experts"
"""What is compared: the plain checkpoint with the original; all experts selected with the plain checkpoint; the same
share of experts in both models."""


def export_model(
    run: Run, item: WorkItem, prepared: PreparedMoefication, model: HeadModel, folder: Path
) -> Mapping[str, Any]:
    """Write, load and compare.

    Raises
    ------
    IdentityError
        The folder holds a checkpoint with other experts.
    NumericError
        The logits with all experts are not those of the model, to the rounding of sums in another order.
    """
    config = prepared.config
    assert config.export is not None
    partition = config.export.partition or config.partitions[0]
    seed = config.seeds[0] if config.export.seed is None else config.export.seed
    router: RouterKind = "mlp" if "mlp" in config.routers else "parameter"
    layers = moefied_layers(run, prepared, model.base, partition=partition, seed=seed, router=router)
    if not folder.exists() or not any(folder.iterdir()):
        _write(model, layers, folder)
    exported = load_moefied(folder, device=str(model.base.device))
    _check_experts(exported, layers, folder)
    head = {"folder": str(folder), "partition": partition, "seed": seed, "router": router}
    rows: list[Row] = [head | row for row in _comparisons(prepared, model, layers, exported, router)]
    wrong = [row for row in rows if row["difference"] > row["allowed"]]  # NaN allows all
    if wrong:
        raise NumericError(
            f"{str(folder)!r} is not the model that was exported: {wrong[0]['compared']}: logits differ by "
            f"{wrong[0]['difference']:.1e} of the largest, allowed is {wrong[0]['allowed']:.0e}"
        )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    run.commit(item, tables=[run.write_table("moefied_export", item, table_from_columns(columns))])
    return {}


def _write(model: HeadModel, layers: Mapping[LayerKey, MoefiedLayer], folder: Path) -> None:
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    export_moefied(model, layers, part)
    if folder.exists():
        folder.rmdir()
    part.rename(folder)


def _check_experts(exported: MoefiedModel, layers: Mapping[LayerKey, MoefiedLayer], folder: Path) -> None:
    for key, layer in layers.items():
        known, original = exported.layers.get(key), exported.original_neuron.get(key)
        if known is None or original is None or not np.array_equal(known.labels_F, layer.labels_F[original]):
            raise IdentityError(
                f"{str(folder)!r} holds a checkpoint with other experts in layer {key[1]} of the {key[0]}; name a new "
                "folder"
            )


def _comparisons(
    prepared: PreparedMoefication,
    model: HeadModel,
    layers: Mapping[LayerKey, MoefiedLayer],
    exported: MoefiedModel,
    router: RouterKind,
) -> list[Row]:
    assert exported.head is not None
    share, allowed = prepared.config.training.share, RELATIVE_TOLERANCE[model.base.identity.dtype]
    original, plain = _logits(prepared, model), _logits(prepared, exported.head)
    whole = _selected(prepared, exported.head, exported.base, exported.layers, 1.0, router)
    some, expected = (
        _selected(prepared, head, head.base, divided, share, router)
        for head, divided in ((exported.head, exported.layers), (model, layers))
    )
    return [
        _row(CHECKPOINT, 1.0, plain, original, allowed),
        _row(ALL_EXPERTS, 1.0, whole, plain, 0.0),
        # Experts of nearly equal score may change places by rounding, so that no limit holds for every text.
        _row(SOME_EXPERTS, share, some, expected, float("nan")),
    ]


def _selected(
    prepared: PreparedMoefication,
    head: HeadModel,
    base: LoadedModel,
    layers: Mapping[LayerKey, MoefiedLayer],
    share: float,
    router: RouterKind,
) -> np.ndarray:
    with selected_experts(base, layers, share=share, router=router, mass=prepared.config.mass):
        return _logits(prepared, head)


def _logits(prepared: PreparedMoefication, head: HeadModel) -> np.ndarray:
    tables = prepared.texts.evaluation.tables.values()
    return np.concatenate([last_logits(head, table, n_texts=MAX_TEXTS) for table in tables])


def _row(compared: str, share: float, one: np.ndarray, other: np.ndarray, allowed: float) -> Row:
    return {
        "compared": compared,
        "share": share,
        "difference": float(np.abs(one - other).max() / np.abs(other).max()),
        "allowed": allowed,
        "median_difference": float(np.median(np.abs(one - other).max(axis=1)) / np.abs(other).max()),
        "agreement": float((one.argmax(axis=1) == other.argmax(axis=1)).mean()),
        "n_texts": len(one),
    }
