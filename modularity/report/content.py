"""Everything that the report page shows, as plain values: no store, no model, no drawing.

A pipeline fills these dataclasses from a run; tests fill them with synthetic values. Arrays may be handed over as any
sequence, are converted to float64 and checked against each other; a value that is not known is NaN (inside an array) or
None (a whole part). Letters as in `modularity.types`, and here also Q top fractions and Y rows of a heat map.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from modularity.errors import DataError

if TYPE_CHECKING:
    from modularity.report.activity import Activity
    from modularity.report.graph_study import GraphStudy
    from modularity.report.moefication import ExpertSelection
    from modularity.report.perturbation import Perturbation
    from modularity.report.pruning import Pruning
    from modularity.report.restricted_routing import RoutingStudy
    from modularity.report.scan_content import ScanContent

FloatArray = npt.NDArray[np.float64]
ANALYSES = ("predictivity", "overlap", "experts", "sensitivity", "neurons")
"""Sections of a run with functions."""
Strength = Literal["supported", "unsupported", "descriptive"]


def _set(owner: object, name: str, shape: tuple[int, ...], *, dtype: type = np.float64) -> None:
    """Replace field `name` by an array of exactly this shape; one that is None stays None."""
    value = getattr(owner, name)
    if value is None:
        return
    array: npt.NDArray[np.generic] = np.asarray(value, dtype=dtype)
    if array.shape != shape:
        raise DataError(f"{type(owner).__name__}.{name} has shape {array.shape}, expected {shape}")
    object.__setattr__(owner, name, array)


@dataclass(frozen=True)
class SubFunction:
    """One binary-labelled set of examples."""

    name: str
    n_selection: int
    """Examples on which neurons were chosen."""
    n_evaluation: int
    """Other examples, on which the chosen neurons were scored."""
    share_positive: float
    """Share of positive labels, 0 to 1."""


@dataclass(frozen=True)
class FunctionSummary:
    """What was put in for one function."""

    name: str
    kind: str
    source: str
    pooling: str
    subfunctions: tuple[SubFunction, ...]
    n_examples: int
    n_tokens: int
    n_truncated: int
    n_significant: int | None = None
    """Neurons of all layers that predict at least one sub-function at false discovery rate `RunSummary.fdr`."""


@dataclass(frozen=True)
class RunSummary:
    """What was run, in the few values that head the page."""

    model: str
    site: str
    layers: tuple[int, ...]
    n_neurons: int
    """Neurons of all layers together."""
    n_permutations: int
    """Label permutations behind the null; 0 when there is none."""
    n_experts: int | None = None
    """Experts of each layer."""
    fdr: float = 0.05
    created: str = ""


@dataclass(frozen=True, eq=False)
class FunctionCurve:
    """Best predictivity per layer of one function, mean over sub-functions (Emergent Modularity, Fig. 1 left)."""

    function: str
    layers: tuple[int, ...]
    best_L: FloatArray
    """Value on evaluation examples of the neurons that were best on selection examples."""
    low_L: FloatArray
    high_L: FloatArray
    """Ends of the interval of `best_L`."""
    null_L: FloatArray
    """Mean over label permutations of the best neuron's value."""
    null_high_L: FloatArray
    """Upper end of the null band (95th percentile)."""
    n_subfunctions: int
    n_neurons: int
    """Neurons of one layer, the candidates for each best."""
    null_low_L: FloatArray | None = None
    """Lower end of the null band (5th percentile); without it the band starts at `null_L`."""
    selection_L: FloatArray | None = None
    """Value on selection examples, where the null holds; the best layer is chosen by it when it is given."""
    p_value_L: FloatArray | None = None
    """Max-statistic p over the neurons of each layer."""
    p_value: float | None = None
    """Max-statistic p over the neurons of all layers."""
    random_L: FloatArray | None = None
    """As `best_L`, of the same architecture with random weights on the same examples."""
    random_low_L: FloatArray | None = None
    random_high_L: FloatArray | None = None
    """Ends of the interval of `random_L`."""
    random_p_value_L: FloatArray | None = None
    """As `p_value_L`, of these."""

    def __post_init__(self) -> None:
        arrays = (
            "best_L",
            "low_L",
            "high_L",
            "null_L",
            "null_high_L",
            "null_low_L",
            "selection_L",
            "p_value_L",
            "random_L",
            "random_low_L",
            "random_high_L",
            "random_p_value_L",
        )
        for name in arrays:
            _set(self, name, (len(self.layers),))


@dataclass(frozen=True, eq=False)
class Heatmap:
    """A value for every row and layer: rows are functions, or sub-functions grouped by function."""

    name: str
    """Short key, part of the figure's name: `functions` or `subfunctions`."""
    title: str
    row_names: tuple[str, ...]
    row_groups: tuple[str, ...]
    """The function of each row, equal to `row_names` for functions."""
    layers: tuple[int, ...]
    value_YL: FloatArray
    low_YL: FloatArray | None = None
    high_YL: FloatArray | None = None
    p_value_YL: FloatArray | None = None
    """Corrected p of the best neuron where it was chosen, on selection examples; cells of at most 0.05 get a dot."""
    p_name: str = "q"
    """Name of it, with its family."""
    chance: float | None = None
    """Value of the best neuron under permuted labels, marked on the colour scale."""

    def __post_init__(self) -> None:
        for name in ("value_YL", "low_YL", "high_YL", "p_value_YL"):
            _set(self, name, (len(self.row_names), len(self.layers)))
        _same_length(self, "row_groups", self.row_groups, len(self.row_names))


@dataclass(frozen=True, eq=False)
class AgreementMatrix:
    """Agreement of every two partitions of the neurons of each layer."""

    pairs: tuple[str, ...]
    layers: tuple[int, ...]
    value_YL: FloatArray
    """Adjusted Rand index, 0 at chance."""
    q_value_YL: FloatArray
    """Corrected permutation p over all cells."""
    null_sd: float
    """Largest standard deviation of the index under permutation."""
    n_permutations: int

    def __post_init__(self) -> None:
        for name in ("value_YL", "q_value_YL"):
            _set(self, name, (len(self.pairs), len(self.layers)))


@dataclass(frozen=True, eq=False)
class OverlapMatrix:
    """Shared top neurons of every pair, averaged over layers (Emergent Modularity, Fig. 1 right)."""

    name: str
    """Short key: `functions` or `subfunctions`."""
    title: str
    names: tuple[str, ...]
    groups: tuple[str, ...]
    """The function of each entry, equal to `names` for functions."""
    value_SS: FloatArray
    """Symmetric; the diagonal of a sub-function matrix is a self-pair and not drawn, that of a function matrix is the
    mean over pairs of different sub-functions of that function."""
    chance: float
    """Expected value for independent sets of k out of N neurons, k/N for the top-k overlap."""
    k: int
    n_neurons: int
    """Neurons of one layer."""
    n_layers: int
    p_value_SS: FloatArray | None = None
    p_name: str = "p"
    block_p_value: float | None = None
    """p of overlap within functions above that between functions, by permuting which function each list belongs to."""
    statistic: str = "share of top neurons in common"
    self_pairs: bool = True
    """True when the diagonal pairs an entry with itself."""
    label_value_SS: FloatArray | None = None
    """Mean value under permuted labels."""
    label_p_SS: FloatArray | None = None
    """p under permuted labels, not corrected; shown with each pair, without a mark."""

    def __post_init__(self) -> None:
        for name in ("value_SS", "p_value_SS", "label_value_SS", "label_p_SS"):
            _set(self, name, (len(self.names), len(self.names)))
        _same_length(self, "groups", self.groups, len(self.names))


@dataclass(frozen=True, eq=False)
class ExpertControl:
    """Proportion and degree of the same top neurons under another partition."""

    name: str
    """`random partition` or `shuffled weights`."""
    proportion_L: FloatArray
    degree_L: FloatArray


@dataclass(frozen=True)
class ExpertTest:
    """Functional experts of one function over all layers against two nulls; a cell is a sub-function and an expert."""

    n_functional: int
    n_cells: int
    mean_labels: float
    """Mean number of functional cells under permuted labels."""
    p_labels: float
    """Share of label permutations with as many: do the experts carry the function?"""
    mean_partitions: float
    """Mean number of functional cells when the same lists fall into random partitions."""
    p_partitions: float
    """Share of random partitions with as many: do these lists gather in these experts?"""


@dataclass(frozen=True, eq=False)
class ExpertCurve:
    """Functional experts of one function per layer, averaged over its sub-functions (Emergent Modularity, Table 1)."""

    function: str
    layers: tuple[int, ...]
    proportion_L: FloatArray
    """Share of experts that are functional for a sub-function."""
    degree_L: FloatArray
    """Modularisation degree: mean over functional experts of the count over k divided by expert share; 0 when none."""
    controls: tuple[ExpertControl, ...]
    n_subfunctions: int
    n_experts: int
    k: int
    """Top neurons of each sub-function."""
    alpha: float
    """Level of the test that calls an expert functional."""
    p_value: float | None = None
    """p of the mean degree over layers, by permuting the labels of the examples."""
    criterion: str = ""
    """The test in words, where it is not an exact test of each expert at `alpha`."""
    test: ExpertTest | None = None
    """What the headline says."""
    p_partitions: float | None = None
    """As `p_value`, by shuffling the experts over the neurons."""

    def __post_init__(self) -> None:
        for owner in (self, *self.controls):
            for name in ("proportion_L", "degree_L"):
                _set(owner, name, (len(self.layers),))


@dataclass(frozen=True, eq=False)
class ExpertMap:
    """How many top neurons of each sub-function (or function) lie in each expert of one layer."""

    layer: int
    row_names: tuple[str, ...]
    row_groups: tuple[str, ...]
    count_SE: FloatArray
    expected_SE: FloatArray
    """Expected counts for neurons drawn at random: k times the expert's share; one row is enough for all."""
    functional_SE: npt.NDArray[np.bool_]
    k: int
    alpha: float
    p_value_SE: FloatArray | None = None
    criterion: str = ""
    """As in `ExpertCurve`."""

    def __post_init__(self) -> None:
        _set(self, "count_SE", (len(self.row_names), np.shape(self.count_SE)[-1]))
        shape = self.count_SE.shape
        if np.ndim(self.expected_SE) == 1:
            expected = np.broadcast_to(np.asarray(self.expected_SE, dtype=np.float64), shape)
            object.__setattr__(self, "expected_SE", expected)
        _set(self, "expected_SE", shape)
        _set(self, "functional_SE", shape, dtype=np.bool_)
        _set(self, "p_value_SE", shape)
        _same_length(self, "row_groups", self.row_groups, len(self.row_names))


@dataclass(frozen=True, eq=False)
class SensitivityCurve:
    """Proportion and degree of one function, mean over layers, for several top fractions."""

    function: str
    fractions_Q: FloatArray
    """Top fractions, 0 to 1, ascending."""
    proportion_Q: FloatArray
    degree_Q: FloatArray
    random_proportion_Q: FloatArray
    random_degree_Q: FloatArray
    """Exact expectation over random partitions."""
    n_layers: int
    k_Q: FloatArray | None = None
    """Top neurons of one list, in the narrowest layer."""
    asked_Q: FloatArray | None = None
    """The fraction of that layer's neurons, before it is made a whole number of at least 1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fractions_Q", np.asarray(self.fractions_Q, dtype=np.float64))
        for name in ("proportion_Q", "degree_Q", "random_proportion_Q", "random_degree_Q", "k_Q", "asked_Q"):
            _set(self, name, (len(self.fractions_Q),))


@dataclass(frozen=True)
class ExampleValue:
    """One example and a neuron's activation on it."""

    text: str
    value: float
    positive: bool | None
    """Its label for the neuron's sub-function; None when it does not belong to it."""
    example: str = ""
    """Id in the data."""
    target: tuple[int, int] | None = None
    """Character span that pooling was limited to."""


@dataclass(frozen=True)
class TopNeuron:
    """One neuron that was among the best on selection examples, with its values on evaluation examples."""

    layer: int
    neuron: int
    function: str
    subfunction: str
    polarity: int
    """+1 when it is higher on positive examples, -1 when it is higher on negative ones."""
    ap_selection: float
    ap_evaluation: float
    """Average precision, not normalised."""
    floor: float
    """Average precision of a constant neuron on the evaluation examples."""
    normalised: float
    """(ap_evaluation - floor) / (1 - floor)."""
    n_evaluation: int
    auroc: float | None = None
    q_value: float | None = None
    low: float | None = None
    high: float | None = None
    """Ends of the interval of `normalised`."""
    expert: int | None = None
    functional: bool | None = None
    """Whether that expert is functional for the sub-function."""
    highest: tuple[ExampleValue, ...] = ()
    lowest: tuple[ExampleValue, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One headline sentence."""

    text: str
    strength: Strength
    """supported: p at most 0.05 after correction; unsupported: above it; descriptive: not tested."""
    subject: str = ""
    """The function that it is about; `text` then begins with it."""
    section: str = ""
    """Anchor of the section that shows it: `predictivity`, `overlap`, `experts`, `sensitivity`."""


@dataclass(frozen=True)
class ProvenanceGroup:
    """A titled list of names and values, such as the model's identity or the versions."""

    title: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Provenance:
    """What is needed to judge and repeat the run."""

    groups: tuple[ProvenanceGroup, ...]
    commands: tuple[tuple[str, str], ...] = ()
    """(what it does, command line) pairs."""
    config: str = ""
    """Resolved config as JSON or YAML text."""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """The whole page. Parts that a run did not compute are left empty and the page says so."""

    title: str
    run: RunSummary
    functions: tuple[FunctionSummary, ...]
    provenance: Provenance
    curves: tuple[FunctionCurve, ...] = ()
    heatmaps: tuple[Heatmap, ...] = ()
    overlaps: tuple[OverlapMatrix, ...] = ()
    expert_curves: tuple[ExpertCurve, ...] = ()
    function_expert_curves: tuple[ExpertCurve, ...] = ()
    """As `expert_curves`, of the functions as wholes: the lists of their sub-functions together."""
    expert_maps: tuple[ExpertMap, ...] = ()
    agreement: AgreementMatrix | None = None
    sensitivity: tuple[SensitivityCurve, ...] = ()
    neurons: tuple[TopNeuron, ...] = ()
    metric: str = "normalised AP"
    """Name of the value in `curves` and `heatmaps`."""
    interval: str = "95 % bootstrap interval"
    held_out: bool = True
    """False when neurons were scored on the examples on which they were chosen (variants `paper` and `released`)."""
    notes: tuple[str, ...] = ()
    """Remarks on this run: truncated texts, ties at a boundary, deviations."""
    findings: tuple[Finding, ...] = field(default=())
    """Further findings, shown after the computed ones."""
    perturbation: "Perturbation | None" = None
    """What became of tasks while neurons were changed."""
    tuning: "RoutingStudy | None" = None
    """Accuracy after fine-tuning with some experts."""
    selection: "ExpertSelection | None" = None
    """What is kept when every token runs only some experts."""
    graphs: "GraphStudy | None" = None
    """How far graphs of weights and of co-activations divide into groups."""
    activities: "tuple[Activity, ...]" = ()
    """Activity over all tokens of functions and corpora, from reductions."""
    pruning: "Pruning | None" = None
    """What became of two capabilities while units were removed."""
    scan: "ScanContent | None" = None
    """A checkpoint scan that is shown as a section (`training`) of this page."""
    sections: tuple[str, ...] = ANALYSES
    """Sections that this kind of run has; those without content say so."""

    @property
    def scored_on(self) -> str:
        """The examples on which neurons were scored, in words."""
        return "held-out examples" if self.held_out else "the examples they were chosen on"

    def function_order(self) -> tuple[str, ...]:
        """Names of all functions, in the order in which they get their colours."""
        names = [function.name for function in self.functions]
        parts: tuple[Sequence[FunctionCurve | ExpertCurve | SensitivityCurve], ...] = (
            self.curves,
            self.expert_curves,
            self.function_expert_curves,
            self.sensitivity,
        )
        names += [curve.function for part in parts for curve in part]
        names += [group for heatmap in self.heatmaps for group in heatmap.row_groups]
        names += [group for matrix in self.overlaps for group in matrix.groups]
        names += [group for each in self.expert_maps for group in each.row_groups]
        return tuple(dict.fromkeys(names))


def _same_length(owner: object, name: str, value: tuple[str, ...], length: int) -> None:
    if len(value) != length:
        raise DataError(f"{type(owner).__name__}.{name} has {len(value)} entries, expected {length}, one for each row")
