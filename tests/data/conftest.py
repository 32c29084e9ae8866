"""Small files, small functions and small real tokenizers for the tests of this room."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from modularity.config import validate_config
from modularity.data import FunctionConfig, FunctionData, load_functions

WORDS = ("the", "cat", "sat", "on", "a", "mat", "river", "bank", "money", "good", "bad", "very", "old", "new", "red")


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, so that messages hold short relative names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_jsonl(workdir: Path) -> Callable[..., str]:
    """Write rows to a JSONL file in the working folder; gives its name."""

    def write(rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
        (workdir / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    return write


@pytest.fixture
def load(write_jsonl: Callable[..., str]) -> Callable[..., FunctionData]:
    """Load one function from rows, or from `source=`."""

    def load_one(rows: list[dict[str, Any]] | None = None, **config: Any) -> FunctionData:
        if rows is not None:
            config["source"] = write_jsonl(rows)
        (function,) = load_functions([validate_config(FunctionConfig, {"name": "demo", **config})])
        return function

    return load_one


def _tokenizer(eos: bool, mask: bool) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = list(
        dict.fromkeys([*special, *WORDS, *letters, *("##" + letter for letter in letters), *"0123456789.,"])
    )
    core = Tokenizer(models.WordPiece({word: n for n, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(clean_text=True, lowercase=False)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    single, pair = ("$A [SEP]", "$A $B:1 [SEP]:1") if eos else ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    core.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]"} | ({"mask_token": "[MASK]"} if mask else {})
    names |= {"eos_token": "[SEP]"} if eos else {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "attention_mask"] if eos else ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=inputs, **names)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece in the way of BERT: [CLS] text [SEP], segment ids, a mask token."""
    return _tokenizer(eos=False, mask=True)


@pytest.fixture(scope="session")
def eos_tokenizer() -> PreTrainedTokenizerFast:
    """In the way of T5: text and a final end-of-sequence token, no mask token."""
    return _tokenizer(eos=True, mask=False)
