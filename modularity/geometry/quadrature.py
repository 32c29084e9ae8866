"""The whole spectrum of an operator from products with random vectors: stochastic Lanczos quadrature.

Source: Ubaru, Chen and Saad 2017, SIAM J. Matrix Anal. Appl. 38(4); Golub and Meurant 2010. Golub-Kahan
bidiagonalisation of J from a random vector g gives the nodes (singular values of the small bidiagonal matrix) and
weights of a Gauss quadrature for gᵀ f(JᵀJ) g, whose mean over g is the trace of f(JᵀJ). Singular values are computed
from the bidiagonal matrix itself, not from its square, so that small ones keep their digits. The right vectors are kept
orthogonal.

Two rules come from the same steps: Gauss, and Gauss-Radau with a node at zero. For the sum of all singular values the
first is an upper and the second a lower bound of what the random vector sees, because the derivatives of the square
root alternate in sign. Their distance is what the steps do not resolve, mostly among the smallest values.

Leading singular vectors that are known well can be taken out: then only the rest is estimated, whose trace varies less.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from modularity.errors import DataError
from modularity.geometry.operators import LinearOperator, Tensor, probe_vectors

Rule = Literal["gauss", "radau"]
BREAKDOWN = 1e-14
"""A new direction that is this much shorter than the largest coefficient is rounding: the Krylov space is complete."""


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Nodes and weights, two rules for each random vector, and singular values that are known."""

    nodes_VK: np.ndarray
    """float64 [n_probes, n_steps]: singular values, the largest first, by Gauss's rule."""
    weights_VK: np.ndarray
    """float64 [n_probes, n_steps]: how many singular values each node stands for; rows sum to about
    `n_singular_values` minus the known ones."""
    radau_nodes_VK: np.ndarray
    """float64 [n_probes, n_steps + 1]: by the rule with a node at zero."""
    radau_weights_VK: np.ndarray
    """float64 [n_probes, n_steps + 1]."""
    known_K: np.ndarray
    """float64: singular values that were taken out, counted exactly."""
    n_singular_values: int
    """Columns of the operator; the estimates are over the eigenvalues of JᵀJ, zeros included."""

    @property
    def n_probes(self) -> int:
        """Random vectors."""
        return len(self.nodes_VK)

    def sums_V(self, function: Callable[[np.ndarray], np.ndarray], *, rule: Rule = "gauss") -> np.ndarray:
        """Sum of a function over all singular values, by each probe alone and one rule: float64 [n_probes]."""
        known = float(function(self.known_K).sum()) if self.known_K.size else 0.0
        nodes, weights = self.nodes_VK, self.weights_VK
        if rule == "radau":
            nodes, weights = self.radau_nodes_VK, self.radau_weights_VK
        return np.asarray((weights * function(nodes)).sum(axis=1) + known)


def spectral_quadrature(
    operator: LinearOperator,
    *,
    n_probes: int,
    n_steps: int,
    seed: int = 0,
    known_K: np.ndarray | None = None,
    known_right_KN: Tensor | None = None,
    probes_at_once: int | None = None,
) -> Quadrature:
    """Quadrature rules for sums over the singular values.

    Parameters
    ----------
    operator : the matrix J
    n_probes : random vectors of signs, at least 2: their spread is the error bar
    n_steps : products with J and Jᵀ for each; two densities that agree in 2 n_steps - 1 moments are not told apart
    seed : of the random vectors
    known_K, known_right_KN : singular values that are known, with their right vectors (orthonormal, in rows)
    probes_at_once : vectors that go together, all by default; n_steps vectors are held for each of them

    Returns
    -------
    quadrature : nodes and weights

    Raises
    ------
    DataError
        Fewer than 2 probes or 1 step, or known values without their vectors.
    """
    known = np.zeros(0) if known_K is None else np.asarray(known_K, dtype=np.float64)
    if n_probes < 2 or n_steps < 1 or (len(known) and (known_right_KN is None or len(known_right_KN) != len(known))):
        raise DataError(
            f"{n_probes=}, {n_steps=}, {len(known)} known values: expected 2 probes or more, 1 step or more, and a "
            "right vector for each known value"
        )
    out = known_right_KN if len(known) else None
    n_steps = min(n_steps, operator.n_in - len(known), operator.n_out)
    if n_steps < 1:
        nothing = np.zeros((n_probes, 1))
        return Quadrature(nothing, nothing, nothing, nothing, known, operator.n_in)
    signs = probe_vectors(n_probes, operator.n_in, seed=seed, signs=True)
    together = probes_at_once or n_probes
    parts = [
        _rules(operator, _without(signs[start : start + together].to(operator.device), out), n_steps, out)
        for start in range(0, n_probes, together)
    ]
    nodes, weights, radau_nodes, radau_weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Quadrature(nodes, weights, radau_nodes, radau_weights, known, operator.n_in)


def _rules(
    operator: LinearOperator, probes_VN: Tensor, n_steps: int, out: Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights by Gauss, then by Gauss-Radau.

    The second has a further column in the bidiagonal matrix, with the last upper coefficient and nothing below it: the
    product of its transpose and itself is the tridiagonal matrix of one more step, changed so that it is singular.
    """
    norms_V = torch.linalg.vector_norm(probes_VN, dim=1)
    diagonal, upper = _bidiagonalise(operator, probes_VN / norms_V[:, None], n_steps, out)
    wide_VKK = torch.zeros((len(norms_V), n_steps + 1, n_steps + 1), dtype=torch.float64)
    steps = torch.arange(n_steps)
    wide_VKK[:, steps, steps], wide_VKK[:, steps, steps + 1] = diagonal.cpu(), upper.cpu()
    found = []
    for matrices_VKK in (wide_VKK[:, :n_steps, :n_steps], wide_VKK):
        _, nodes_VK, right_VKK = torch.linalg.svd(matrices_VKK)
        found += [nodes_VK.numpy(), (right_VKK[:, :, 0] ** 2 * (norms_V.cpu() ** 2)[:, None]).numpy()]
    return found[0], found[1], found[2], found[3]


def _bidiagonalise(
    operator: LinearOperator, start_VN: Tensor, n_steps: int, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Diagonal and upper diagonal, [V, n_steps] each, of the bidiagonal matrix of every start vector.

    The last coefficient of the upper diagonal leads out of the matrix, to the next step.
    """
    n_probes = len(start_VN)
    diagonal = torch.zeros((n_probes, n_steps), dtype=torch.float64, device=operator.device)
    upper = torch.zeros_like(diagonal)
    kept_VKN = torch.zeros((n_probes, n_steps, operator.n_in), dtype=torch.float64, device=operator.device)
    right_VN, left_VM = start_VN, torch.zeros((n_probes, operator.n_out), dtype=torch.float64, device=operator.device)
    largest_V = torch.zeros(n_probes, dtype=torch.float64, device=operator.device)
    for step in range(n_steps):
        kept_VKN[:, step] = right_VN
        ahead_VM = operator.apply(right_VN) - (upper[:, step - 1, None] * left_VM if step else 0.0)
        diagonal[:, step], left_VM = _normalised(ahead_VM, largest_V)
        largest_V = torch.maximum(largest_V, diagonal[:, step])
        ahead_VN = _without(operator.apply_transpose(left_VM) - diagonal[:, step, None] * right_VN, out)
        for _ in range(2):
            along_VK = torch.einsum("vkn,vn->vk", kept_VKN[:, : step + 1], ahead_VN)
            ahead_VN = ahead_VN - torch.einsum("vk,vkn->vn", along_VK, kept_VKN[:, : step + 1])
        upper[:, step], right_VN = _normalised(ahead_VN, largest_V)
        largest_V = torch.maximum(largest_V, upper[:, step])
    return diagonal, upper


def _normalised(rows: Tensor, largest_V: Tensor) -> tuple[Tensor, Tensor]:
    """Norms and unit rows; a row that is rounding becomes zero, and all that follow from it are zero too."""
    norms = torch.linalg.vector_norm(rows, dim=1)
    norms = torch.where(norms > BREAKDOWN * largest_V, norms, torch.zeros_like(norms))
    return norms, torch.where(norms[:, None] > 0, rows / norms.clamp_min(1e-300)[:, None], torch.zeros_like(rows))


def _without(rows: Tensor, basis: Tensor | None) -> Tensor:
    """Rows minus their parts along orthonormal rows."""
    if basis is None:
        return rows
    for _ in range(2):
        rows = rows - (rows @ basis.T) @ basis
    return rows
