"""The config of the similarity study: texts in categories, sites, similarities, and how they are tested."""

from typing import Literal, Self

from pydantic import Field, model_validator

from modularity.config import Config
from modularity.data import Control, TextsConfig
from modularity.models import ModelConfig
from modularity.pipelines.config import Allowance
from modularity.runtime import RuntimeConfig
from modularity.types import SiteName, StorageDtype

SIMILARITY_SITES: tuple[SiteName, ...] = ("residual", "attention.output", "attention.heads", "ffn.output")
"""The stream before the first block and after each, what attention and FFN add to it, and every single head."""


class ScoresConfig(Config):
    """Category scores and other tests: sizes of nulls and of resamples."""

    max_labellings: int = Field(default=200_000, ge=100)
    """Labellings that are enumerated at most; where more exist, `n_draws` are drawn."""
    n_draws: int = Field(default=9_999, ge=99)
    """Random labellings; the smallest p is then 1 / (n_draws + 1)."""
    n_bootstrap: int = Field(default=2_000, ge=100)
    """Resamples of texts behind each interval."""
    n_permutations: int = Field(default=500, ge=19)
    """Permutations behind the largest F of a layer and behind CKA."""
    n_removed: int = Field(default=1, ge=0)
    """Largest principal components that the measure `components_removed` takes off."""
    seed: int = Field(default=0, ge=0)
    """Seed of all of them, and of random and shuffled tokens."""


class ExpertActivityConfig(Config):
    """Experts whose activity is compared between categories."""

    method: Literal["auto", "balanced", "native"] = "auto"
    """`balanced`: by the input weights of the neurons; `native`: the model's own; `auto`: native where it has some."""
    n_experts: int = Field(default=16, ge=2)
    """Experts of each layer, for `balanced`; must divide the neurons of every layer."""
    seed: int = Field(default=0, ge=0)
    """Seed of the partition."""


class ProjectionConfig(Config):
    """Projections to the plane."""

    n_neighbours: int = Field(default=5, ge=1)
    """Neighbours that set the width of the diffusion kernel of each row."""
    seed: int = Field(default=0, ge=0)
    """Seed of the scaling."""


class SimilarityConfig(Config):
    """Are activations of texts of one category alike? NickyP and Fowler 2022, cards D2 to D5."""

    job: Literal["similarity"] = "similarity"
    """Kind of job; `modularity run FILE` reads it."""
    model: ModelConfig
    """The checkpoint: a decoder, an encoder, or an encoder-decoder, of which the encoder is studied."""
    texts: TextsConfig = TextsConfig()
    """Texts in categories; default: those that ship with the package, and the positions of the study."""
    sites: tuple[SiteName, ...] = Field(default=SIMILARITY_SITES, min_length=1)
    """What is compared."""
    controls: tuple[Control, ...] = ("random_tokens", "shuffled_tokens")
    """Texts of the same length with other tokens, on which everything is repeated."""
    scores: ScoresConfig = ScoresConfig()
    """Sizes of nulls."""
    experts: ExpertActivityConfig | None = ExpertActivityConfig()
    """Experts whose activity is compared; null: none, and no neurons are captured."""
    projection: ProjectionConfig = ProjectionConfig()
    """Projections to the plane."""
    dtype: StorageDtype = "float32"
    """Dtype of the stored activations."""
    tokens_per_batch: int = Field(default=4096, ge=1)
    """Tokens of one forward; a longer text is a batch of its own."""
    store_text: bool = True
    """Keep the texts in the run."""
    allowance: Allowance = Allowance()
    """Limits on the plan."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Where the work runs; not part of what identifies the results."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = []
        wrong = [site for site in self.sites if site not in SIMILARITY_SITES]
        if wrong:
            problems.append(f"sites {wrong} are not compared; expected some of {', '.join(SIMILARITY_SITES)}")
        for name, values in (("sites", self.sites), ("controls", self.controls)):
            if len(set(values)) < len(values):
                problems.append(f"{name}={list(values)} has a value twice; name each once")
        if self.model.device_map is not None and self.runtime.executor == "ray" and not self.runtime.gpus_per_worker:
            problems.append(
                f"model.device_map={self.model.device_map!r} spreads the model over the GPUs of a worker; "
                "say how many with runtime.gpus_per_worker"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self
