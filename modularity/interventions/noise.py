"""Kinds of noise: what the activations of chosen neurons become.

Source: `Shuffle` in the variant `released` is what the code of Zhang et al. 2023 (arXiv 2305.18390, Fig. 2) does. It
pools the chosen values with those at padding, and clips at zero, which changes the values of models whose activation is
no ReLU; `corrected` leaves padding out and clips nothing: four times a ReLU's output is never negative. Shuffled values
keep their size, so that active neurons are hit harder than silent ones; `Gaussian`, `Zero`, `Mean` and `Resample` are
there to tell what of an effect is due to this.

Draws are seeded by the content of an example (`context.py`) where a kind allows it: then the values do not depend on
batching. They do for `Shuffle`, and for `Resample` without a bank, which exchange values within a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import torch

from modularity.errors import InputError
from modularity.interventions.context import BatchContent, digest

NoiseKind = Literal["shuffle", "gaussian", "zero", "mean", "resample"]
ShuffleVariant = Literal["released", "corrected"]
Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Draws for one example, from a generator and the number of its real positions; one entry for each position."""


@dataclass(frozen=True)
class Place:
    """Where chosen values stand: rows are positions of a batch, columns the chosen neurons of one layer."""

    content: BatchContent
    example_R: np.ndarray
    """int64: example of each row."""
    ordinal_R: np.ndarray
    """int64: number of the row's position among the real ones of its example; at padding that of the last before it."""
    is_real_R: np.ndarray
    """bool: the row is no padding."""
    layer: int
    expert: int | None
    """The expert whose neurons these are, and whose tokens the rows; None in a dense layer, where the rows are all
    positions of the batch."""
    stream: int
    """Seed of this layer and expert: from the user's seed, the site, the layer and the expert."""
    shared_stream: int
    """Seed of all layers of the site together: from the user's seed and the site."""
    columns_M: np.ndarray
    """int64: numbers of the chosen neurons in the layer, or in the expert."""
    first_column: int = 0
    """Number in the layer of the expert's first neuron."""

    @property
    def neurons_M(self) -> np.ndarray:
        """Numbers of the chosen neurons in the layer."""
        return self.columns_M + self.first_column

    def at(self, index: np.ndarray) -> "Place":
        """The same with some of the rows."""
        rows = {name: getattr(self, name)[index] for name in ("example_R", "ordinal_R", "is_real_R")}
        return replace(self, **rows)


class Noise(ABC):
    """Replaces the values of chosen neurons."""

    kind: ClassVar[NoiseKind]
    is_random: ClassVar[bool]
    """Whether the values depend on the seed."""
    includes_padding: bool = False
    """Whether values at padding are pooled and replaced too."""

    @abstractmethod
    def replace(self, values_RM: torch.Tensor, place: Place) -> torch.Tensor:
        """New values of the same shape and dtype, on the same device; `values_RM` is not changed.

        Parameters
        ----------
        values_RM : float32 tensor, the values of the chosen neurons
        place : where they stand
        """

    def check(self, n_layers: int, n_neurons: int) -> None:  # noqa: B027  # most kinds fit every site
        """InputError if this noise cannot be used for a site of `n_layers` layers of up to `n_neurons` neurons."""


@dataclass(frozen=True)
class Shuffle(Noise):
    """Chosen values of a layer, flattened over batch, position and neuron, in random order, times `scale`.

    Deterministic for a seed and a batch; depends on batching.
    """

    scale: float = 4.0
    variant: ShuffleVariant = "corrected"
    kind: ClassVar[NoiseKind] = "shuffle"
    is_random: ClassVar[bool] = True

    @property
    def includes_padding(self) -> bool:  # type: ignore[override]  # of the variant, not of the class
        """As released."""
        return self.variant == "released"

    def replace(self, values_RM: torch.Tensor, place: Place) -> torch.Tensor:
        """See `Noise.replace`."""
        generator = torch.Generator().manual_seed(digest((place.stream, place.content.key)) >> 1)
        order = torch.randperm(values_RM.numel(), generator=generator).to(values_RM.device)
        shuffled = values_RM.reshape(-1)[order].reshape(values_RM.shape) * self.scale
        return shuffled.relu() if self.variant == "released" else shuffled


@dataclass(frozen=True, eq=False)
class Gaussian(Noise):
    """Normal values with each neuron's own mean and standard deviation, independent of everything else.

    Negative values occur, also where the activation has none. Does not depend on batching.
    """

    mean_LF: np.ndarray
    """float array of shape (n_layers, n_neurons), as `neuron_moments` gives it."""
    sd_LF: np.ndarray
    """The same shape, not negative."""
    kind: ClassVar[NoiseKind] = "gaussian"
    is_random: ClassVar[bool] = True

    def check(self, n_layers: int, n_neurons: int) -> None:
        """See `Noise.check`."""
        _check_layers("mean_LF", self.mean_LF, n_layers, n_neurons)
        _check_layers("sd_LF", self.sd_LF, n_layers, n_neurons)

    def replace(self, values_RM: torch.Tensor, place: Place) -> torch.Tensor:
        """See `Noise.replace`."""
        drawn_RM = _drawn(place, place.stream, lambda rng, length: rng.standard_normal((length, len(place.columns_M))))
        mean_M, sd_M = (array[place.layer, place.neurons_M] for array in (self.mean_LF, self.sd_LF))
        return _like(values_RM, mean_M + sd_M * drawn_RM)


@dataclass(frozen=True)
class Zero(Noise):
    """Zero: ablation. Does not depend on seed or batching."""

    kind: ClassVar[NoiseKind] = "zero"
    is_random: ClassVar[bool] = False

    def replace(self, values_RM: torch.Tensor, place: Place) -> torch.Tensor:
        """See `Noise.replace`."""
        return torch.zeros_like(values_RM)


@dataclass(frozen=True, eq=False)
class Mean(Noise):
    """Each neuron's mean over a calibration text: ablation that stays in range. Not random, no matter the batching."""

    mean_LF: np.ndarray
    """float array of shape (n_layers, n_neurons), as `neuron_moments` gives it."""
    kind: ClassVar[NoiseKind] = "mean"
    is_random: ClassVar[bool] = False

    def check(self, n_layers: int, n_neurons: int) -> None:
        """See `Noise.check`."""
        _check_layers("mean_LF", self.mean_LF, n_layers, n_neurons)

    def replace(self, values_RM: torch.Tensor, place: Place) -> torch.Tensor:
        """See `Noise.replace`."""
        return _like(values_RM, np.broadcast_to(self.mean_LF[place.layer, place.neurons_M], values_RM.shape))


@dataclass(frozen=True, eq=False)
class Resample(Noise):
    """Values that the same neurons had elsewhere, all of them at one place: what they do, but not here.

    Without a bank: the values of another example of the batch, at the same position (counted round where it is
    shorter), the same example in all layers; depends on batching. With a bank: a row of it for each position, the same
    row in all layers; does not depend on batching.
    """

    bank_RLF: np.ndarray | None = None
    """float array of shape (n_rows, n_layers, n_neurons): captured rows of other texts; None = the batch itself."""
    kind: ClassVar[NoiseKind] = "resample"
    is_random: ClassVar[bool] = True

    def check(self, n_layers: int, n_neurons: int) -> None:
        """See `Noise.check`."""
        if self.bank_RLF is not None:
            if self.bank_RLF.ndim != 3 or not len(self.bank_RLF):
                raise InputError(f"bank_RLF has shape {self.bank_RLF.shape}: expected (rows, layers, neurons)")
            _check_layers("bank_RLF", self.bank_RLF, n_layers, n_neurons)

    def replace(self, values_RM: torch.Tensor, place: Place) -> torch.Tensor:
        """See `Noise.replace`."""
        bank = self.bank_RLF
        if bank is None:
            return values_RM[torch.from_numpy(_donor_rows(place)).to(values_RM.device)]
        rows_R = _drawn(place, place.shared_stream, lambda rng, length: rng.integers(len(bank), size=length))
        return _like(values_RM, bank[rows_R[:, None], place.layer, place.neurons_M])


def make_noise(
    kind: NoiseKind,
    *,
    mean_LF: np.ndarray | None = None,
    sd_LF: np.ndarray | None = None,
    bank_RLF: np.ndarray | None = None,
    scale: float = 4.0,
    variant: ShuffleVariant = "corrected",
) -> Noise:
    """Noise by its name, as job files give it; what a kind does not use is ignored.

    Raises
    ------
    InputError
        The kind is not known, or lacks the moments that it needs.
    """
    if kind == "shuffle":
        return Shuffle(scale, variant)
    if kind == "zero":
        return Zero()
    if kind == "resample":
        return Resample(bank_RLF)
    if kind not in get_args(NoiseKind):
        raise InputError(f"noise {kind!r} is not known: expected one of {', '.join(get_args(NoiseKind))}")
    if mean_LF is None or (kind == "gaussian" and sd_LF is None):
        raise InputError(f"noise {kind!r} needs the moments of the neurons; take them with neuron_moments")
    return Mean(mean_LF) if sd_LF is None or kind == "mean" else Gaussian(mean_LF, sd_LF)


def _like(values_RM: torch.Tensor, new_RM: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(new_RM, dtype=np.float32)).to(values_RM.device)


def _check_layers(name: str, values: np.ndarray, n_layers: int, n_neurons: int) -> None:
    if values.shape[-2:] != (n_layers, n_neurons):
        raise InputError(
            f"{name} has shape {values.shape}: expected layers and neurons ({n_layers}, {n_neurons}) at its end, "
            f"all layers of the site"
        )


def _drawn(place: Place, stream: int, draw: Draw) -> np.ndarray:
    """Draws of the rows: those of each example come from a generator of its content."""
    parts = [
        draw(np.random.Generator(np.random.Philox(key=digest((stream, key)))), int(length))
        for key, length in zip(place.content.keys_B, place.content.lengths_B)
    ]
    start_B = np.cumsum(place.content.lengths_B) - place.content.lengths_B
    drawn: np.ndarray = np.concatenate(parts)[start_B[place.example_R] + place.ordinal_R]
    return drawn


def _donor_rows(place: Place) -> np.ndarray:
    """Row whose values each row gets: another example's, chosen so that every example gives to exactly one other."""
    lengths_B = place.content.lengths_B
    if len(lengths_B) < 2 or place.expert is not None:
        raise InputError(
            f"resampling within a batch of {len(lengths_B)} examples: expected at least two, and a layer that is "
            f"not made of experts; give a bank of captured rows"
        )
    rng = np.random.Generator(np.random.Philox(key=digest((place.shared_stream, place.content.key))))
    ring_B = rng.permutation(len(lengths_B))
    donor_B = np.empty_like(ring_B)
    donor_B[ring_B] = np.roll(ring_B, -1)
    donor_R = donor_B[place.example_R]
    start_B = np.cumsum(lengths_B) - lengths_B
    rows: np.ndarray = start_B[donor_R] + place.ordinal_R % lengths_B[donor_R]
    return rows
