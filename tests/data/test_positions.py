from typing import Any

import numpy as np
import pytest

from modularity.data import Example, FunctionData, Pooling, TokenTable, tokenise
from modularity.errors import InputError


def function_of(
    *texts: str, word: str | None = None, positions: tuple[int, ...] | None = None, pair: str | None = None
) -> FunctionData:
    """Examples with the span of `word`, declared positions, or a pair."""
    examples = []
    for n, text in enumerate(texts):
        target = None if word is None else (text.index(word), text.index(word) + len(word))
        position = None if positions is None else positions[n]
        examples.append(Example(f"x{n}", text, pair, target, position, f"x.jsonl:{n + 1}", "0" * 16))
    return FunctionData(
        name="demo",
        kind="other",
        subfunctions=("demo",),
        examples=tuple(examples),
        labels_SE=np.zeros((1, len(texts)), np.int8),
        selection_E=np.zeros(len(texts), bool),
        cluster_E=np.arange(len(texts), dtype=np.int32),
        fingerprint="0" * 16,
        pooling=Pooling(),
    )


def pooled(function: FunctionData, tokenizer: Any, kind: Any, *, max_tokens: int = 16, **pooling: Any) -> TokenTable:
    return tokenise(function, tokenizer, max_tokens=max_tokens, pooling=Pooling(kind=kind, **pooling))


def gathered(table: TokenTable) -> list[tuple[int, int]]:
    assert table.reduction is None
    assert table.pool_mask is None
    return list(zip(table.row_example_R.tolist(), table.row_position_R.tolist()))


def marked(table: TokenTable, tokenizer: Any) -> list[str]:
    """Tokens that count in the reduction."""
    assert table.pool_mask is not None
    return list(tokenizer.convert_ids_to_tokens(table.token_ids[table.pool_mask].tolist()))


FOUR = function_of("the cat", "a bank", "the old cat sat", "money")


def test_first_last_and_every_token(tokenizer: Any) -> None:
    lengths = [4, 4, 6, 3]
    assert gathered(pooled(FOUR, tokenizer, "first")) == [(n, 0) for n in range(4)]
    assert gathered(pooled(FOUR, tokenizer, "last")) == [(n, length - 1) for n, length in enumerate(lengths)]
    every = gathered(pooled(FOUR, tokenizer, "none"))
    assert every == [(n, position) for n, length in enumerate(lengths) for position in range(length)]


def test_special_tokens_can_be_left_out(tokenizer: Any) -> None:
    assert gathered(pooled(FOUR, tokenizer, "first", skip_special=True)) == [(n, 1) for n in range(4)]
    assert gathered(pooled(FOUR, tokenizer, "last", skip_special=True)) == [(0, 2), (1, 2), (2, 4), (3, 1)]
    assert len(gathered(pooled(FOUR, tokenizer, "none", skip_special=True))) == 2 + 2 + 4 + 1
    table = pooled(FOUR, tokenizer, "mean", skip_special=True)
    assert table.reduction == "mean"
    assert marked(table, tokenizer) == ["the", "cat", "a", "bank", "the", "old", "cat", "sat", "money"]
    with pytest.raises(InputError, match="example 'x1' has only special tokens, which pooling leaves out"):
        pooled(function_of("cat", "\x07"), tokenizer, "max", skip_special=True)


def test_row_tokens_are_the_tokens_at_the_positions(tokenizer: Any) -> None:
    table = pooled(FOUR, tokenizer, "last", skip_special=True)
    assert tokenizer.convert_ids_to_tokens(table.row_tokens_R.tolist()) == ["cat", "bank", "sat", "money"]


def test_a_list_of_positions_counts_from_both_ends(tokenizer: Any) -> None:
    table = pooled(FOUR, tokenizer, "positions", positions=(1, -1))
    assert gathered(table) == [(0, 1), (0, 3), (1, 1), (1, 3), (2, 1), (2, 5), (3, 1), (3, 2)]
    with pytest.raises(
        InputError, match=r"x.jsonl:1: example 'x0' is too short for its position \(4 tokens, position 5\)"
    ):
        pooled(FOUR, tokenizer, "positions", positions=(5,))
    with pytest.raises(InputError, match="example 'x3' reaches the same token by two of its positions"):
        pooled(FOUR, tokenizer, "positions", positions=(2, -1))


def test_a_position_of_each_example(tokenizer: Any) -> None:
    texts = [example.text for example in FOUR.examples]
    table = pooled(function_of(*texts, positions=(-1, 2, -6, 0)), tokenizer, "position")
    assert gathered(table) == [(0, 3), (1, 2), (2, 0), (3, 0)]
    with pytest.raises(
        InputError, match=r"x.jsonl:4: example 'x3' is too short for its position \(3 tokens, position 3\)"
    ):
        pooled(function_of(*texts, positions=(3, 3, 3, 3)), tokenizer, "position")
    with pytest.raises(InputError, match="declares no position"):
        pooled(FOUR, tokenizer, "position")


def test_a_mask_token_in_the_text(tokenizer: Any) -> None:
    assert gathered(pooled(function_of("the [MASK] sat", "a cat [MASK]"), tokenizer, "mask")) == [(0, 2), (1, 3)]
    for texts in (("the [MASK]", "a cat"), ("the [MASK]", "[MASK] [MASK]")):
        with pytest.raises(InputError, match="example 'x1' does not hold exactly one mask token"):
            pooled(function_of(*texts), tokenizer, "mask")


def test_a_span_marks_all_its_tokens(tokenizer: Any) -> None:
    table = pooled(function_of("the bank sat", "old bankx", word="bank"), tokenizer, "span", span_reduction="mean")
    assert table.reduction == "mean"
    assert marked(table, tokenizer) == ["bank", "bank"], "##x lies outside the span"
    table = pooled(function_of("the xyz sat", word="xyz"), tokenizer, "span")
    assert (table.reduction, marked(table, tokenizer)) == ("max", ["x", "##y", "##z"])
    table = pooled(function_of("the old red cat", word="ld re"), tokenizer, "span")
    assert marked(table, tokenizer) == ["old", "red"], "a token that the span cuts belongs to it"


def test_a_span_is_looked_for_in_the_first_segment_only(tokenizer: Any) -> None:
    table = pooled(function_of("the bank sat", "a bank", word="bank", pair="bank bank bank"), tokenizer, "span")
    assert table.pool_mask is not None
    assert np.flatnonzero(table.pool_mask).tolist() == [2, 11]


def test_a_span_lost_to_truncation_is_listed(tokenizer: Any) -> None:
    texts = ["bank the", "the old red cat sat on bank", "a very good bank", "the bank"]
    with pytest.raises(InputError) as caught:
        pooled(function_of(*texts, word="bank"), tokenizer, "span", max_tokens=5)
    assert len(caught.value.problems) == 2
    assert caught.value.problems[0] == (
        "function 'demo': x.jsonl:2: example 'x1' lost its target span to truncation; raise max_tokens "
        "(characters [23, 27), 'bank')"
    )
    with pytest.raises(InputError, match=r"example 'x0' has no token in its target span \(characters \[4, 6\)"):
        pooled(function_of("cat \x07\x07 sat", word="\x07\x07"), tokenizer, "span")
    with pytest.raises(InputError, match="has no target span; name its columns"):
        pooled(FOUR, tokenizer, "span")


def test_long_lists_are_cut(tokenizer: Any) -> None:
    with pytest.raises(InputError) as caught:
        pooled(function_of(*(f"cat {n}" for n in range(30))), tokenizer, "positions", positions=(12,))
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "function 'demo': and 10 more examples: is too short for its position"
