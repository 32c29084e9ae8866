"""The plan of a graph study: graphs, edges, memory and time, known before any weight is read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modularity.geometry.graph_partitions import DENSE_NODES
from modularity.pipelines.config import Allowance
from modularity.pipelines.graph_modularity_prepare import PreparedGraphs
from modularity.pipelines.loads import Work, study_loads
from modularity.pipelines.plan import TIME_RANGE, Loads, Remedies, check_allowance
from modularity.pipelines.prepare import probe_flops
from modularity.runtime.executor import available_cpus
from modularity.runtime.memory import resident_bytes
from modularity.runtime.progress import format_bytes, format_duration

LEIDEN_SECONDS_PER_EDGE = 2.0e-6
"""Measured on a graph of 1.2 million edges."""
ROW_BYTES = 120
"""About the size of one row of `graph_null`, before compression."""
_EIGEN_FLOPS = 6.0
"""Of a dense symmetric eigenproblem of size n with a few vectors, in n cubed, at the pace of matrix products."""
_LANCZOS_SECONDS_PER_EDGE = 3.0e-6
"""Some 600 products of a sparse matrix with a vector."""

REMEDIES = Remedies(
    store="choose fewer layers",
    memory="lower max_edges, leave the graph 'coactivation' away",
    time="lower n_draws or max_edges, choose fewer layers, graphs or nulls",
)


@dataclass(frozen=True)
class GraphPlan:
    """Size of a job."""

    items: Mapping[str, int]
    """Work items of each kind."""
    n_partitions: int
    """Graphs that are partitioned, draws included, times methods."""
    graphs: tuple[str, ...]
    """Nodes and edges of the largest graph of each kind, and the share of edges that it keeps."""
    store_bytes: int
    worker_bytes: int
    """Host memory of a worker at its peak, the interpreter with its libraries included."""
    model_bytes: int
    library_bytes: int
    seconds: float
    """Estimated time for one worker like this machine."""
    loads: Loads
    """What it asks of machines elsewhere."""
    notes: tuple[str, ...] = ()
    remedies: Remedies = REMEDIES

    def rows(self) -> list[tuple[str, str]]:
        """Names and values as they are printed."""
        items = ", ".join(f"{count:,} {kind}" for kind, count in self.items.items())
        low, high = (format_duration(factor * self.seconds) for factor in TIME_RANGE)
        graphs = self.worker_bytes - self.model_bytes - self.library_bytes
        return [
            ("work items", f"{sum(self.items.values()):,}: {items}"),
            ("partitions", f"{self.n_partitions:,}"),
            *(("graph", graph) for graph in self.graphs),
            ("store", f"{format_bytes(self.store_bytes)} before compression"),
            ("memory", f"about {format_bytes(self.worker_bytes)} per worker, of which {format_bytes(self.model_bytes)} "
                       f"model, {format_bytes(graphs)} graphs, {format_bytes(self.library_bytes)} libraries"),
            ("time", f"{low} to {high} with one worker" if low != high else f"about {low} with one worker"),
        ]  # fmt: skip

    def text(self) -> str:
        """The plan as lines of text."""
        lines = [f"  {name:<11}{value}" for name, value in self.rows()]
        return "\n".join(["Plan", *lines, *(f"  note: {note}" for note in self.notes)])

    def check(self, allowance: Allowance) -> None:
        """Raise AllowanceError with everything that exceeds the allowance."""
        check_allowance(allowance, self.store_bytes, self.worker_bytes, self.seconds, self.remedies)


def make_graph_plan(prepared: PreparedGraphs) -> GraphPlan:
    """Size of a prepared job."""
    items, config, model = prepared.items(), prepared.config, prepared.description
    draws = {graph: 1 + len(nulls) * config.n_draws for graph, nulls in prepared.nulls}
    n_partitions = sum(draws.values()) * len(prepared.shape.layers) * len(config.methods)
    flops = 0.5 * probe_flops()
    seconds = sum(
        draws[graph] * _seconds(prepared, graph, layer, flops)
        for graph in prepared.graphs
        for layer in prepared.shape.layers
    )
    largest = max(_bytes(prepared, graph, layer) for graph in prepared.graphs for layer in prepared.shape.layers)
    libraries = resident_bytes()
    nodes = max(prepared.n_nodes(graph, layer) for graph in prepared.graphs for layer in prepared.shape.layers)
    groups = 4 * nodes * len(prepared.graphs) * len(prepared.shape.layers) * len(config.methods)
    store_bytes = groups + n_partitions * ROW_BYTES
    memory = model.parameter_bytes + largest
    loads = study_loads(
        prepared.model,
        config.runtime,
        Work(0.0, seconds * available_cpus(), flops),
        n_parallel=len(prepared.observe_items()) + len(prepared.null_items()),
        dtype=model.dtype,
        weight_bytes=model.parameter_bytes,
        device_bytes=0,
        beside_gpu_bytes=memory,
        host_bytes=memory,
        store_bytes=store_bytes,
        library_bytes=libraries,
    )
    return GraphPlan(
        items={kind: sum(item.kind == kind for item in items) for kind in dict.fromkeys(item.kind for item in items)},
        n_partitions=n_partitions,
        graphs=tuple(_graph_texts(prepared)),
        store_bytes=store_bytes,
        worker_bytes=libraries + memory,
        model_bytes=model.parameter_bytes,
        library_bytes=libraries,
        seconds=seconds,
        loads=replace(loads, may_use_gpu=False, needs_gpu=False),
        notes=tuple(_notes(prepared)),
    )


def _widest(prepared: PreparedGraphs) -> int:
    return max(prepared.shape.layers, key=lambda layer: (prepared.width(layer), -layer))


def _all_pairs(prepared: PreparedGraphs, graph: str, layer: int) -> int:
    width = prepared.width(layer)
    return width * (width - 1) // 2 if graph == "coactivation" else 2 * prepared.description.residual_width * width


def _n_edges(prepared: PreparedGraphs, graph: str, layer: int) -> int:
    return int(prepared.edge_share(graph, layer) * _all_pairs(prepared, graph, layer))  # type: ignore[arg-type]


def _seconds(prepared: PreparedGraphs, graph: str, layer: int, flops: float) -> float:
    """One graph, made and partitioned by every method."""
    methods, width, edges = prepared.config.methods, prepared.width(layer), _n_edges(prepared, graph, layer)
    total = 2e-8 * _all_pairs(prepared, graph, layer)
    if "leiden" in methods:
        total += LEIDEN_SECONDS_PER_EDGE * edges
    if "spectral" in methods:
        channels = 2 * prepared.description.residual_width
        small = width if graph == "coactivation" else min(width, channels)
        square = 0 if graph == "coactivation" else 2 * width * channels * small
        dense = (square + _EIGEN_FLOPS * small**3) / flops
        total += 0.1 + (dense if small <= DENSE_NODES else _LANCZOS_SECONDS_PER_EDGE * edges)
    if graph == "coactivation" and prepared.by_rows:
        total += 2 * _n_rows(prepared) * width**2 / flops
    return total


def _bytes(prepared: PreparedGraphs, graph: str, layer: int) -> int:
    """Memory of one graph with what it is made of; edges stand in both directions, and Leiden copies them."""
    width, edges = prepared.width(layer), _n_edges(prepared, graph, layer)
    both_ends = 2 * edges * 12
    copies = 3 * both_ends + 2 * edges * 16
    if graph == "coactivation":
        activity = _n_rows(prepared) * width * 6 if prepared.by_rows else 0
        return 8 * width**2 * (4 if width <= DENSE_NODES else 2) + width**2 + activity + copies
    channels = 2 * prepared.description.residual_width
    small = min(width, channels)
    return 52 * width * channels + (24 * small**2 if small <= DENSE_NODES else 2 * both_ends) + copies


def _n_rows(prepared: PreparedGraphs) -> int:
    if prepared.source is None:
        return 0
    run = prepared.source
    return sum(len(run.coordinates(name)["example"]) for name in run.functions())


def _graph_texts(prepared: PreparedGraphs) -> Iterator[str]:
    layer = _widest(prepared)
    for graph in prepared.graphs:
        share = prepared.edge_share(graph, layer)
        kept = "all edges" if share == 1 else f"the heaviest {100 * share:.3g} %"
        yield (
            f"{graph}: {prepared.n_nodes(graph, layer):,} nodes, {_n_edges(prepared, graph, layer):,} edges ({kept}) "
            f"in layer {layer}"
        )


def _notes(prepared: PreparedGraphs) -> Iterator[str]:
    config, layers = prepared.config, prepared.shape.layers
    for graph in prepared.graphs:
        cut = [layer for layer in layers if prepared.edge_share(graph, layer) < 1]
        if graph != "coactivation" and cut:
            yield (
                f"graph {graph}: {_listed(cut, layers)} more edges than max_edges="
                f"{config.max_edges:,}: the heaviest weights of every matrix are kept, the others count as no edge"
            )
        if graph == "coactivation":
            counted = "stored rows" if prepared.by_rows else "tokens"
            yield (
                f"graph coactivation: counted in {counted}; pairs below the heaviest "
                f"{100 * min(prepared.edge_share(graph, layer) for layer in layers):.3g} % are no edges"
            )
    if prepared.source is None:
        yield "without source there are no co-activations, and no experts to compare the groups with"


def _listed(some: Sequence[int], layers: Sequence[int]) -> str:
    """`layers 0, 2 have`, or `all layers have`."""
    if len(some) == len(layers) > 1:
        return "all layers have"
    return f"layer {some[0]} has" if len(some) == 1 else f"layers {', '.join(map(str, some))} have"
