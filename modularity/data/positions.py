"""From pooling to token positions: which tokens count in a reduction, or which single positions become rows.

Positions count the special tokens that the tokenizer adds. Character spans are mapped by the tokenizer's own offsets: a
token belongs to the span when the two overlap.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modularity.data.functions import FunctionData, Pooling
from modularity.data.token_batch import Reduction
from modularity.errors import InputError

LISTED = 20


@dataclass(frozen=True)
class Encoded:
    """Token ids of all examples with what pooling may need beside them."""

    token_ids: npt.NDArray[np.int32]
    """Tokens of all examples, one after the other."""
    offsets_E1: npt.NDArray[np.int64]
    """Where each example begins, and the end."""
    truncated_E: npt.NDArray[np.bool_]
    """Examples that lost their end."""
    special: npt.NDArray[np.bool_] | None
    """Beside `token_ids`: added by the tokenizer; None when pooling does not ask."""
    characters: npt.NDArray[np.int64] | None
    """[tokens, 2] span of each token in the first segment, (0, 0) elsewhere; None when pooling does not ask."""

    @property
    def lengths_E(self) -> npt.NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.offsets_E1)


@dataclass(frozen=True)
class Rows:
    """What pooling makes of the tokens; the fields are those of `TokenTable`."""

    example_R: npt.NDArray[np.int64]
    position_R: npt.NDArray[np.int64]
    reduction: Reduction | None
    pool_mask: npt.NDArray[np.bool_] | None


def pooled_rows(function: FunctionData, encoded: Encoded, pooling: Pooling, *, mask_id: int | None) -> Rows:
    """Rows of a function under a pooling.

    Parameters
    ----------
    function : examples with their spans and positions
    encoded : their tokens
    pooling : what to take
    mask_id : id of the tokenizer's mask token, where it has one

    Raises
    ------
    InputError
        A position, mask token or span is not among the tokens of an example; all such examples are counted, the first
        20 listed.
    """
    counted = np.ones(len(encoded.token_ids), bool) if encoded.special is None else ~encoded.special
    if pooling.kind in ("max", "mean", "none", "first", "last"):
        refuse(function, _counts(counted, encoded) == 0, "has only special tokens, which pooling leaves out")
    if pooling.kind in ("max", "mean"):
        return _reduced(counted, "max" if pooling.kind == "max" else "mean", encoded)
    if pooling.kind == "span":
        return _reduced(_span_tokens(function, encoded), pooling.span_reduction, encoded)
    if pooling.kind in ("positions", "position"):
        return _declared(function, encoded, pooling)
    if pooling.kind == "mask":
        counted = encoded.token_ids == mask_id
        refuse(
            function, _counts(counted, encoded) != 1, "does not hold exactly one mask token (or lost it to truncation)"
        )
    flat = np.flatnonzero(counted)
    if pooling.kind in ("first", "last"):
        edges_E = encoded.offsets_E1[:-1] if pooling.kind == "first" else encoded.offsets_E1[1:]
        index_E = np.searchsorted(flat, edges_E) - (pooling.kind == "last")
        flat = flat[index_E]
    example_R = np.searchsorted(encoded.offsets_E1, flat, side="right") - 1
    return Rows(example_R, flat - encoded.offsets_E1[example_R], None, None)


def _counts(counted: npt.NDArray[np.bool_], encoded: Encoded) -> npt.NDArray[np.int64]:
    """True entries of a flat mask in each example."""
    totals = np.concatenate([[0], np.cumsum(counted)])
    return totals[encoded.offsets_E1[1:]] - totals[encoded.offsets_E1[:-1]]


def _reduced(counted: npt.NDArray[np.bool_], reduction: Reduction, encoded: Encoded) -> Rows:
    n_examples = len(encoded.truncated_E)
    return Rows(np.arange(n_examples), np.full(n_examples, -1, np.int64), reduction, counted)


def _declared(function: FunctionData, encoded: Encoded, pooling: Pooling) -> Rows:
    """Positions that the config or each example declares; negative ones count from the end."""
    if pooling.kind == "positions":
        wanted_EP = np.tile(np.array(pooling.positions, np.int64), (function.n_examples, 1))
    else:
        missing_E = np.array([example.position is None for example in function.examples], np.bool_)
        refuse(function, missing_E, "declares no position; name the column in columns.position")
        wanted_EP = np.array([[example.position] for example in function.examples], np.int64)
    lengths_E1 = encoded.lengths_E[:, None]
    position_EP = np.where(wanted_EP < 0, wanted_EP + lengths_E1, wanted_EP)
    outside_E = np.any((position_EP < 0) | (position_EP >= lengths_E1), axis=1)

    def detail(index: int) -> str:
        return f" ({encoded.lengths_E[index]} tokens, position {', '.join(map(str, wanted_EP[index].tolist()))})"

    refuse(function, outside_E, "is too short for its position", detail)
    if pooling.kind == "positions":
        twice_E = np.array([len(set(row)) < len(row) for row in position_EP.tolist()], bool)
        refuse(function, twice_E, "reaches the same token by two of its positions", detail)
    example_R = np.repeat(np.arange(function.n_examples), wanted_EP.shape[1])
    return Rows(example_R, position_EP.reshape(-1), None, None)


def _span_tokens(function: FunctionData, encoded: Encoded) -> npt.NDArray[np.bool_]:
    """True at the tokens that overlap the target span of their example."""
    assert encoded.characters is not None
    refuse(
        function,
        np.array([example.target is None for example in function.examples], bool),
        "has no target span; name its columns in columns.target_start and columns.target_end",
    )
    span_E2 = np.array([example.target for example in function.examples], np.int64).reshape(-1, 2)
    span = np.repeat(span_E2, encoded.lengths_E, axis=0)
    overlaps = (encoded.characters[:, 0] < span[:, 1]) & (encoded.characters[:, 1] > span[:, 0])
    reached_E = np.maximum.reduceat(encoded.characters[:, 1], encoded.offsets_E1[:-1]) >= span_E2[:, 1]

    def detail(index: int) -> str:
        start, end = span_E2[index].tolist()
        return f" (characters [{start}, {end}), {function.examples[index].text[start:end]!r})"

    refuse(function, encoded.truncated_E & ~reached_E, "lost its target span to truncation; raise max_tokens", detail)
    refuse(function, _counts(overlaps, encoded) == 0, "has no token in its target span", detail)
    return overlaps


def refuse(
    function: FunctionData, bad_E: npt.NDArray[np.bool_], reason: str, detail: Callable[[int], str] = lambda index: ""
) -> None:
    """Raise InputError that lists the first examples marked in `bad_E` and counts the others."""
    bad = np.flatnonzero(bad_E).tolist()
    if not bad:
        return
    messages = []
    for index in bad[:LISTED]:
        example = function.examples[index]
        messages.append(f"function {function.name!r}: {example.source}: example {example.id!r} {reason}{detail(index)}")
    if len(bad) > LISTED:
        messages.append(f"function {function.name!r}: and {len(bad) - LISTED} more examples: {reason}")
    raise InputError(messages)
