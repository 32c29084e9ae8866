"""The tokenizer of the planted languages, as Hugging Face reads it: ids, marks, offsets, round trip."""

from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from modularity.data.language_tokenizer import SPECIAL_TOKENS, TOKEN_IDS, Frame, save_tokenizer
from modularity.data.languages import sentences


@pytest.mark.parametrize(("frame", "before", "after"), [("start", ["<s>"], []), ("end", [], ["</s>"])])
def test_one_word_is_one_token(tmp_path: Path, frame: Frame, before: list[str], after: list[str]) -> None:
    save_tokenizer(tmp_path, frame, max_tokens=32)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
    for sentence in islice(sentences(seed=0), 50):
        expected = [TOKEN_IDS[token] for token in (*before, *sentence.words, *after)]
        assert tokenizer(sentence.text)["input_ids"] == expected
        assert tokenizer.decode(expected, skip_special_tokens=True) == sentence.text


def test_marks_and_offsets(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, "start", max_tokens=32)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
    assert tokenizer.is_fast
    assert len(tokenizer) == len(TOKEN_IDS)
    assert tokenizer.model_max_length == 32
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.mask_token) == ("<pad>", "</s>", "<mask>")
    assert tokenizer.convert_ids_to_tokens(range(len(SPECIAL_TOKENS))) == list(SPECIAL_TOKENS)
    assert tokenizer("ada lives nowhere")["input_ids"][-1] == tokenizer.unk_token_id
    assert tokenizer("ada lives", return_offsets_mapping=True)["offset_mapping"] == [(0, 0), (0, 3), (4, 9)]
    assert tokenizer("ada <extra_id_0> oslo")["input_ids"][2] == TOKEN_IDS["<extra_id_0>"]
    assert tokenizer("ada", "oslo")["input_ids"] == [TOKEN_IDS[token] for token in ("<s>", "ada", "oslo")]
