"""Partition of a layer, its router, and the activation mass that every router keeps: the items of single layers."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modularity.capture import Reducer, ReductionConfig
from modularity.data import TokenBatch, token_batches
from modularity.experts import balanced_kmeans, coactivation_partition, normalise_rows, random_partition
from modularity.interventions import (
    LayerKey,
    MlpRouter,
    MoefiedLayer,
    RouterTraining,
    RoutingExamples,
    collect_routing,
    fit_router,
    mass_by_text,
    moefy,
    rows_of_texts,
)
from modularity.models import LoadedModel
from modularity.pipelines.moefication_layout import EXPERTS, MASS, ROUTERS
from modularity.pipelines.moefication_prepare import PreparedMoefication
from modularity.pipelines.moefication_texts import Texts
from modularity.stats import CoActivation
from modularity.store import ArrayWrite, Run
from modularity.types import PARTITION, Site, WorkItem


def partition_layer(run: Run, item: WorkItem, prepared: PreparedMoefication, model: LoadedModel) -> Mapping[str, Any]:
    """Record the experts of one layer by one method, for all seeds."""
    partition, layer = item.text("partition"), item.integer("layer")
    index = prepared.layers.index(layer)
    width = prepared.widths[index]
    labels_NF = np.full((len(prepared.config.seeds), width), -1, dtype=np.int32)
    if prepared.is_from_run(partition):
        assert prepared.source is not None
        stored = prepared.source.results(PARTITION)["expert"].sel(partition=partition, layer=layer).values[:width]
        # Experts of the other partitions may be empty; numbers without gaps are what the layers are made from.
        labels_NF[:] = np.unique(stored, return_inverse=True)[1].astype(np.int32)
    else:
        labels_NF[:] = _made(prepared, model, partition, layer, width)
    whole = np.full((1, len(labels_NF), 1, max(prepared.widths)), -1, dtype=np.int32)
    whole[0, :, 0, :width] = labels_NF
    at = {"partition": prepared.config.partitions.index(partition), "layer": index}
    run.commit(item, arrays=run.write_result(EXPERTS, {"expert": whole}, at=at))
    return {}


def _made(prepared: PreparedMoefication, model: LoadedModel, partition: str, layer: int, width: int) -> np.ndarray:
    """Partitions of one layer that the job makes itself, int32 (seeds, neurons); seeds differ by layer."""
    n_experts = prepared.n_experts
    seeds = [1000 * seed + layer for seed in prepared.config.seeds]
    if partition == "random":
        return np.stack([random_partition(width, n_experts, seed=seed) for seed in seeds])
    if partition == "coactivation":
        weights_FF = _coactivation(prepared, model, layer)
        return np.stack([coactivation_partition(weights_FF, n_experts, seed=seed).labels_F for seed in seeds])
    rows_FD = normalise_rows(model.sites.ffn_input_weights(prepared.stack, layer))
    return np.stack([balanced_kmeans(rows_FD, n_experts, seed=seed) for seed in seeds])


def _coactivation(prepared: PreparedMoefication, model: LoadedModel, layer: int) -> np.ndarray:
    """Clamped sums of co-activation over the tokens that routers learn from (card B2)."""
    site = Site(prepared.stack, "ffn.neurons")
    kinds = ReductionConfig(kinds=("co_activation",), co_activation="groups")
    batches = text_batches(prepared.texts.training, prepared, model)
    reduced = Reducer(model, [site], kinds, layers=[layer]).reduce((batch for _, batch in batches), reduction="max")
    counted = reduced.of(site, layer)["co_activation"]
    assert isinstance(counted, CoActivation)
    return counted.result()


def text_batches(texts: Texts, prepared: PreparedMoefication, model: LoadedModel) -> Iterator[tuple[int, TokenBatch]]:
    """Batches of all texts, each with the place of the first text of its function."""
    starts = texts.starts()
    for name, table in texts.tables.items():
        batches = token_batches(
            table, 0, table.n_rows, tokens_per_batch=prepared.config.tokens_per_batch, pad_id=model.pad_id
        )
        yield from ((starts[name], batch) for batch in batches)


def route_layer(run: Run, item: WorkItem, prepared: PreparedMoefication, model: LoadedModel) -> Mapping[str, Any]:
    """Train the MLP router of one layer, and record it and the mass that every router keeps of the evaluation texts."""
    config = prepared.config
    partition, seed, layer = item.text("partition"), item.integer("seed"), item.integer("layer")
    places = {
        "partition": config.partitions.index(partition),
        "seed": config.seeds.index(seed),
        "layer": prepared.layers.index(layer),
    }
    labels_F = _labels(run, prepared, places)
    moefied = moefy(model, {(prepared.stack, layer): labels_F})[prepared.stack, layer]
    writes: list[ArrayWrite] = []
    if "mlp" in config.routers:
        examples, _ = _collect(prepared.texts.training, prepared, model, moefied)
        router = fit_router(moefied, examples, training=_training(prepared, seed), device=model.device)
        moefied = replace(moefied, router=router)
        writes += run.write_result(ROUTERS, _router_block(router, prepared), at=places)
    writes += run.write_result(MASS, _mass_block(prepared, model, moefied, seed), at=places)
    run.commit(item, arrays=writes)
    n_training = prepared.texts.training.n_tokens if "mlp" in config.routers else 0
    return {"tokens": n_training + prepared.texts.evaluation.n_tokens}


def _training(prepared: PreparedMoefication, seed: int) -> RouterTraining:
    values = prepared.config.training.as_json()
    return RouterTraining(**{name: value for name, value in values.items() if name != "tokens"}, seed=seed)


def _labels(run: Run, prepared: PreparedMoefication, places: Mapping[str, int]) -> np.ndarray:
    stored = run.results(EXPERTS, partial=True)["expert"]
    labels_F: np.ndarray = stored.isel(dict(places)).values[: prepared.widths[places["layer"]]]
    return labels_F


def _collect(
    texts: Texts, prepared: PreparedMoefication, model: LoadedModel, layer: MoefiedLayer
) -> tuple[RoutingExamples, np.ndarray]:
    """FFN inputs and masses of all tokens, and the text of each; texts in one random order, tokens of one together."""
    batches = list(text_batches(texts, prepared, model))
    found = collect_routing(
        model, {layer.key: layer}, (b for _, b in batches), mass=prepared.config.mass, max_tokens=texts.n_tokens
    )[layer.key]
    text_R = np.concatenate([rows_of_texts(model, layer.stack, [batch]) + start for start, batch in batches])
    rank_N = np.random.default_rng(0).permutation(texts.n_texts)
    order = np.argsort(rank_N[text_R], kind="stable")
    return RoutingExamples(found.inputs_RD[order], found.mass_RE[order]), text_R[order]


def _router_block(router: MlpRouter, prepared: PreparedMoefication) -> dict[str, np.ndarray]:
    n_experts, n_own = prepared.n_experts, len(router.input_ED)
    first = np.full((1, 1, 1, n_experts, prepared.description.residual_width), np.nan, dtype=np.float32)
    last = np.full((1, 1, 1, n_experts, n_experts), np.nan, dtype=np.float32)
    first[0, 0, 0, :n_own, : router.input_ED.shape[1]] = router.input_ED
    last[0, 0, 0, :n_own, :n_own] = router.output_EE
    return {"input": first, "output": last, "held_out": np.full((1, 1, 1), router.mass_kept)}


def _mass_block(
    prepared: PreparedMoefication, model: LoadedModel, layer: MoefiedLayer, seed: int
) -> dict[str, np.ndarray]:
    config, texts = prepared.config, prepared.texts.evaluation
    examples, text_R = _collect(texts, prepared, model, layer)
    found = [
        mass_by_text(
            layer, examples, text_R, texts.n_texts, router=router, shares=config.shares, seed=seed, device=model.device
        )
        for router in config.routers
    ]
    return {
        "kept": np.stack([each.kept_XN for each in found])[None, None, None],
        "n_tokens": found[0].n_tokens_N[None, None, None],
        "neurons": np.stack([each.neurons_X for each in found])[None, None, None],
    }


def moefied_layers(
    run: Run, prepared: PreparedMoefication, model: LoadedModel, *, partition: str, seed: int, router: str
) -> dict[LayerKey, MoefiedLayer]:
    """All divided layers of one partition and seed, as recorded, with their trained routers where `router` is `mlp`."""
    config = prepared.config
    places = {"partition": config.partitions.index(partition), "seed": config.seeds.index(seed)}
    labels = {
        (prepared.stack, layer): _labels(run, prepared, {**places, "layer": index})
        for index, layer in enumerate(prepared.layers)
    }
    layers = moefy(model, labels)
    if router != "mlp":
        return layers
    stored = run.results(ROUTERS, partial=True)
    for index, (key, layer) in enumerate(layers.items()):
        here, n = stored.isel({**places, "layer": index}), layer.n_experts
        first, last = here["input"].values[:n, : layer.centres_ED.shape[1]], here["output"].values[:n, :n]
        kept = float(here["held_out"].values)
        layers[key] = replace(layer, router=MlpRouter(first, last, kept, config.training.share))
    return layers
