"""The config of the graph study: which graphs of a model are cut into groups, how, and against which nulls."""

from typing import Literal, Self

from pydantic import Field, model_validator

from modularity.config import Config
from modularity.models import ModelConfig
from modularity.pipelines.config import Allowance, Fraction
from modularity.runtime import RuntimeConfig
from modularity.types import StackName

GraphName = Literal["weights", "rescaled", "coactivation"]
GraphMethod = Literal["spectral", "leiden"]
NullName = Literal["permuted", "permuted_nonzero", "strengths", "degrees", "activity"]
WEIGHT_GRAPHS: tuple[GraphName, ...] = ("weights", "rescaled")
WEIGHT_NULLS: tuple[NullName, ...] = ("permuted", "permuted_nonzero", "strengths")
ACTIVITY_NULLS: tuple[NullName, ...] = ("degrees", "activity")


def nulls_of(graph: GraphName) -> tuple[NullName, ...]:
    """Nulls that exist for a kind of graph."""
    return WEIGHT_NULLS if graph in WEIGHT_GRAPHS else ACTIVITY_NULLS


class GraphModularityConfig(Config):
    """Do weights, or activity, divide a layer's neurons into groups? Filan et al. 2021 (card D7)."""

    job: Literal["graph_modularity"] = "graph_modularity"
    """Kind of job; `modularity run FILE` reads it."""
    model: ModelConfig | None = None
    """The checkpoint; None: that of `source`."""
    source: str | None = None
    """Finished run of `emergent_modularity` on the same checkpoint: co-activation is that of its data, and its experts
    are compared with the groups found here. None: graphs of weights only, for which no text is needed."""
    stack: StackName | None = None
    """Stack whose FFNs are taken; None: that of `source`, else the model's first."""
    layers: tuple[int, ...] | None = None
    """Layers; None: those with experts in `source`, else all."""
    graphs: tuple[GraphName, ...] | None = Field(default=None, min_length=1)
    """`weights`: |w| between a layer's neurons and the channels they read and write; `rescaled`: the same after every
    neuron's mean incoming weight is made 1 and its outgoing ones are multiplied instead; `coactivation`: of neurons.
    None: `weights` and `rescaled`, and with `source` also `coactivation`."""
    methods: tuple[GraphMethod, ...] = Field(default=("spectral", "leiden"), min_length=1)
    """`spectral`: `n_groups` groups of little cut; `leiden`: as many groups as give the highest Q (needs
    graspologic-native)."""
    nulls: tuple[NullName, ...] | None = Field(default=None, min_length=1)
    """Of weights, within each matrix. `permuted`: all change places; `permuted_nonzero`: those that are not 0 do, which
    differs where edges were left out; `strengths`: permuted, but every node keeps the sum of its weights; only
    where no edge is left out. Of co-activation. `degrees`: edges rewired, every neuron keeps its number of edges;
    `activity`: activity exchanged between rows, every neuron and every row keeps how often it is active (stored rows
    only). None: all that apply, `permuted_nonzero` only where edges are left out."""
    n_groups: int = Field(default=12, ge=2)
    """Groups of the spectral partition."""
    resolution: float = Field(default=1.0, gt=0)
    """Of Leiden: above 1 it finds more and smaller groups."""
    n_draws: int = Field(default=50, ge=19)
    """Draws of each null, each partitioned anew; the smallest p is 1 / (n_draws + 1)."""
    draws_per_item: int = Field(default=10, ge=1)
    """Draws of one work item."""
    density: Fraction = 0.1
    """Share of the pairs of neurons, those with most co-activation, that are edges of the co-activation graph."""
    max_edges: int = Field(default=4_000_000, ge=100)
    """Most edges of one graph. Of a larger one the heaviest weights are kept, the same share of every matrix; the plan
    names the share."""
    n_permutations: int = Field(default=1000, ge=100)
    """Permutations behind the p of an agreement."""
    seed: int = Field(default=0, ge=0)
    """Of partitions, draws and permutations."""
    allowance: Allowance = Allowance()
    """Limits on the plan."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Where the work runs; not part of what identifies the results."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = [
            f"{name}={list(values)} has a value twice; name each once"
            for name, values in (
                ("layers", self.layers or ()),
                ("graphs", self.graphs or ()),
                ("methods", self.methods),
                ("nulls", self.nulls or ()),
            )
            if len(set(values)) < len(values)
        ]
        if self.model is None and self.source is None:
            problems.append("neither model nor source is given; name a checkpoint, a finished run, or both")
        if self.source is None and "coactivation" in (self.graphs or ()):
            problems.append("graphs has 'coactivation', which needs the activations of a run; give source")
        for graph in self.chosen_graphs:
            if self.nulls is not None and not set(self.nulls) & set(nulls_of(graph)):
                problems.append(
                    f"nulls={list(self.nulls)} has none for the graph {graph!r}: expected one of "
                    f"{', '.join(nulls_of(graph))}"
                )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def chosen_graphs(self) -> tuple[GraphName, ...]:
        """The graphs, with the default put in."""
        if self.graphs is not None:
            return self.graphs
        return WEIGHT_GRAPHS if self.source is None else (*WEIGHT_GRAPHS, "coactivation")
