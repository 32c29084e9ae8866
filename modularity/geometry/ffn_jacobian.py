"""The Jacobian of an FFN in closed form: it acts on each token alone, so there is one D x D block for each token.

With n = norm(x), g = W_in n, h = act(g) (times u = W_up n in gated FFNs) and y = W_out h, the block of a token is

    J = W_out (diag(act'(g) u) W_in + diag(act(g)) W_up) J_norm          (without gate: u = 1, W_up absent)

and the norm's Jacobian is a diagonal plus two outer products: diag(gain) (1/s) (I - 1 1ᵀ/D - n̂ n̂ᵀ/D), without the first
product for root-mean-square norms; n̂ is what the norm gives before its gain, s what it divides by. Both are exact with
the norm's epsilon. Neurons whose factors are zero (ReLU) drop out of the products. Where few are left, the singular
values come from the small product of the two triangular factors of W_out and of the rest.

Rank of a block: at most the number of active neurons, at most D, less one for each norm that centres (card D1).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from modularity.errors import DataError
from modularity.geometry.operators import Tensor

FEW = 0.6
"""Share of D below which active neurons are few enough for the product of triangular factors."""


@dataclass(frozen=True, eq=False)
class NormFactors:
    """Everything that the Jacobian of a norm depends on."""

    unit_TD: Tensor
    """Output before gain and bias."""
    scale_T: Tensor
    """What the (centred) input was divided by."""
    gain_D: Tensor
    centred: bool
    """True for LayerNorm, False for root-mean-square norms."""

    def times_right(self, matrix_MD: Tensor, token: int) -> Tensor:
        """`matrix` times the Jacobian of the norm, without the gain, which the caller has multiplied in."""
        unit_D, width = self.unit_TD[token], self.unit_TD.shape[1]
        found = matrix_MD - torch.outer(matrix_MD @ unit_D / width, unit_D)
        if self.centred:
            found -= matrix_MD.mean(dim=1, keepdim=True)
        return found / self.scale_T[token]

    def times_left(self, matrix_DN: Tensor, token: int) -> Tensor:
        """The Jacobian of the norm, gain included, times `matrix`."""
        unit_D, width = self.unit_TD[token], self.unit_TD.shape[1]
        found = matrix_DN - torch.outer(unit_D, unit_D @ matrix_DN / width)
        if self.centred:
            found -= matrix_DN.mean(dim=0, keepdim=True)
        return self.gain_D[:, None] * found / self.scale_T[token]


@dataclass(frozen=True, eq=False)
class FfnFactors:
    """Everything that the Jacobian of an FFN at T tokens depends on, float64."""

    out_DF: Tensor
    in_FD: Tensor
    """W_in, or in gated FFNs the projection into the activation function."""
    slope_TF: Tensor
    """Derivative of a neuron by its entry of W_in n: act'(g), times u where there is a gate."""
    up_FD: Tensor | None = None
    """Linear projection of a gated FFN."""
    gate_TF: Tensor | None = None
    """Derivative of a neuron by its entry of W_up n: act(g)."""
    before: NormFactors | None = None
    after: NormFactors | None = None

    def __post_init__(self) -> None:
        (n_out, n_neurons), n_in = self.out_DF.shape, self.in_FD.shape[1]
        wrong = self.in_FD.shape[0] != n_neurons or self.slope_TF.shape[1:] != (n_neurons,)
        wrong |= (self.up_FD is None) != (self.gate_TF is None)
        if wrong or self.out_DF.dtype != torch.float64:
            raise DataError(
                f"W_out {tuple(self.out_DF.shape)} {self.out_DF.dtype}, W_in {tuple(self.in_FD.shape)}, slopes "
                f"{tuple(self.slope_TF.shape)}: expected float64 [{n_out}, F], [F, {n_in}], [T, F], and W_up with the "
                "values of the gate, or neither"
            )

    @property
    def n_tokens(self) -> int:
        """T."""
        return int(self.slope_TF.shape[0])

    @cached_property
    def active_TF(self) -> Tensor:
        """bool: neurons through which anything passes."""
        found = self.slope_TF != 0
        return found if self.gate_TF is None else found | (self.gate_TF != 0)

    @cached_property
    def scaled_in_FD(self) -> Tensor:
        """W_in with the gain of the norm before."""
        return self.in_FD if self.before is None else self.in_FD * self.before.gain_D

    @cached_property
    def scaled_up_FD(self) -> Tensor | None:
        """W_up likewise."""
        return self.up_FD if self.before is None or self.up_FD is None else self.up_FD * self.before.gain_D


def token_jacobian(factors: FfnFactors, token: int) -> Tensor:
    """The D x D block of one token, float64."""
    left_DK, right_KD = _two_factors(factors, token)
    found = left_DK @ right_KD
    # Norms change the product, which is D x D, rather than its factors with their F columns or rows.
    if factors.before is not None:
        found = factors.before.times_right(found, token)
    return found if factors.after is None else factors.after.times_left(found, token)


def token_singular_values(factors: FfnFactors, *, n_threads: int = 1) -> np.ndarray:
    """Singular values of the blocks of all tokens.

    Parameters
    ----------
    factors : the FFN at T tokens
    n_threads : tokens that are computed at once, each by one thread: small decompositions gain nothing from more

    Returns
    -------
    values_TD : float64 array of shape (T, min(D_out, D_in)), descending in each row
    """
    one: Callable[[int], np.ndarray] = lambda token: _values_of(factors, token)  # noqa: E731
    factors.active_TF, factors.scaled_in_FD, factors.scaled_up_FD  # noqa: B018  # made before threads need them
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if n_threads == 1 or factors.out_DF.device.type != "cpu":
            return np.stack([one(token) for token in range(factors.n_tokens)])
        with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return np.stack(list(pool.map(one, range(factors.n_tokens))))
    finally:
        torch.set_num_threads(before)


def rank_bounds(factors: FfnFactors) -> np.ndarray:
    """Upper bound of the rank of each token's block, int64 [T]: min(D less centring norms, active neurons)."""
    sides = [
        factors.in_FD.shape[1] - int(factors.before is not None and factors.before.centred),
        factors.out_DF.shape[0] - int(factors.after is not None and factors.after.centred),
    ]
    active_T = factors.active_TF.sum(dim=1).cpu().numpy().astype(np.int64)
    return np.minimum(active_T, min(sides))


def _values_of(factors: FfnFactors, token: int) -> np.ndarray:
    sides = min(factors.out_DF.shape[0], factors.in_FD.shape[1])
    n_active = int(factors.active_TF[token].sum())
    values = np.zeros(sides)
    if n_active == 0:
        return values
    if n_active >= FEW * sides:
        return np.asarray(torch.linalg.svdvals(token_jacobian(factors, token)).cpu().numpy())
    left_DK, right_KD = _two_factors(factors, token)
    if factors.before is not None:
        right_KD = factors.before.times_right(right_KD, token)
    if factors.after is not None:
        left_DK = factors.after.times_left(left_DK, token)
    small = torch.linalg.qr(left_DK, mode="r")[1] @ torch.linalg.qr(right_KD.T, mode="r")[1].T
    found = torch.linalg.svdvals(small).cpu().numpy()
    values[: len(found)] = found
    return values


def _two_factors(factors: FfnFactors, token: int) -> tuple[Tensor, Tensor]:
    """W_out, and the rest with the gain of the norm before; active neurons only, where that saves work."""
    slope_F = factors.slope_TF[token]
    gate_F = None if factors.gate_TF is None else factors.gate_TF[token]
    out, inner, up = factors.out_DF, factors.scaled_in_FD, factors.scaled_up_FD
    active = factors.active_TF[token]
    if int(active.sum()) < 0.9 * len(active):
        out, inner, slope_F = out[:, active], inner[active], slope_F[active]
        up, gate_F = (None, None) if up is None or gate_F is None else (up[active], gate_F[active])
    right = slope_F[:, None] * inner
    if up is not None and gate_F is not None:
        right.addcmul_(gate_F[:, None], up)
    return out, right
