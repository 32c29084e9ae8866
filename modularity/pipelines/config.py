"""The config of the Emergent Modularity study: one class per step, put together from the rooms' own configs."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from modularity.capture import CaptureConfig
from modularity.config import Config
from modularity.data import FunctionConfig, declared_function
from modularity.models import ModelConfig
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.runtime import RuntimeConfig

Variant = Literal["corrected", "paper"]
Analysis = Literal["predictivity", "experts", "overlap"]
PartitionMethod = Literal["balanced", "native", "random", "unbalanced", "shuffled", "coactivation", "profile"]
ACTIVITY_METHODS: tuple[PartitionMethod, ...] = ("coactivation", "profile")
"""Partitions by what neurons do on the data of the job; the others are made from weights alone."""
AnalysedSite = Literal["ffn.neurons", "shared_expert.neurons"]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class PredictivityConfig(Config):
    """Neuron predictivity and its null (cards A1, A2, C1)."""

    n_permutations: int = Field(default=200, ge=20)
    """Label permutations, the same for every neuron; the smallest p of a best neuron is 1 / (n_permutations + 1)."""
    n_bootstrap: int = Field(default=1000, ge=100)
    """Resamples of the evaluation examples behind each interval."""
    seed: int = Field(default=0, ge=0)
    """Seed of permutations and resamples."""
    neurons_per_item: int = Field(default=4096, ge=64)
    """Neurons of one layer that one work item ranks."""
    n_top: int = Field(default=10, ge=1)
    """Top neurons of each sub-function that are listed with their examples."""
    n_examples: int = Field(default=5, ge=1)
    """Examples listed for each top neuron, on either side."""


class ExpertsConfig(Config):
    """Partition of the neurons of each layer, and the search for functional experts (cards A4, A5, B1)."""

    n_experts: int = Field(default=16, ge=2)
    """Experts of each layer; must divide the neurons of every layer, and be the model's own number for `native`."""
    methods: tuple[PartitionMethod, ...] = ("balanced", "random", "unbalanced", "shuffled")
    """`balanced`, or `native` in a mixture model, is the partition of the study; the others are its controls. `native`
    are the model's own experts: of the captured layers each must have some (`capture.layers`). `coactivation` (needs
    pymetis) cuts the graph of neurons that are active together: on tokens if `reductions.kinds` has `co_activation`,
    else in stored rows. `profile` groups neurons by what they predict on evaluation rows, and is tested on selection
    rows; there is none in variant `paper`, where all rows are both."""
    from_run: str | None = None
    """Run whose partitions are taken over, by every method: one partition for all checkpoints of a model (card A8). A
    URI, or a path relative to this run such as `../step143000`; None: the run partitions its own neurons."""
    n_restarts: int = Field(default=1, ge=1)
    """Restarts of balanced k-means."""
    seed: int = Field(default=0, ge=0)
    """Seed of all partitions and of the permutations of expert labels."""
    top_fraction: Fraction = 0.01
    """Share of a layer's neurons that counts as a sub-function's top neurons."""
    sensitivity: tuple[Fraction, ...] = (0.005, 0.01, 0.02, 0.05)
    """Top fractions over which proportion and degree are repeated."""
    alpha: float = Field(default=0.001, gt=0, lt=1)
    """Level at which an expert is called functional (variant `paper`)."""
    fdr: float = Field(default=0.05, gt=0, lt=1)
    """False discovery rate over experts, layers and sub-functions that a functional expert keeps (`corrected`)."""
    n_permutations: int = Field(default=1000, ge=100)
    """Permutations of expert labels behind the p-values of degree and concentration."""

    @model_validator(mode="after")
    def _balanced_is_there(self) -> Self:
        if "balanced" not in self.methods and "native" not in self.methods:
            raise ValueError(
                f"methods={list(self.methods)} lacks 'balanced', the partition that the others control for; in a "
                f"mixture model it may be 'native'"
            )
        twice = sorted({method for method in self.methods if self.methods.count(method) > 1})
        if twice:
            raise ValueError(f"methods={list(self.methods)} names {', '.join(twice)} twice; name each method once")
        active = [method for method in self.methods if method in ACTIVITY_METHODS]
        if active and self.from_run is not None:
            raise ValueError(
                f"methods={list(self.methods)} has {' and '.join(active)}, made from a run's own activations, and "
                f"from_run={self.from_run!r} takes partitions over; leave one of the two away"
            )
        return self


class OverlapConfig(Config):
    """Shared top neurons of functions (card A3)."""

    top_fraction: Fraction = 0.0105
    """Share of a layer's neurons that is compared: 32 of 3,072 in the paper."""
    n_permutations: int = Field(default=2000, ge=100)
    """Permutations of which function a sub-function belongs to."""
    seed: int = Field(default=0, ge=0)
    """Seed of the permutations."""


class Allowance(Config):
    """What a job may use; a plan that needs more is refused before any work."""

    store_bytes: int = Field(default=200_000_000_000, gt=0)
    """Bytes that the run may add to the store."""
    worker_bytes: int | None = Field(default=None, gt=0)
    """Host memory of one worker; None: not limited here."""
    hours: float | None = Field(default=None, gt=0)
    """Estimated time; None: not limited."""


class ControlsConfig(Config):
    """Other models that the study is repeated on."""

    random_weights: bool = False
    """Also rank the neurons of the same architecture with random weights (`model.seed`), on the same examples (card
    A2): a second run in the folder `random_weights` of the run, and the table `random_init_predictivity`."""


class EmergentModularityConfig(Config):
    """Do neurons and experts specialise in functions? Zhang Z. et al. 2023, arXiv 2305.18390."""

    job: Literal["emergent_modularity"] = "emergent_modularity"
    """Kind of job; `modularity run FILE` reads it."""
    model: ModelConfig
    """The checkpoint."""
    functions: tuple[Annotated[FunctionConfig, BeforeValidator(declared_function)], ...] = ()
    """The functions, each a set of binary sub-functions; an entry `glue: FOLDER` stands for the tasks of GLUE. At least
    one, or a corpus in `reductions.corpora`."""
    variant: Variant = "corrected"
    """`corrected`: neurons are chosen on one half of the examples and reported on the other, all tests are corrected;
    `paper`: all examples for both, and the paper's threshold for functional experts."""
    analyses: tuple[Analysis, ...] = ("predictivity", "experts", "overlap")
    """What is computed from the activations; empty: they are only captured, for later queries."""
    analysed: AnalysedSite = "ffn.neurons"
    """Neurons that are ranked and partitioned. `shared_expert.neurons` are those of the shared expert of a mixture
    model, a site beside the routed experts, with a value for every token; it must be among `capture.sites`. Another run
    with `--reuse` analyses the other one of the same activations."""
    capture: CaptureConfig = CaptureConfig()
    """What is captured and how."""
    reductions: ReductionsConfig = ReductionsConfig()
    """Statistics of the analysed neurons over all tokens, beside or instead of stored rows."""
    predictivity: PredictivityConfig = PredictivityConfig()
    """Neuron predictivity."""
    experts: ExpertsConfig = ExpertsConfig()
    """Partitions and functional experts."""
    overlap: OverlapConfig = OverlapConfig()
    """Overlap of functions."""
    controls: ControlsConfig = ControlsConfig()
    """Models to compare with."""
    store_text: bool = True
    """Keep the texts in the run, so that the report can show examples."""
    allowance: Allowance = Allowance()
    """Limits on the plan."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Where the work runs; not part of what identifies the results."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = []
        names = [*(function.name for function in self.functions), *(each.name for each in self.reductions.corpora)]
        if not names:
            problems.append("functions=[]: expected at least one function, or a corpus in reductions.corpora")
        elif self.analyses and not self.functions:
            problems.append(
                f"analyses={list(self.analyses)} need functions, and there are corpora only; set analyses=[]"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        what = "functions or corpora" if self.reductions.corpora else "functions"
        if twice:
            problems.append(f"{what} named twice: {', '.join(twice)}; give each its own name")
        if "partition" in names:
            problems.append("a function is named 'partition', the name of the result with the experts; rename it")
        if self.model.device_map is not None and self.runtime.executor == "ray" and not self.runtime.gpus_per_worker:
            problems.append(
                f"model.device_map={self.model.device_map!r} spreads the model over the GPUs of a worker; "
                "say how many with runtime.gpus_per_worker"
            )
        if self.analyses and "predictivity" not in self.analyses:
            problems.append(f"analyses={list(self.analyses)} lacks 'predictivity', which the others are computed from")
        if self.analyses and not self._captures_analysed():
            problems.append(
                f"capture.sites={list(self.capture.sites)} lacks {self.analysed}, which this study analyses"
            )
        if "experts" in self.analyses and self.analysed != "ffn.neurons" and "native" in self.experts.methods:
            problems.append(
                f"experts.methods has 'native', and analysed={self.analysed!r}: a shared expert is one expert, in "
                "which all neurons lie; use 'balanced', which divides it"
            )
        if self.variant == "paper" and "profile" in self.experts.methods:
            problems.append(
                "experts.methods has 'profile' in variant 'paper', where all examples choose and test: experts by "
                "predictivity are then functional by construction; use variant 'corrected', or leave 'profile' away"
            )
        if self.controls.random_weights and self.model.weights == "random":
            problems.append("controls.random_weights: the model itself has random weights; set one of the two")
        if self.controls.random_weights and "predictivity" not in self.analyses:
            problems.append(
                f"controls.random_weights needs 'predictivity', and analyses={list(self.analyses)} lacks it"
            )
        problems += self._reduction_problems()
        for function in self.functions:
            if self.analyses and function.pooling.kind in ("none", "positions"):
                problems.append(
                    f"function {function.name!r} has pooling {function.pooling.kind!r}, several rows per example; the "
                    "analyses rank neurons over one row per example: choose another one, or analyses=[] to capture only"
                )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _reduction_problems(self) -> list[str]:
        problems = []
        if not self.reductions.store_rows and not self.reductions.kinds:
            problems.append("reductions.store_rows is false and reductions.kinds empty: nothing is left to compute")
        if not self.reductions.store_rows and self.analyses:
            problems.append(
                f"analyses={list(self.analyses)} need stored rows, and reductions.store_rows is false; set analyses=[]"
            )
        if self.reductions.corpora and not self.reductions.of_corpora().kinds:
            problems.append(
                f"reductions.corpora have no labels, and reductions.kinds={list(self.reductions.kinds)}; name a kind "
                "besides per_label"
            )
        if self.reductions.kinds and not self._captures_analysed():
            problems.append(
                f"capture.sites={list(self.capture.sites)} lacks {self.analysed}, of which reductions are made"
            )
        return problems

    def _captures_analysed(self) -> bool:
        return any(site.rpartition("/")[2] == self.analysed for site in self.capture.sites)

    def result_digest(self) -> str:
        """Digest of everything that determines the results: the config without runtime, allowance and label words."""
        functions = [function.replace(label_words={}).as_json() for function in self.functions]
        plain = {"runtime": RuntimeConfig().as_json(), "allowance": Allowance().as_json(), "functions": functions}
        return self.replace(**plain).digest()
