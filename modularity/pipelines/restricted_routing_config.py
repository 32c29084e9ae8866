"""The config of the fine-tuning study with restricted routing: what is trained, how, and which experts are allowed."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from modularity.config import Config
from modularity.models import ModelConfig
from modularity.pipelines.config import Allowance, Fraction
from modularity.pipelines.perturbation_config import Word
from modularity.runtime import RuntimeConfig

RoutingVariant = Literal["corrected", "paper", "released"]
Epochs = Annotated[int, Field(ge=1)]


class RestrictedRoutingConfig(Config):
    """Does fine-tuning with only the functional experts suffice? Zhang Z. et al. 2023, arXiv 2305.18390, Table 3."""

    job: Literal["restricted_routing"] = "restricted_routing"
    """Kind of job; `modularity run FILE` reads it."""
    source: str = Field(min_length=1)
    """Folder or URI of a finished run of `emergent_modularity` on a mixture model, with the partition `native`: its
    scores say which experts are functional, and its halves which examples are trained on."""
    label_words: dict[str, tuple[Word, Word]] | None = Field(default=None, min_length=1)
    """The tasks: for each sub-function (`function/sub-function` where the name alone is not clear) the words by which
    the model answers label 1 and label 0. None: those that the functions of the run declare."""
    first_token: bool = False
    """Read the first token of label words that are several tokens; such words are refused otherwise."""
    templates: dict[str, str] = Field(default_factory=dict)
    """By function, or `function/part`: the text in which the model is asked, where it is not `asked_template` of the
    function or the text of the run."""
    model: ModelConfig | None = None
    """How the checkpoint is loaded with its LM head; None = as in the run. Trained weights must be float32."""
    variant: RoutingVariant = "corrected"
    """`corrected`: the checkpoint is chosen on validation examples and measured on others; experts by the score of the
    run. `paper`: chosen on the examples that are reported; experts by the larger average precision of both labels.
    `released`: as `paper`, with the loss over the whole vocabulary and checkpoints after the first step and every so
    many after it, as in the code."""
    first_trained_layer: int | None = Field(default=None, ge=0)
    """FFN output matrices and routers are trained from this layer up; None = the last third (8 of 12)."""
    layers: tuple[int, ...] | None = None
    """Sparse layers that are restricted; None = those of the run that are trained."""
    ranking: Literal["part", "function", "own"] = "part"
    """By what neurons are ranked: the average over the sub-functions of the task's part (both questions of MNLI; of a
    function without parts all its sub-functions), over those of its function, or the task's own score."""
    top_fraction: Fraction = 0.01
    """Share of a layer's neurons that counts as top neurons."""
    alpha: float = Field(default=0.001, gt=0, lt=1)
    """Level at which an expert is called functional."""
    n_examples: int = Field(default=128, ge=2)
    """Examples of the selection half that one training sees: a draw for each seed, the same for all strategies."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4, 5, 6, 7), min_length=2)
    """Random states of trainings: examples, their order, dropout, and the experts of the controls."""
    n_draws: int = Field(default=3, ge=1)
    """Random choices of experts for each seed, the control that may hold functional ones."""
    epochs: int = Field(default=100, ge=1)
    """Passes over the training examples."""
    task_epochs: dict[str, Epochs] = Field(default_factory=dict)
    """The same by task, where it is not `epochs`."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Of Adam."""
    batch_size: int = Field(default=16, ge=1)
    """Training examples of one step."""
    evaluate_every: int = Field(default=4, ge=1)
    """Steps between two checkpoints; the last step is one, too."""
    dropout: bool = True
    """Train with the dropout and router noise of the model's config."""
    validation_share: Fraction = 0.5
    """Share of the evaluation half by which the checkpoint is chosen (`corrected`)."""
    max_evaluation: int | None = Field(default=1000, ge=4)
    """Validation examples, and test examples, of a task at most; None = all."""
    split_seed: int = Field(default=0, ge=0)
    """Of the division into validation and test examples, and of the choice of experts of the controls."""
    tokens_per_batch: int = Field(default=8192, ge=16)
    """Size of a batch that is evaluated, padding counted."""
    allowance: Allowance = Allowance()
    """Limits on the plan."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Where the work runs; not part of what identifies the results."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = [
            f"{name}={list(values)} has a value twice; name each once"
            for name, values in (("layers", self.layers or ()), ("seeds", self.seeds))
            if len(set(values)) < len(values)
        ]
        problems += [f"seeds has {seed}: expected 0 or more" for seed in self.seeds if seed < 0]
        problems += [
            f"label_words of {name!r} are {words[0]!r} twice; labels need different words"
            for name, words in (self.label_words or {}).items()
            if words[0] == words[1]
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self
