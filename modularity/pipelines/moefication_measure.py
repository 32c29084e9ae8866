"""The model with the selected experts of all layers only: its predictions and its answers, text by text."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from modularity.interventions import (
    LayerKey,
    MoefiedLayer,
    RouterKind,
    SelectionRecord,
    compare_outputs,
    ffn_flops,
    label_logits,
    logit_margins,
    selected_experts,
)
from modularity.models import HeadModel
from modularity.pipelines.moefication_layout import ANSWERS, OUTPUTS, WHOLE_ANSWERS
from modularity.pipelines.moefication_prepare import NO_SEED, PreparedMoefication
from modularity.pipelines.moefication_route import moefied_layers
from modularity.store import ArrayWrite, Run
from modularity.types import WorkItem


def measure_whole(run: Run, item: WorkItem, prepared: PreparedMoefication, model: HeadModel) -> Mapping[str, Any]:
    """Record the answers of the whole model."""
    run.commit(item, arrays=run.write_result(WHOLE_ANSWERS, _answers(prepared, model)))
    return {"tokens": sum(task.tokens.n_tokens for task in prepared.tasks)}


def router_of(name: str) -> RouterKind:
    """The router of this name."""
    (found,) = (each for each in get_args(RouterKind) if each == name)
    return found


def measure_selected(run: Run, item: WorkItem, prepared: PreparedMoefication, model: HeadModel) -> Mapping[str, Any]:
    """Record predictions and answers with one partition, router, share and seed.

    Where nothing depends on the seed the same values are recorded for all of them.
    """
    config = prepared.config
    partition, share = item.text("partition"), float(item["share"])
    router = router_of(item.text("router"))
    own = item.integer("seed")
    seeds = config.seeds if own == NO_SEED else (own,)
    layers = moefied_layers(run, prepared, model.base, partition=partition, seed=seeds[0], router=router)
    with selected_experts(
        model.base,
        layers,
        share=share,
        router=router,
        mass=config.mass,
        seed=seeds[0],
    ) as record:
        outputs = _outputs(prepared, model, record)
        outputs |= _selection(prepared, model, record, layers, router)
        answers = _answers(prepared, model) if prepared.tasks else {}
    writes: list[ArrayWrite] = []
    for seed in seeds:
        places = {
            "partition": config.partitions.index(partition),
            "router": config.routers.index(router),
            "share": config.shares.index(share),
            "seed": config.seeds.index(seed),
        }
        for name, block in ((OUTPUTS, outputs), (ANSWERS, answers)):
            if block:
                writes += run.write_result(
                    name, {key: v[None, None, None, None] for key, v in block.items()}, at=places
                )
    run.commit(item, arrays=writes)
    n_answers = sum(task.tokens.n_tokens for task in prepared.tasks)
    return {"tokens": 2 * prepared.texts.evaluation.n_tokens + n_answers}


def _outputs(prepared: PreparedMoefication, model: HeadModel, record: SelectionRecord) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {"kl": [], "agreement": [], "loss": [], "whole_loss": []}
    for table in prepared.texts.evaluation.tables.values():
        compared = compare_outputs(model, table, record, tokens_per_batch=prepared.config.tokens_per_batch)
        for name, values in found.items():
            values.append(getattr(compared, f"{name}_N"))
    return {name: np.concatenate(values) for name, values in found.items()}


def _selection(
    prepared: PreparedMoefication,
    model: HeadModel,
    record: SelectionRecord,
    layers: Mapping[LayerKey, MoefiedLayer],
    router: RouterKind,
) -> dict[str, np.ndarray]:
    """Mass and neurons that the layers kept, over the texts of the predictions, and the operations that it took."""
    kept = record.layers()
    some, whole = 0.0, 0.0
    for key, layer in layers.items():
        here = ffn_flops(model.base, layer, router, kept[key].neurons)
        some, whole = some + here[0], whole + here[1]
    description = prepared.description
    weights = description.n_parameters - description.n_embedding_parameters - description.n_idle_parameters
    total = 2.0 * (weights + description.vocabulary_size * description.residual_width)
    return {
        "kept": np.array([each.mean for each in kept.values()]),
        "neurons": np.array([each.neurons for each in kept.values()]),
        "ffn_flops": np.array(some / whole),
        "flops": np.array((total - whole + some) / total),
    }


def _answers(prepared: PreparedMoefication, model: HeadModel) -> dict[str, np.ndarray]:
    margins, right = [], []
    for task in prepared.tasks:
        logits_EC = label_logits(model, task, tokens_per_batch=prepared.config.tokens_per_batch)
        margins.append(logit_margins(logits_EC, task.gold_E))
        right.append((logits_EC.argmax(axis=1) == task.gold_E).astype(np.int8))
    return {"margin": np.concatenate(margins), "right": np.concatenate(right)}
