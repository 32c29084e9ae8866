"""Matrices with a given spectrum."""

import numpy as np
import torch

from modularity.geometry import probe_vectors


def with_spectrum(values: np.ndarray, n_out: int, n_in: int, seed: int = 0) -> torch.Tensor:
    """A matrix of shape (n_out, n_in) with these singular values, and zeros, in random directions."""
    left = torch.linalg.qr(probe_vectors(n_out, len(values), seed=seed))[0]
    right = torch.linalg.qr(probe_vectors(n_in, len(values), seed=seed + 1))[0]
    return left * torch.from_numpy(values) @ right.T
