"""Texts cut to one length, what is too short, and controls that keep everything but the tokens."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from modularity.data import CutTexts, TextsConfig, control_texts, cut_texts, load_texts, series_path
from modularity.errors import InputError

PLANTED = {"source": "sample:planted_languages", "category_column": "label", "length": 9, "positions": "2:9:3"}


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return AutoTokenizer.from_pretrained(series_path() / "step00000000")


def cut(tokenizer: object, **changes: object) -> CutTexts:
    config = TextsConfig(**{**PLANTED, "too_short": "leave_out", "per_category": 4, **changes})  # type: ignore[arg-type]
    return cut_texts(load_texts(config), tokenizer, config)  # type: ignore[arg-type]


def test_texts_have_one_length_and_the_declared_rows(tokenizer: object) -> None:
    found = cut(tokenizer)
    assert found.categories == ("agreement", "brackets", "counting", "relations", "senses")
    assert found.category_E.tolist() == np.repeat(range(5), 4).tolist()
    assert set(found.table.lengths_E) == {9}
    assert found.table.row_position_R.tolist() == [2, 5, 8] * 20
    assert found.table.row_example_R.tolist() == np.repeat(range(20), 3).tolist()
    assert (found.n_whole_E >= 9).all()
    assert found.function.labels_SE.sum() == 20
    assert any("beyond the first 4 of their category" in note for note in found.notes)
    assert cut(tokenizer, positions="-7:0:3").table.row_position_R.tolist()[:3] == [2, 5, 8]


def test_short_texts_are_listed_or_counted(tokenizer: object) -> None:
    with pytest.raises(InputError) as refused:
        cut(tokenizer, length=12, positions="2:12", too_short="error")
    assert len(refused.value.problems) == 21
    assert "tokens, expected at least 12; give a longer text" in refused.value.problems[0]
    assert "more texts of fewer than 12 tokens" in refused.value.problems[-1]
    with pytest.raises(InputError, match="expected at least 2: lower"):
        cut(tokenizer, length=30, positions="2:9")
    left = cut(tokenizer, length=10, per_category=None)
    assert any("were left out" in note for note in left.notes)
    assert any(note.startswith("categories differ in size: ") for note in left.notes)


def test_controls_keep_special_tokens_lengths_and_rows(tokenizer: object) -> None:
    texts = cut(tokenizer)
    special = tokenizer.all_special_ids  # type: ignore[attr-defined]
    random = control_texts(texts, "random_tokens", tokenizer, n_ids=173, seed=1)  # type: ignore[arg-type]
    shuffled = control_texts(texts, "shuffled_tokens", tokenizer, n_ids=173, seed=1)  # type: ignore[arg-type]
    ids = texts.table.token_ids.reshape(20, 9)
    for control in (random, shuffled):
        table = control.table
        assert (table.row_position_R == texts.table.row_position_R).all()
        assert (table.token_ids.reshape(20, 9)[:, 0] == ids[:, 0]).all()
        assert (table.token_ids != texts.table.token_ids).mean() > 0.5
        assert (control.category_E == texts.category_E).all()
        assert table.fingerprint != texts.table.fingerprint
    assert not np.isin(random.table.token_ids.reshape(20, 9)[:, 1:], special).any()
    assert random.table.token_ids.max() < 173
    assert (np.sort(shuffled.table.token_ids.reshape(20, 9), axis=1) == np.sort(ids, axis=1)).all()
    again = control_texts(texts, "random_tokens", tokenizer, n_ids=173, seed=1)  # type: ignore[arg-type]
    assert (again.table.token_ids == random.table.token_ids).all()
    assert random.function.name == "random_tokens"


def test_random_tokens_need_ordinary_ones(tokenizer: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="special tokens only"):
        control_texts(cut(tokenizer), "random_tokens", tokenizer, n_ids=1, seed=0)  # type: ignore[arg-type]
