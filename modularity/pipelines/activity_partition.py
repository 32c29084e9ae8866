"""Partitions of a layer by what its neurons do: co-activation (card B2) and predictivity profile.

`coactivation` takes the counts over tokens that the job reduced (`reductions.kinds` with `co_activation`), added up
over functions. Without them it counts stored rows: a neuron is active in the tenth of a function's rows where it is
largest, rows that tie with these included, but not where it is least. A stored row is the maximum or mean of a text,
which is rarely 0, so that a threshold at 0, as for tokens, would call every neuron active everywhere. Labels play no
part in either.

`profile` takes the distance of the AUROC from .5 for every sub-function, on the evaluation rows. The lists of top
neurons, observed and under permuted labels, are of selection rows; so experts and lists come from disjoint examples,
and the tests of this partition are those of the others. From selection rows it would be circular: such experts are
functional whatever the labels mean.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modularity.experts import profile_partition
from modularity.experts.coactivation import coactivation_partition
from modularity.pipelines.config import ExpertsConfig
from modularity.pipelines.predictivity_step import selection_half
from modularity.pipelines.reduction_layout import reductions_name
from modularity.store import Run
from modularity.types import PARTITION, Site, WorkItem

ACTIVE_SHARE = 0.1
"""Share of a function's rows in which a neuron counts as active, where no tokens were counted."""
_ROWS_AT_ONCE = 2048
_NEURONS_AT_ONCE = 512


def partition_by_activity(run: Run, item: WorkItem, config: ExpertsConfig, *, n_threads: int) -> Mapping[str, Any]:
    """Record the experts of one layer by `coactivation` or `profile`."""
    partition = run.results(PARTITION, partial=True)
    method, layers = item.text("method"), partition["layer"].values.tolist()
    index = layers.index(item.integer("layer"))
    width, seed = int(partition["width"].values[index]), config.seed + item.integer("layer")
    info: dict[str, Any] = {}
    if method == "coactivation":
        weights_FF, info["counted"] = coactivation(run, index, width, n_threads=n_threads)
        found = coactivation_partition(weights_FF, config.n_experts, seed=seed)
        labels_F = found.labels_F
        info |= {"within_share": found.within_share, "chance_within_share": found.chance_within_share}
    else:
        profiles_SF, evaluation_R = evaluation_profiles(run, index, width)
        by_profile = profile_partition(
            profiles_SF, config.n_experts, selection_R=evaluation_R, n_restarts=config.n_restarts, seed=seed
        )
        labels_F, info["explained"] = by_profile.labels_F, by_profile.explained
    labels_MLF = np.full((1, 1, partition.sizes["neuron"]), -1, np.int32)
    labels_MLF[0, 0, :width] = labels_F
    writes = run.write_result(
        PARTITION,
        {"expert": labels_MLF},
        at={"partition": config.methods.index(method), "layer": index},
    )
    run.commit(item, arrays=writes, info=info)
    return info


def coactivation(run: Run, index: int, width: int, *, n_threads: int = 1) -> tuple[NDArray[np.floating], str]:
    """How often two neurons of a layer are active together, over all functions and corpora, and what was counted.

    Parameters
    ----------
    run : with merged reductions or stored rows
    index : place of the layer
    width : its neurons
    n_threads : that decode stored rows

    Returns
    -------
    weights_FF : float array of shape (width, width), symmetric
    counted : `tokens`, or `rows` where the job reduced no co-activation
    """
    functions = [function["name"] for function in run.manifest.config["functions"]]
    if "co_activation" in run.manifest.config["reductions"]["kinds"]:
        weights_FF = np.zeros((width, width))
        corpora = [corpus["name"] for corpus in run.manifest.config["reductions"]["corpora"]]
        for name in [*functions, *corpora]:
            dataset = run.results(reductions_name(name), partial=True)
            weights_FF += dataset["co_activation"][index, :width, :width].values
        return weights_FF, "tokens"
    counts_FF = np.zeros((width, width), np.float32)
    for function in functions:
        active_RF = active_rows(run, function, index, width, n_threads=n_threads)
        for start in range(0, len(active_RF), _ROWS_AT_ONCE):
            block_RF = active_RF[start : start + _ROWS_AT_ONCE].astype(np.float32)
            counts_FF += block_RF.T @ block_RF
    return counts_FF, "rows"


def active_rows(run: Run, function: str, index: int, width: int, *, n_threads: int) -> NDArray[np.bool_]:
    """Rows of one function in which a neuron reaches its 90th percentile; some neurons are read at a time."""
    site = Site.parse(run.manifest.notes["analysed"], "decoder")
    layer = int(run.results(PARTITION, partial=True)["layer"].values[index])
    blocks = []
    for start in range(0, width, _NEURONS_AT_ONCE):
        units = slice(start, min(start + _NEURONS_AT_ONCE, width))
        values_RF = run.read_activations(function, site, layer=layer, units=units, n_threads=n_threads)
        values_RF = np.asarray(values_RF, np.float32)
        edge_F, least_F = np.quantile(values_RF, 1 - ACTIVE_SHARE, axis=0), values_RF.min(axis=0)
        blocks.append((values_RF >= edge_F) & (values_RF > least_F))
    return np.concatenate(blocks, axis=1)


def coactivation_bytes(n_rows: int, width: int, *, counted: bool) -> int:
    """Memory of one item: pairs in float64 and those of the graph, and the rows where tokens were not counted."""
    return 64 * width**2 + (0 if counted else n_rows * (width + 12 * min(width, _NEURONS_AT_ONCE)))


def evaluation_profiles(run: Run, index: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What every neuron of a layer predicts on evaluation rows, and which rows these are.

    Returns
    -------
    profiles_SF : float64 array (sub-functions of all functions, width): |AUROC - .5|
    evaluation_R : bool array over the rows of all functions
    """
    profiles, rows = [], []
    for function in (function["name"] for function in run.manifest.config["functions"]):
        profiles.append(np.abs(run.results(function, partial=True)["auroc_evaluation"].values[:, index, :width] - 0.5))
        selection_R = selection_half(run.coordinates(function), "corrected")
        assert selection_R is not None
        rows.append(~selection_R)
    return np.concatenate(profiles), np.concatenate(rows)
