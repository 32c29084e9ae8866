"""The config of the pruning study: which capability is taken away from which model, and by which scores."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from modularity.config import Config
from modularity.data.corpora import CorpusConfig
from modularity.models import ModelConfig
from modularity.pipelines.config import Allowance
from modularity.runtime import RuntimeConfig

ScoreName = Literal["abs", "rms", "std", "freq", "sqrt", "mean_difference"]
Schedule = Literal["iterative", "one_shot"]
Direction = Literal["prune_target", "prune_retain"]
Share = Annotated[float, Field(gt=0, lt=1)]


class PartsConfig(Config):
    """Shares of the texts of each corpus; parts are disjoint, and their shares are taken of their sum."""

    scoring: Share = 0.4
    """Importances are taken here."""
    validation: Share = 0.1
    """Score, schedule and step are chosen here."""
    evaluation: Share = 0.25
    """Everything that is reported of losses and accuracies is measured here."""
    prompts: Share = 0.1
    """Beginnings that the models go on with."""
    judge_training: Share = 0.1
    """Texts that the judge of continuations learns from."""
    judge_test: Share = 0.05
    """Texts on which the judge is tested."""

    def shares(self) -> dict[str, float]:
        """Share of each part, together 1."""
        values = self.model_dump()
        total = sum(values.values())
        return {name: value / total for name, value in values.items()}


class ContinuationsConfig(Config):
    """What models write before and after, judged by a classifier that was trained on other texts."""

    n_prompts: int = Field(default=100, ge=2)
    """Prompts of each category at most."""
    n_prompt_tokens: int = Field(default=16, ge=1)
    """Tokens of a prompt, special ones not counted; shorter texts are left out."""
    n_new: int = Field(default=48, ge=1)
    """Tokens of a continuation at most."""
    n_least: int = Field(default=8, ge=1)
    """Tokens of a continuation at least: the end of the text is not drawn before."""
    decoding: Literal["greedy", "sample"] = "sample"
    """The likeliest token, or one drawn from the model's distribution."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits before drawing."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws, the same for all models."""
    features: Literal["characters", "words"] = "characters"
    """What the judge sees: n-grams of 1 to 4 characters, or of 1 and 2 words."""
    n_judge: int = Field(default=4000, ge=10)
    """Pieces of each category that the judge learns from, at most, and the same again that it is tested on."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.n_least > self.n_new:
            raise ValueError(f"n_least={self.n_least} is more than n_new={self.n_new}; lower it")
        return self


class PruningConfig(Config):
    """Can one capability be taken away and the other kept? Pochinkov and Schoots 2024, arXiv 2403.01267."""

    job: Literal["pruning"] = "pruning"
    """Kind of job; `modularity run FILE` reads it."""
    model: ModelConfig
    """The checkpoint, with its LM head."""
    target: CorpusConfig
    """Texts of the one category (in the study: code)."""
    retain: CorpusConfig
    """Texts of the other (everything else)."""
    directions: tuple[Direction, ...] = Field(default=("prune_target", "prune_retain"), min_length=1)
    """`prune_target` takes the target's capability away and keeps the other; `prune_retain` is the reverse."""
    scores: tuple[ScoreName, ...] = Field(
        default=("abs", "rms", "std", "freq", "sqrt", "mean_difference"), min_length=1
    )
    """Importances by which units are chosen."""
    schedules: tuple[Schedule, ...] = Field(default=("iterative", "one_shot"), min_length=1)
    """`iterative`: activations are taken again after each step; `one_shot`: once, of the unchanged model."""
    ffn_share: Share = 0.02
    """Share of all FFN neurons that one step removes, over all layers together."""
    attention_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the attention coordinates that one step removes (0.005 in the study); 0 = none."""
    n_steps: int = Field(default=50, ge=1)
    """Steps; with 2 % each, 50 remove every FFN neuron."""
    n_random: int = Field(default=20, ge=5)
    """Trajectories that remove as many units at random, the null: no p can be below 1 / (n_random + 1)."""
    n_common: int = Field(default=50, ge=0)
    """Commonest tokens of each corpus that the third accuracy leaves out."""
    max_tokens: int = Field(default=1000, ge=2)
    """Longer texts lose their end."""
    scoring_tokens: int = Field(default=100_000, ge=10)
    """Tokens of each corpus from which importances are taken, at most."""
    validation_tokens: int = Field(default=25_000, ge=10)
    """Tokens of each corpus on which choices are made, at most."""
    evaluation_tokens: int = Field(default=100_000, ge=10)
    """Tokens of each corpus that are reported, at most."""
    parts: PartsConfig = PartsConfig()
    """How the texts are divided."""
    continuations: ContinuationsConfig | None = ContinuationsConfig()
    """What models write before and after; None = not measured."""
    export: str | None = None
    """Folder for the pruned models, a Hugging Face checkpoint for each direction; None = not written. On a cluster, one
    that its machines share."""
    n_bootstrap: int = Field(default=1000, ge=100)
    """Resamples of the texts behind each interval."""
    seed: int = Field(default=0, ge=0)
    """Seed of the parts, of the random trajectories and of the resamples."""
    tokens_per_batch: int = Field(default=2048, ge=16)
    """Size of a batch, padding counted; logits of all its positions are held at once."""
    store_text: bool = True
    """Keep prompts and continuations in the run, so that the report can show them."""
    allowance: Allowance = Allowance()
    """Limits on the plan."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Where the work runs; not part of what identifies the results."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = [
            f"{name}={list(values)} has a value twice; name each once"
            for name, values in (
                ("directions", self.directions),
                ("scores", self.scores),
                ("schedules", self.schedules),
            )
            if len(set(values)) < len(values)
        ]
        if self.target.name == self.retain.name:
            problems.append(f"target and retain are both named {self.target.name!r}; give each its own name")
        if self.export is not None and "://" in self.export:
            problems.append(f"export={self.export!r}: expected a local folder, as Hugging Face writes checkpoints")
        if problems:
            raise ValueError("; ".join(problems))
        return self
