"""The config of the perturbation study: which neurons of a finished run are broken, how, and on which tasks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from modularity.config import Config
from modularity.models import ModelConfig
from modularity.pipelines.config import Allowance, Fraction
from modularity.runtime import RuntimeConfig

PerturbationVariant = Literal["corrected", "paper", "released"]
NoiseName = Literal["shuffle", "gaussian", "zero", "mean", "resample"]
RankingKind = Literal["single", "average", "experts", "random", "matched"]
RANDOM_NOISES: tuple[NoiseName, ...] = ("shuffle", "gaussian", "resample")
"""Kinds whose values depend on the seed."""
Word = Annotated[str, Field(min_length=1)]


class RoutingConfig(Config):
    """Tokens routed to the functional experts only, in a mixture model (card A7)."""

    n_draws: int = Field(default=50, ge=19)
    """Random choices of as many other experts, the control; the smallest p is 1 / (n_draws + 1)."""
    layers: tuple[int, ...] | None = None
    """Sparse layers that are restricted; None = those of the perturbation."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws."""


class PerturbationConfig(Config):
    """Does a task need the neurons that predict it? Zhang Z. et al. 2023, arXiv 2305.18390, Fig. 2 and Table 3."""

    job: Literal["perturbation"] = "perturbation"
    """Kind of job; `modularity run FILE` reads it."""
    source: str = Field(min_length=1)
    """Folder or URI of a finished run of `emergent_modularity`: its rankings and partitions are used."""
    label_words: dict[str, tuple[Word, Word]] | None = Field(default=None, min_length=2)
    """The tasks: for each sub-function (`function/sub-function` where the name alone is not clear) the words by which
    the model answers label 1 and label 0. None: those that the functions of the run declare."""
    first_token: bool = False
    """Read the first token of label words that are several tokens; such words are refused otherwise."""
    templates: dict[str, str] = Field(default_factory=dict)
    """By function, or by `function/part`: the text in which the model is asked, where it is neither the one of the run
    nor the function's `asked_template`. A masked model needs its mask token there, a decoder a text that the label word
    continues."""
    model: ModelConfig | None = None
    """How the checkpoint is loaded with its LM head; None = as in the run. It must be the same checkpoint."""
    variant: PerturbationVariant = "corrected"
    """`corrected`: neurons are chosen by the scores of the selection half and measured on the evaluation half, exactly
    as many as asked, noise leaves padding out. `paper`: by average precision, strictly above the interpolated
    percentile, on all examples; the run must be of variant `paper`. `released`: padding is shuffled too."""
    layers: tuple[int, ...] | None = None
    """Layers in which neurons are changed; None = the last third of the run's layers."""
    strengths: tuple[Fraction, ...] = Field(default=(2 / 96, 6 / 96, 10 / 96, 12 / 96), min_length=1)
    """Shares of the neurons of each layer. Default: 2, 6, 10 and 12 of 96 experts, as in the paper's figure."""
    noises: tuple[NoiseName, ...] = Field(default=("shuffle", "gaussian", "zero", "mean", "resample"), min_length=1)
    """What the values of the chosen neurons become."""
    scale: float = Field(default=4.0, gt=0)
    """Factor of shuffled values."""
    rankings: tuple[RankingKind, ...] = ("single", "average", "experts", "random", "matched")
    """By what neurons are chosen: predictivity for one task; its average over the sub-functions of a function; whole
    experts by that average; at random; at random, but alike in mean activation and output norm to each of the first
    two."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    """Random states of noise and random choices."""
    tokens_per_batch: int = Field(default=8192, ge=16)
    """Size of a batch, padding counted; shuffling and resampling exchange values within one."""
    calibration_examples: int = Field(default=512, ge=2)
    """Examples of each task's function from which means and deviations of neurons are taken: those that rankings were
    made from, so not those that tasks are measured on."""
    routing: RoutingConfig | None = None
    """Restriction of routing; for runs of mixture models with the partition `native`."""
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
                ("strengths", self.strengths),
                ("noises", self.noises),
                ("rankings", self.rankings),
                ("seeds", self.seeds),
            )
            if len(set(values)) < len(values)
        ]
        if "single" not in self.rankings:
            problems.append(f"rankings={list(self.rankings)} lacks 'single', from which dissociation is computed")
        if "matched" in self.rankings and max(self.strengths) > 0.5:
            problems.append(
                f"strengths={list(self.strengths)}: above 0.5 no matched control of the same size is left; "
                "lower them, or leave 'matched' out of rankings"
            )
        problems += [
            f"label_words of {name!r} are {words[0]!r} twice; labels need different words"
            for name, words in (self.label_words or {}).items()
            if words[0] == words[1]
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self
