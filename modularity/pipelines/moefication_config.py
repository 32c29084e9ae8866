"""The config of the MoEfication study: which dense layers are divided into experts, how, who selects, and on what."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from modularity.config import Config
from modularity.data import FunctionConfig, HalvedTextsConfig, declared_function
from modularity.models import ModelConfig
from modularity.pipelines.config import Allowance
from modularity.pipelines.perturbation_config import Word
from modularity.runtime import RuntimeConfig
from modularity.types import StackName

RouterName = Literal["oracle", "parameter", "mlp", "random"]
ExpertsBy = Literal["balanced", "coactivation", "random", "unbalanced", "shuffled", "profile"]
MADE_HERE: tuple[ExpertsBy, ...] = ("balanced", "coactivation", "random")
"""Partitions that the job makes itself; the others are taken from a finished run."""
CONTROL = "random"
"""Partition and router that know nothing: the null of the others."""
ShareOfExperts = Annotated[float, Field(gt=0, le=1)]
PAPER_EXPERT = 32
"""Neurons of an expert in the paper."""


class RouterTrainingConfig(Config):
    """How MLP routers are trained (card B3); the defaults are the paper's."""

    share: ShareOfExperts = 0.2
    """Share of experts by whose mass the epochs are compared; it is also the share that the findings speak of."""
    n_epochs: int = Field(default=30, ge=1)
    """Passes over the tokens; the one that keeps the most mass on the held-out tokens counts."""
    rows_per_batch: int = Field(default=512, ge=1)
    """Tokens of one step."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Of Adam."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training tokens, those of whole texts as far as possible, by which the epochs are compared."""
    tokens: int = Field(default=20_000, ge=20)
    """Tokens to learn from; whole texts of the selection half are drawn until there are as many."""


class ExportConfig(Config):
    """The divided model as a Hugging Face checkpoint."""

    folder: str = Field(min_length=1)
    """New or empty local folder."""
    partition: ExpertsBy | None = None
    """Whose experts; None = the first of `partitions`."""
    seed: int | None = None
    """Of which seed; None = the first of `seeds`."""


class MoeficationConfig(Config):
    """What is kept when every token runs only some experts of each FFN? Zhang Z. et al. 2022, arXiv 2110.01786."""

    job: Literal["moefication"] = "moefication"
    """Kind of job; `modularity run FILE` reads it."""
    source: str | None = None
    """Folder or URI of a finished run of `emergent_modularity`: its partitions, and its model and functions where none
    are given. None: the job makes its partitions."""
    model: ModelConfig | None = None
    """The checkpoint, dense and with its LM head; None = that of the run. It must be the same checkpoint."""
    functions: tuple[Annotated[FunctionConfig, BeforeValidator(declared_function)], ...] | None = Field(
        default=None, min_length=1
    )
    """Labelled texts: routers learn from the selection half, all is measured on the evaluation half. None = those of
    the run where there are no `texts`."""
    texts: tuple[HalvedTextsConfig, ...] = ()
    """Texts without labels, divided and used as those of functions."""
    label_words: dict[str, tuple[Word, Word]] | None = None
    """Tasks: for each sub-function (`function/sub-function` where the name alone is not clear) the words by which the
    model answers label 1 and label 0. None: those that the functions declare; empty: no task."""
    first_token: bool = False
    """Read the first token of label words that are several tokens; such words are refused otherwise."""
    templates: dict[str, str] = Field(default_factory=dict)
    """By function, or by `function/part`: the text in which the model is asked, as in the perturbation job."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longer texts lose their end; None = the limit of the model, or 512 where it has none."""
    partitions: tuple[ExpertsBy, ...] = ("balanced", "coactivation", "random")
    """How neurons are divided. `balanced` (k-means of the input weights), `coactivation` (needs pymetis; on the tokens
    that routers learn from) and `random` are made here, another for each seed; a run gives its own instead of the first
    two, and `unbalanced`, `shuffled` and `profile`. `random` is the control."""
    n_experts: int | None = Field(default=None, ge=2)
    """Experts of each layer, must divide its neurons; None: as many as in the run, or experts of 32 neurons each."""
    routers: tuple[RouterName, ...] = ("oracle", "parameter", "mlp", "random")
    """Who selects the experts of a token: the activations themselves, the nearest mean of input weights, a trained
    network, or a router that nothing has taught, the control."""
    shares: tuple[ShareOfExperts, ...] = Field(default=(0.1, 0.2, 0.3, 0.5, 1.0), min_length=1)
    """Shares of the experts that every token keeps, in all layers; rounded up to whole experts."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Random states of partitions, of the training of routers and of the random router."""
    stack: StackName | None = None
    """The stack that is divided; None = the first of the model."""
    layers: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Layers that are divided; None = all of the stack."""
    mass: Literal["absolute", "positive"] = "absolute"
    """Mass of an expert: the sum of |activation|, or the paper's sum of ReLU(activation), the same in a ReLU model."""
    training: RouterTrainingConfig = RouterTrainingConfig()
    """How MLP routers are trained."""
    evaluation_tokens: int = Field(default=50_000, ge=20)
    """Tokens on which mass and predictions are measured; whole texts of the evaluation half are drawn until there are
    as many. Tasks are measured on all of their examples in this half."""
    tokens_per_batch: int = Field(default=8192, ge=16)
    """Size of a batch, padding counted."""
    n_bootstrap: int = Field(default=1000, ge=100)
    """Resamples of the texts behind each interval."""
    export: ExportConfig | None = None
    """Write the divided model as a checkpoint, load it, and compare its logits."""
    allowance: Allowance = Allowance()
    """Limits on the plan."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Where the work runs; not part of what identifies the results."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = [
            f"{name}={list(values)} has a value twice; name each once"
            for name, values in (
                ("partitions", self.partitions),
                ("routers", self.routers),
                ("shares", self.shares),
                ("seeds", self.seeds),
                ("layers", self.layers or ()),
            )
            if len(set(values)) < len(values)
        ]
        if CONTROL not in self.partitions:
            problems.append(f"partitions={list(self.partitions)} lacks 'random', the control of the others")
        if CONTROL not in self.routers:
            problems.append(f"routers={list(self.routers)} lacks 'random', the control of the others")
        names = [each.name for each in self.functions or ()] + [each.name for each in self.texts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            problems.append(f"functions or texts named twice: {', '.join(twice)}; give each its own name")
        if min(self.seeds) < 0:
            problems.append(f"seeds={list(self.seeds)}: expected numbers from 0 up")
        if self.source is None:
            problems += self._problems_without_a_run()
        problems += [
            f"label_words of {name!r} are {words[0]!r} twice; labels need different words"
            for name, words in (self.label_words or {}).items()
            if words[0] == words[1]
        ]
        if self.export is not None:
            problems += self._export_problems(self.export)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems_without_a_run(self) -> list[str]:
        lacking = ["model"] if self.model is None else []
        lacking += ["functions"] if self.functions is None and not self.texts else []
        problems = [
            f"{name} is missing, and there is no source to take it from; name one of the two" for name in lacking
        ]
        foreign = [name for name in self.partitions if name not in MADE_HERE]
        if foreign:
            problems.append(
                f"partitions={list(self.partitions)}: {', '.join(foreign)} can only be taken from a finished run; name "
                f"it as source, or choose among {', '.join(MADE_HERE)}"
            )
        return problems

    def _export_problems(self, export: ExportConfig) -> list[str]:
        problems = []
        if "://" in export.folder:
            problems.append(f"export.folder={export.folder!r}: expected a local folder; copy it elsewhere afterwards")
        if export.partition is not None and export.partition not in self.partitions:
            problems.append(f"export.partition={export.partition!r} is not among partitions {list(self.partitions)}")
        if export.seed is not None and export.seed not in self.seeds:
            problems.append(f"export.seed={export.seed} is not among seeds {list(self.seeds)}")
        return problems
