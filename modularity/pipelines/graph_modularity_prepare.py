"""From the config of a graph study to what its workers need: model, finished run, layers, nulls and work items.

Nothing is computed and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeVar

from modularity.errors import InputError, ModelError
from modularity.models import ModelConfig, ModelDescription, describe_model
from modularity.pipelines.finished_run import analysed_ffn, finished_run
from modularity.pipelines.graph_modularity_config import (
    GraphModularityConfig,
    GraphName,
    NullName,
    nulls_of,
)
from modularity.store import Run
from modularity.types import PARTITION, Site, SiteShape, WorkItem

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class PreparedGraphs:
    """Everything known before the first work item runs."""

    config: GraphModularityConfig
    model: ModelConfig
    source: Run | None
    """The finished run, if there is one."""
    description: ModelDescription
    shape: SiteShape
    """The neurons of the chosen layers."""
    nulls: tuple[tuple[GraphName, tuple[NullName, ...]], ...]
    """Nulls of every graph, in the order of the config."""
    by_rows: bool
    """Whether co-activation is counted in stored rows; False: over tokens, or there is none."""

    @property
    def graphs(self) -> tuple[GraphName, ...]:
        """Kinds of graphs."""
        return tuple(graph for graph, _ in self.nulls)

    def width(self, layer: int) -> int:
        """Neurons of a layer."""
        return self.shape.widths[self.shape.layers.index(layer)]

    def edge_share(self, graph: GraphName, layer: int) -> float:
        """Share of all possible edges that a graph keeps."""
        width = self.width(layer)
        if graph == "coactivation":
            return min(self.config.density, self.config.max_edges / max(width * (width - 1) // 2, 1))
        return min(1.0, self.config.max_edges / (2 * self.description.residual_width * width))

    def n_nodes(self, graph: GraphName, layer: int) -> int:
        """Neurons, and in graphs of weights the channels they read and write."""
        return self.width(layer) + (0 if graph == "coactivation" else 2 * self.description.residual_width)

    def observe_items(self) -> list[WorkItem]:
        """One item for each layer and graph."""
        return [
            WorkItem.of("observe", graph=graph, layer=layer) for layer in self.shape.layers for graph in self.graphs
        ]

    def null_items(self) -> list[WorkItem]:
        """One item for each layer, graph, null and block of draws."""
        n_draws, size = self.config.n_draws, self.config.draws_per_item
        return [
            WorkItem.of("null", graph=graph, layer=layer, null=null, start=start, stop=min(start + size, n_draws))
            for layer in self.shape.layers
            for graph, nulls in self.nulls
            for null in nulls
            for start in range(0, n_draws, size)
        ]

    def last_items(self) -> list[WorkItem]:
        """What brings the draws and the partitions together."""
        return [WorkItem.of("tests"), WorkItem.of("agreement")]

    def items(self) -> list[WorkItem]:
        """All items, in the order of the steps."""
        return [*self.observe_items(), *self.null_items(), *self.last_items()]


def prepare_graphs(config: GraphModularityConfig) -> PreparedGraphs:
    """Read and check everything that a job needs, without loading weights.

    Raises
    ------
    InputError
        With every problem found in the finished run, the model, layers, nulls and packages.
    """
    problems: list[str] = []
    source = None if config.source is None else _attempt(lambda: _source(str(config.source)), problems)
    if "leiden" in config.methods and find_spec("graspologic_native") is None:
        problems.append(
            "methods has 'leiden', which needs the package graspologic-native, and it is not installed: "
            "pip install 'modularity[graph]', or pip install graspologic-native; or set methods=[spectral]"
        )
    model = config.model
    if model is None and source is not None:
        model = ModelConfig.model_validate(source.manifest.config["model"])
    description = None if model is None else _attempt(lambda: describe_model(model), problems)
    shape = None if description is None else _attempt(lambda: _shape(config, source, description), problems)
    by_rows = source is not None and not _counts_tokens(source)
    cut = description is not None and shape is not None and _leaves_out_edges(config, description, shape)
    nulls = tuple((graph, _nulls(config, graph, by_rows, cut)) for graph in config.chosen_graphs)
    problems += [
        f"nulls={list(config.nulls or ())}: co-activation of {config.source} is counted over tokens, and 'activity' "
        "needs stored rows; use 'degrees'"
        for graph, chosen in nulls
        if not chosen and graph == "coactivation"
    ]
    if cut and "strengths" in (config.nulls or ()):
        problems.append(
            f"nulls={list(config.nulls or ())}: 'strengths' needs all edges, and max_edges={config.max_edges:,} leaves "
            "some out; raise max_edges, or use 'permuted' and 'permuted_nonzero'"
        )
    if shape is not None:
        problems += [
            f"n_groups={config.n_groups}: layer {layer} has {width} neurons; expected at most a fourth of them"
            for layer, width in zip(shape.layers, shape.widths)
            if "spectral" in config.methods and 4 * config.n_groups > width
        ]
    if problems or model is None or description is None or shape is None:
        raise InputError(problems)
    return PreparedGraphs(config, model, source, description, shape, nulls, by_rows)


def _nulls(config: GraphModularityConfig, graph: GraphName, by_rows: bool, cut: bool) -> tuple[NullName, ...]:
    known = [null for null in nulls_of(graph) if by_rows or null != "activity"]
    if config.nulls is None:
        # Not every matrix with zeros can be scaled to even sums, as `strengths` does.
        return tuple(null for null in known if null != ("strengths" if cut else "permuted_nonzero"))
    return tuple(null for null in config.nulls if null in known)


def _leaves_out_edges(config: GraphModularityConfig, description: ModelDescription, shape: SiteShape) -> bool:
    """Whether a graph of weights has more edges than allowed."""
    return 2 * description.residual_width * max(shape.widths) > config.max_edges


def _counts_tokens(source: Run) -> bool:
    return "co_activation" in source.manifest.config["reductions"]["kinds"]


def _source(uri: str) -> Run:
    """The finished run; InputError with what it lacks."""
    source = finished_run(uri)
    if PARTITION not in source.result_names():
        raise InputError(
            f"source: {source.uri} has no experts to compare with; run it with analyses=[predictivity, experts]"
        )
    return source


def _shape(config: GraphModularityConfig, source: Run | None, description: ModelDescription) -> SiteShape:
    """Neurons of the chosen layers."""
    stack, known = config.stack or description.stacks[0], None
    if source is not None:
        site = analysed_ffn(source)
        if config.stack not in (None, site.stack):
            raise InputError(f"stack={config.stack!r}: the experts of {source.uri} are of the stack {site.stack!r}")
        stack, known = site.stack, source.results(PARTITION)["layer"].values.tolist()
    site = Site(stack, "ffn.neurons")
    if site not in description.shapes:
        raise InputError(f"stack={stack!r}: this model has {' and '.join(description.stacks)}")
    whole = description.shapes[site]
    layers = config.layers if config.layers is not None else tuple(known or whole.layers)
    outside = sorted(set(layers) - set(whole.layers if known is None else known))
    if outside:
        where = f"the model has {', '.join(map(str, whole.layers))}"
        if source is not None:
            where = f"{source.uri} has experts in {', '.join(map(str, known or ()))}"
        raise InputError(f"layers {outside}: {where}")
    chosen = tuple(sorted(layers))
    widths = tuple(whole.widths[whole.layers.index(layer)] for layer in chosen)
    return SiteShape(site, chosen, widths, whole.unit_dims, (max(widths),))


def _attempt(action: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return action()
    except InputError as error:
        problems.extend(error.problems)
    except ModelError as error:
        problems.append(str(error))
    return None
