"""The ways in which category labels can lie on texts: all of them where that is feasible, else random ones.

With n_c texts of category c there are T! / Π n_c! labellings: 4,200 for 10 texts in categories of 4, 3 and 3, 756,756
for 15 in three of 5. A statistic that does not depend on the names of categories is the same for labellings that only
exchange the names of categories of one size, so that one representative of them is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb, factorial
from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

MAX_LABELLINGS = 200_000


@dataclass(frozen=True)
class Labellings:
    """Labellings with the observed category sizes."""

    category_NT: Array
    """int8 array of shape (labellings, texts): number of the category of each text."""
    is_exact: bool
    """Every labelling is there, or one representative of each; otherwise they are drawn at random."""
    n_all: int
    """Number of labellings that exist."""

    def p_values(self, n_reached: Array) -> Array:
        """Share of labellings that reach the observed value; (1 + b) / (1 + B) for random ones."""
        n = len(self.category_NT)
        return n_reached / n if self.is_exact else (1.0 + n_reached) / (1.0 + n)


def n_labellings(sizes: tuple[int, ...]) -> int:
    """Number of labellings with these category sizes: the multinomial coefficient."""
    number, left = 1, sum(sizes)
    for size in sizes:
        number *= comb(left, size)
        left -= size
    return number


def labellings(
    category_T: Array,
    *,
    by_name: bool = False,
    limit: int = MAX_LABELLINGS,
    n_draws: int = 9_999,
    seed: int = 0,
) -> Labellings:
    """All labellings with the sizes of the observed one, or random ones where there are more than `limit`.

    Parameters
    ----------
    category_T : number of the category of each text, 0 … C - 1, each at least once
    by_name : the statistic depends on the names of categories, so no labelling represents another one
    limit : largest number of labellings that is enumerated
    n_draws, seed : random labellings otherwise

    Raises
    ------
    DataError
        A category has no text.
    """
    sizes = tuple(int(n) for n in np.bincount(category_T))
    if len(sizes) < 2 or min(sizes) < 1:
        raise DataError(f"categories have {list(sizes)} texts: expected two or more categories, each with a text")
    number = n_labellings(sizes)
    order = sorted(range(len(sizes)), key=lambda c: -sizes[c])
    n_alike = 1 if by_name else sum(size == sizes[order[-1]] for size in sizes)
    if number // factorial(n_alike) <= limit:
        return Labellings(_enumerate(sizes, order, n_alike), True, number)
    generator = np.random.default_rng(seed)
    drawn = generator.permuted(np.tile(category_T.astype(np.int8), (n_draws, 1)), axis=1)
    return Labellings(drawn, False, number)


def _enumerate(sizes: tuple[int, ...], order: list[int], n_alike: int) -> Array:
    """Categories are placed one after the other; of the last `n_alike`, of one size, each takes the first free text."""
    n_texts = sum(sizes)
    found = np.full((1, n_texts), -1, np.int8)
    free = np.arange(n_texts, dtype=np.int64)[None]
    for place, category in enumerate(order):
        size, left = sizes[category], free.shape[1]
        takes_first = place >= len(order) - n_alike
        chosen = list(combinations(range(1, left), size - 1)) if takes_first else list(combinations(range(left), size))
        taken = np.array([(0, *c) for c in chosen] if takes_first else chosen, dtype=np.int64).reshape(-1, size)
        is_free = np.ones((len(taken), left), bool)
        np.put_along_axis(is_free, taken, False, axis=1)
        rest = np.nonzero(is_free)[1].reshape(len(taken), left - size)
        n = len(found)
        found = np.repeat(found, len(taken), axis=0)
        texts = free[:, taken].reshape(n * len(taken), size)
        np.put_along_axis(found, texts, np.int8(category), axis=1)
        free = free[:, rest].reshape(n * len(taken), left - size)
    return found
