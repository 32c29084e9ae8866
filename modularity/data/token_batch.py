"""What the tokens of a function look like: the flat table of all examples, and one padded batch of it.

A *row* is one line of the activation store: one per example where positions are reduced (max, mean), otherwise one per
gathered token position. Rows are numbered over the whole function, in example order, so that any range of rows names
the same values on every machine. No tensors here: `capture` turns these arrays into tensors on its device.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Reduction = Literal["max", "mean"]


class Gather(NamedTuple):
    """Single positions that a batch delivers: `activation[example_G[g], position_G[g]]` belongs to row `row_G[g]`."""

    example_G: npt.NDArray[np.int64]
    """Index into the batch, in [0, B)."""
    position_G: npt.NDArray[np.int64]
    """Token position, in [0, T), never padding."""
    row_G: npt.NDArray[np.int64]
    """Global row, each exactly once over all batches of a range."""


@dataclass(frozen=True)
class TokenBatch:
    """Some examples of similar length, padded on the right to the longest; exactly one of `rows_B`, `gather` is set."""

    input_ids_BT: npt.NDArray[np.int64]
    """Token ids; padding holds the `pad_id` that was asked for."""
    attention_mask_BT: npt.NDArray[np.bool_]
    """True at real tokens."""
    type_ids_BT: npt.NDArray[np.int64] | None
    """Segment ids where the tokenizer gives them, 0 at padding."""
    pool_mask_BT: npt.NDArray[np.bool_] | None
    """True at the tokens that count in the reduction, at least one per example; None when positions are gathered."""
    rows_B: npt.NDArray[np.int64] | None
    """Global row of each example when positions are reduced."""
    gather: Gather | None
    """The positions to take when positions are not reduced."""
    n_tokens: int
    """Real tokens in the batch."""
    is_padded: bool
    """False when all examples are equally long: no attention mask is needed."""

    @property
    def n_examples(self) -> int:
        """Examples in the batch (B)."""
        return len(self.input_ids_BT)

    @property
    def row_ids(self) -> npt.NDArray[np.int64]:
        """Global rows that this batch delivers, in the order of `rows_B` or of `gather`."""
        if self.gather is not None:
            return self.gather.row_G
        assert self.rows_B is not None
        return self.rows_B


@dataclass(frozen=True)
class TokenTable:
    """All examples of a function as tokens, ragged without padding, and the rows that they give."""

    token_ids: npt.NDArray[np.int32]
    """Tokens of all examples, one after the other, with the special tokens that the tokenizer adds."""
    type_ids: npt.NDArray[np.uint8] | None
    """Segment ids beside `token_ids`, where the tokenizer gives them."""
    offsets_E1: npt.NDArray[np.int64]
    """Example e owns `token_ids[offsets_E1[e]:offsets_E1[e + 1]]`."""
    truncated_E: npt.NDArray[np.bool_]
    """True where the text was longer than `max_tokens` and lost its end."""
    row_example_R: npt.NDArray[np.int64]
    """Example of each row, ascending."""
    row_position_R: npt.NDArray[np.int64]
    """Token position of each row within its example; -1 = reduced over positions."""
    reduction: Reduction | None
    """How positions become one row; None = they are gathered."""
    pool_mask: npt.NDArray[np.bool_] | None
    """Beside `token_ids`: the tokens that count in the reduction (the span, for span pooling); None when gathered."""
    fingerprint: str
    """16 hexadecimal digits over everything above."""

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return len(self.offsets_E1) - 1

    @property
    def n_rows(self) -> int:
        """Number of rows that the function has in the store."""
        return len(self.row_example_R)

    @property
    def n_tokens(self) -> int:
        """Real tokens over all examples."""
        return len(self.token_ids)

    @property
    def n_truncated(self) -> int:
        """Examples that lost their end."""
        return int(self.truncated_E.sum())

    @property
    def lengths_E(self) -> npt.NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.offsets_E1)

    @property
    def row_tokens_R(self) -> npt.NDArray[np.int32]:
        """Token id of each row; -1 where positions were reduced."""
        reduced_R = self.row_position_R < 0
        flat_R = self.offsets_E1[self.row_example_R] + np.where(reduced_R, 0, self.row_position_R)
        return np.where(reduced_R, np.int32(-1), self.token_ids[flat_R])
