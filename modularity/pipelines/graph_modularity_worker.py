"""The worker of a graph study: builds the graphs of a layer, observed and drawn from nulls, and partitions them.

Table `graph_partitions`: one row for each layer, graph and method. Table `graph_null`: one row for each draw. Groups of
the observed graphs go to `results/graph_groups`.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from modularity.errors import IdentityError, InputError
from modularity.geometry.graph_nulls import exchange_activity, permute_keeping_strengths, permute_weights, rewire
from modularity.geometry.graph_partitions import leiden_partition, spectral_partition
from modularity.geometry.graphs import NO_GROUP, Graph, Labels, SparseGraph, newman_modularity, normalised_cut
from modularity.geometry.weight_graphs import (
    Matrices,
    absolute_weights,
    coactivation_graph,
    ffn_graph,
    keep_heaviest,
    rescaled,
)
from modularity.models import LoadedModel, compute_threads, load_model
from modularity.pipelines.activity_partition import active_rows, coactivation
from modularity.pipelines.graph_modularity_config import ACTIVITY_NULLS, WEIGHT_NULLS
from modularity.pipelines.graph_modularity_prepare import PreparedGraphs
from modularity.pipelines.graph_modularity_tables import compare_groups, compare_with_nulls
from modularity.store import Run, open_run, table_from_columns
from modularity.types import PARTITION, WorkItem

GROUPS = "graph_groups"
OBSERVED = "observed"
_NULL_NUMBERS: dict[str, int] = {null: number for number, null in enumerate((*WEIGHT_NULLS, *ACTIVITY_NULLS))}
"""Part of the seed of a draw."""

Row = dict[str, Any]


class _Activity(NamedTuple):
    """Co-activation of one layer."""

    layer: int
    sums_FF: np.ndarray
    active: tuple[np.ndarray, ...]
    """Activity in the stored rows of each function; none where tokens were counted."""


@dataclass(frozen=True)
class GraphWorkerFactory:
    """Builds a `GraphWorker` in the process that runs it."""

    uri: str
    digest: str
    """Stands for `prepared` when two factories are compared."""
    n_threads: int
    prepared: PreparedGraphs = field(compare=False, repr=False)

    def __call__(self) -> "GraphWorker":
        """The model is loaded when an item needs its weights."""
        return GraphWorker(self)


class GraphWorker:
    """Runs the items of a graph study; keeps the weights, or the co-activation, of the last layer."""

    def __init__(self, spec: GraphWorkerFactory) -> None:
        self._spec, self._prepared = spec, spec.prepared
        self._weights: tuple[int, Matrices] | None = None
        self._activity: _Activity | None = None

    def __call__(self, item: WorkItem) -> Mapping[str, Any]:
        """Compute and record one item."""
        actions: dict[str, Callable[[], Mapping[str, Any]]] = {
            "identify": self._identify,
            "observe": lambda: self._observe(item),
            "null": lambda: self._draw(item),
            "tests": lambda: compare_with_nulls(self._run, item, self._prepared),
            "agreement": lambda: compare_groups(self._run, item, self._prepared),
        }
        with compute_threads(self._spec.n_threads), threadpool_limits(self._spec.n_threads):
            return actions[item.kind]()

    @cached_property
    def _model(self) -> LoadedModel:
        """The model, on the CPU: its weights are read and nothing is run."""
        return load_model(self._prepared.model.replace(device="cpu", device_map=None))

    @cached_property
    def _run(self) -> Run:
        return open_run(self._spec.uri)

    def _identify(self) -> dict[str, Any]:
        """Who the model is; IdentityError where it is not that of the finished run."""
        identity, source = asdict(self._model.identity), self._prepared.source
        if source is not None:
            recorded = source.manifest.identity["model"]["parameter_hash"]
            if identity["parameter_hash"] != recorded:
                raise IdentityError(
                    f"model {identity['name']!r} is not the one of {source.uri}: parameter hash "
                    f"{identity['parameter_hash']}, recorded is {recorded}; give the checkpoint of the run"
                )
        return {"identity": identity}

    def _observe(self, item: WorkItem) -> dict[str, Any]:
        """Partition one graph by every method."""
        prepared, run, config = self._prepared, self._run, self._prepared.config
        layer, name = item.integer("layer"), item.text("graph")
        graph = self._graph(layer, name)
        n_nodes = run.results(GROUPS, partial=True).sizes["node"]
        groups_MV = np.full((1, len(config.methods), 1, n_nodes), NO_GROUP, np.int32)
        rows: list[Row] = []
        for index, method in enumerate(config.methods):
            labels_V = self._partition(graph, method)
            groups_MV[0, index, 0, : graph.n_nodes] = labels_V
            sizes = np.bincount(labels_V[labels_V != NO_GROUP])
            rows.append(
                {"layer": layer, "graph": name, "method": method, "n_neurons": prepared.width(layer)}
                | _measured(graph, labels_V)
                | {
                    "smallest_group": int(sizes.min()),
                    "largest_group": int(sizes.max()),
                    "n_nodes": graph.n_nodes,
                    "n_isolated": int((labels_V == NO_GROUP).sum()),
                    "n_edges": graph.n_edges,
                    "edge_share": prepared.edge_share(name, layer),  # type: ignore[arg-type]  # from the config
                }
            )
        at = {"graph": prepared.graphs.index(name), "layer": prepared.shape.layers.index(layer)}
        writes = run.write_result(GROUPS, {"group": groups_MV}, at=at)
        run.commit(item, arrays=writes, tables=[run.write_table("graph_partitions", item, _table(rows))])
        return {}

    def _draw(self, item: WorkItem) -> dict[str, Any]:
        """Partition draws of a null by every method, each as the observed graph was."""
        layer, name, null = item.integer("layer"), item.text("graph"), item.text("null")
        rows: list[Row] = []
        for draw in range(item.integer("start"), item.integer("stop")):
            graph = self._graph(layer, name, null, draw)
            for method in self._prepared.config.methods:
                labels_V = self._partition(graph, method)
                head = {"layer": layer, "graph": name, "method": method, "null": null, "draw": draw}
                rows.append(head | _measured(graph, labels_V))
        self._run.commit(item, tables=[self._run.write_table("graph_null", item, _table(rows))])
        return {}

    def _partition(self, graph: Graph, method: str) -> Labels:
        config = self._prepared.config
        if method == "spectral":
            return spectral_partition(graph, config.n_groups, seed=config.seed)
        return leiden_partition(graph, resolution=config.resolution, seed=config.seed)

    def _graph(self, layer: int, name: str, null: str = OBSERVED, draw: int = 0) -> Graph:
        """The observed graph, or a draw of a null; `weights` and `rescaled` have the same draws."""
        seed = (self._prepared.config.seed, layer, _NULL_NUMBERS.get(null, 0), draw)
        rng = np.random.default_rng(seed)
        if name == "coactivation":
            return self._coactivation_graph(layer, null, rng)
        matrices = self._matrices(layer)
        if null == "strengths":
            matrices = tuple(permute_keeping_strengths(matrix, rng) for matrix in matrices)
        elif null != OBSERVED:
            only = null == "permuted_nonzero"
            matrices = tuple(permute_weights(matrix, rng, nonzero_only=only) for matrix in matrices)
        return ffn_graph(rescaled(matrices) if name == "rescaled" else matrices)

    def _matrices(self, layer: int) -> Matrices:
        """Absolute weights of one layer, those of light edges 0."""
        if self._weights is None or self._weights[0] != layer:
            sites, stack = self._model.sites, self._prepared.shape.site.stack
            inputs = [sites.ffn_input_weights(stack, layer)]
            with suppress(InputError):  # there is one matrix where the FFN has no gate
                inputs.append(sites.ffn_input_weights(stack, layer, matrix="up"))
            whole = absolute_weights(inputs, sites.ffn_output_weights(stack, layer))
            share = self._prepared.edge_share("weights", layer)
            self._weights = layer, tuple(keep_heaviest(matrix, share) for matrix in whole)
        return self._weights[1]

    def _coactivation_graph(self, layer: int, null: str, rng: np.random.Generator) -> SparseGraph:
        share = self._prepared.edge_share("coactivation", layer)
        found = self._coactivation(layer)
        if null == "activity":
            mixed = (exchange_activity(active_RF, rng).astype(np.float32) for active_RF in found.active)
            return coactivation_graph(sum(each.T @ each for each in mixed), share)  # type: ignore[arg-type]
        graph = coactivation_graph(found.sums_FF, share)
        return rewire(graph, rng) if null == "degrees" else graph

    def _coactivation(self, layer: int) -> _Activity:
        if self._activity is None or self._activity.layer != layer:
            source, n_threads = self._prepared.source, self._spec.n_threads
            assert source is not None
            index = source.results(PARTITION)["layer"].values.tolist().index(layer)
            width = self._prepared.width(layer)
            sums_FF, _ = coactivation(source, index, width, n_threads=n_threads)
            functions = [each["name"] for each in source.manifest.config["functions"]] if self._prepared.by_rows else []
            active = tuple(active_rows(source, name, index, width, n_threads=n_threads) for name in functions)
            self._activity = _Activity(layer, sums_FF, active)
        return self._activity


def _measured(graph: Graph, labels_V: Labels) -> Row:
    return {
        "n_groups": int(labels_V.max()) + 1,
        "ncut": normalised_cut(graph, labels_V),
        "modularity": newman_modularity(graph, labels_V),
    }


def _table(rows: list[Row]) -> Any:
    return table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
