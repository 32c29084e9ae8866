"""The config of the tight-pass study: texts, sub-blocks, controls, and how the spectra of Jacobians are computed."""

from typing import Literal, Self

from pydantic import Field, model_validator

from modularity.config import Config
from modularity.data import PlainTextsConfig
from modularity.models import ModelConfig
from modularity.pipelines.config import Allowance
from modularity.runtime import RuntimeConfig
from modularity.types import StackName

KindName = Literal["ffn", "attention"]
ControlName = Literal["random_weights", "shuffled_weights"]
MODEL = "model"
"""Value of `control` in rows of the model itself."""


class MatrixFreeConfig(Config):
    """How the spectrum of attention is found where its Jacobian is too large to be written down."""

    dense_up_to: int = Field(default=2048, ge=0)
    """Positions times width up to which the whole Jacobian is decomposed: n² numbers, time as n³; 0 = never."""
    n_leading: int = Field(default=16, ge=1)
    """Singular values found one by one, by randomised block Krylov iteration."""
    n_iterations: int = Field(default=4, ge=0)
    """Its iterations."""
    oversampling: int = Field(default=8, ge=0)
    """Its further random vectors."""
    n_probes: int = Field(default=4, ge=2)
    """Random vectors of the Lanczos quadrature, over which error bars are made."""
    n_steps: int = Field(default=64, ge=2)
    """Lanczos steps for each: more of them resolve smaller values."""
    probes_at_once: int = Field(default=4, ge=1)
    """Probes that go together: each holds `n_steps` vectors in memory."""
    products_at_once: int = Field(default=4, ge=1)
    """Vectors that automatic differentiation carries through the sub-block at once."""


class TightPassConfig(Config):
    """Does a block pass information through few directions? NickyP and Fowler 2022, "Searching for Modularity in Large
    Language Models".
    """

    job: Literal["tight_pass"] = "tight_pass"
    """Kind of job; `modularity run FILE` reads it."""
    model: ModelConfig
    """The checkpoint; its attention is computed by the implementation `eager`, of which torch has both derivatives."""
    texts: PlainTextsConfig
    """The texts; each is one input."""
    max_tokens: int = Field(default=64, ge=1)
    """Texts are cut to this many tokens, those that the tokenizer adds included."""
    stack: StackName | None = None
    """Stack of blocks; None = the first of the model."""
    layers: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Layers; None = all."""
    kinds: tuple[KindName, ...] = Field(default=("ffn", "attention"), min_length=1)
    """Sub-blocks."""
    with_norm: bool = True
    """The norm before (and, where there is one, the norm behind) a sub-block belongs to it: derivatives are by the
    residual stream. False: by what the norm gives."""
    controls: tuple[ControlName, ...] = ("random_weights", "shuffled_weights")
    """`random_weights`: the same architecture as it is before training. `shuffled_weights`: the entries of each weight
    matrix of the sub-block in random order, at the inputs of the real model."""
    matrix_free: MatrixFreeConfig = MatrixFreeConfig()
    """Spectra of attention."""
    n_points: int = Field(default=256, ge=16)
    """Points at which each sorted spectrum is kept."""
    n_resamples: int = Field(default=2000, ge=100)
    """Resamples of the texts behind the intervals over texts."""
    seed: int = Field(default=0, ge=0)
    """Seed of controls, random vectors and resamples."""
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
                ("kinds", self.kinds),
                ("controls", self.controls),
            )
            if len(set(values)) < len(values)
        ]
        if self.model.attention not in (None, "eager"):
            problems.append(
                f"model.attention={self.model.attention!r}: the derivatives of attention are known for 'eager' only; "
                "leave it away"
            )
        if "random_weights" in self.controls and self.model.weights == "random":
            problems.append("controls has 'random_weights', and the model itself has random weights; set one of both")
        if self.model.device_map is not None:
            problems.append("model.device_map spreads blocks over devices, which this job does not follow; use device")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def model_of(self, control: str) -> ModelConfig:
        """Checkpoint that the rows of a control are computed with."""
        changes = {"weights": "random", "seed": self.seed} if control == "random_weights" else {}
        return self.model.replace(attention="eager", **changes)

    def conditions(self) -> tuple[str, ...]:
        """Values of `control`: the model itself first."""
        return (MODEL, *self.controls)
