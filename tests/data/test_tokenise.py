import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modularity.data import FunctionData, Pooling, tokenise
from modularity.errors import InputError

Load = Callable[..., FunctionData]
TEXTS = ["the cat sat", "a bank", "the old red cat sat on the mat", "money"]


def rows_of(texts: list[str], **extra: Any) -> list[dict[str, Any]]:
    return [{"text": text, "label": n % 2, **extra} for n, text in enumerate(texts)]


def some(load: Load, texts: list[str] = TEXTS, pair: str | None = None, **config: Any) -> FunctionData:
    rows = rows_of(texts, **({} if pair is None else {"pair": pair}))
    return load(rows, min_per_label=1, columns={} if pair is None else {"text_pair": "pair"}, **config)


def test_tokens_are_those_of_the_tokenizer(load: Load, tokenizer: Any) -> None:
    table = tokenise(some(load), tokenizer, max_tokens=64)
    for index, text in enumerate(TEXTS):
        begin, end = table.offsets_E1[index : index + 2]
        assert table.token_ids[begin:end].tolist() == tokenizer(text)["input_ids"]
    assert table.token_ids.dtype == np.int32
    assert table.type_ids is not None
    assert not table.type_ids.any()
    assert (table.n_examples, table.n_rows, table.n_truncated) == (4, 4, 0)
    assert table.n_tokens == len(table.token_ids) == int(table.lengths_E.sum())
    assert table.reduction == "max"
    assert table.pool_mask is not None
    assert table.pool_mask.all()
    assert table.row_tokens_R.tolist() == [-1] * 4


def test_pairs_have_segment_ids(load: Load, tokenizer: Any) -> None:
    table = tokenise(some(load, pair="the river"), tokenizer, max_tokens=64)
    whole = tokenizer(TEXTS[1], "the river")
    begin, end = table.offsets_E1[1:3]
    assert table.token_ids[begin:end].tolist() == whole["input_ids"]
    assert table.type_ids is not None
    assert table.type_ids[begin:end].tolist() == whole["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_truncation_is_reported_per_example(load: Load, tokenizer: Any) -> None:
    table = tokenise(some(load), tokenizer, max_tokens=5)
    assert table.truncated_E.tolist() == [False, False, True, False]
    assert table.lengths_E.tolist() == [5, 4, 5, 3]
    whole = tokenizer(TEXTS[2])["input_ids"]
    assert table.token_ids[9:14].tolist() == [*whole[:4], whole[-1]]
    assert tokenise(some(load), tokenizer, max_tokens=None).n_truncated == 0


def test_fingerprints_follow_tokens_and_rows(load: Load, tokenizer: Any) -> None:
    function = some(load)
    variants = [
        tokenise(function, tokenizer, max_tokens=64),
        tokenise(function, tokenizer, max_tokens=5),
        tokenise(function, tokenizer, max_tokens=64, pooling=Pooling(kind="mean")),
        tokenise(function, tokenizer, max_tokens=64, pooling=Pooling(kind="max", skip_special=True)),
        tokenise(function, tokenizer, max_tokens=64, pooling=Pooling(kind="first")),
    ]
    assert len({table.fingerprint for table in variants}) == 5
    assert tokenise(function, tokenizer, max_tokens=64).fingerprint == variants[0].fingerprint


def test_the_final_end_of_sequence_token_goes(load: Load, eos_tokenizer: Any) -> None:
    function = some(load)
    kept = tokenise(function, eos_tokenizer, max_tokens=6)
    dropped = tokenise(function, eos_tokenizer, max_tokens=6, pooling=Pooling(drop_final_eos=True))
    assert (dropped.lengths_E == kept.lengths_E - 1).all()
    assert eos_tokenizer.eos_token_id not in dropped.token_ids
    assert dropped.pool_mask is not None
    assert len(dropped.pool_mask) == dropped.n_tokens


def test_what_a_tokenizer_cannot_do_is_said(load: Load, tokenizer: Any, eos_tokenizer: Any) -> None:
    class Slow:
        is_fast = False
        mask_token_id = eos_token_id = None

    function = some(load)
    with pytest.raises(
        InputError, match=r"span pooling needs the character offsets of a fast tokenizer, and Slow is slow"
    ):
        tokenise(function, Slow(), max_tokens=9, pooling=Pooling(kind="span"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mask pooling needs a mask token"):
        tokenise(function, eos_tokenizer, max_tokens=9, pooling=Pooling(kind="mask"))
    with pytest.raises(InputError, match="no end-of-sequence token"):
        tokenise(function, tokenizer, max_tokens=9, pooling=Pooling(drop_final_eos=True))
    with pytest.raises(InputError, match="max_tokens=2 leaves no room for text; expected at least 3"):
        tokenise(function, tokenizer, max_tokens=2)


def test_no_example_with_a_final_token_is_an_error(load: Load, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    function = some(load)
    monkeypatch.setattr(type(tokenizer), "eos_token_id", 77, raising=False)
    with pytest.raises(InputError, match="no example ends in the end-of-sequence token 77"):
        tokenise(function, tokenizer, max_tokens=9, pooling=Pooling(drop_final_eos=True))


def test_texts_without_tokens_are_listed(load: Load, eos_tokenizer: Any) -> None:
    function = some(load, ["the cat", "\x07", "a mat", "\x07\x07"])
    with pytest.raises(InputError, match=r"rows.jsonl:2: example 'rows.jsonl:2' has no tokens"):
        tokenise(function, eos_tokenizer, max_tokens=9, pooling=Pooling(drop_final_eos=True))


def test_twelve_thousand_examples_tokenise_in_seconds(load: Load, tokenizer: Any) -> None:
    function = load([{"text": f"the old red cat {n} sat on the mat", "label": n % 2} for n in range(12_000)])
    start = time.perf_counter()
    table = tokenise(function, tokenizer, max_tokens=8)
    assert table.n_truncated == 12_000
    assert time.perf_counter() - start < 20
