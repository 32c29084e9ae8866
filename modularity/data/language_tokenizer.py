"""A word-level tokenizer for the planted languages, as the files that Hugging Face reads: one word, one token.

Written as JSON, so that this room needs no tokenizer library. `AutoTokenizer.from_pretrained(folder)` gives a fast
tokenizer with character offsets. Decoders of OPT's kind get `<s>` in front; encoder-decoders get `</s>` at the end.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from modularity.data.language_words import WORDS

PAD, END, UNKNOWN, START, MASK = "<pad>", "</s>", "<unk>", "<s>", "<mask>"
N_SENTINELS = 8
SENTINELS = tuple(f"<extra_id_{number}>" for number in range(N_SENTINELS))
"""What stands for the left-out spans of span corruption."""
SPECIAL_TOKENS = (PAD, END, UNKNOWN, START, MASK, *SENTINELS)
TOKEN_IDS: Mapping[str, int] = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *WORDS))}
"""Id of every token; padding is 0, as T5 has it."""
Frame = Literal["start", "end"]


def tokenizer_files(frame: Frame, *, max_tokens: int) -> dict[str, str]:
    """Content of `tokenizer.json` and `tokenizer_config.json`.

    Parameters
    ----------
    frame : `start`: `<s>` stands before a text; `end`: `</s>` stands after it
    max_tokens : longest input of the model
    """
    token = START if frame == "start" else END
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(special) for special in SPECIAL_TOKENS],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _template(token, frame, ("A",)),
            "pair": _template(token, frame, ("A", "B")),
            "special_tokens": {token: {"id": token, "ids": [TOKEN_IDS[token]], "tokens": [token]}},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": dict(TOKEN_IDS), "unk_token": UNKNOWN},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "bos_token": START,
        "unk_token": UNKNOWN,
        "mask_token": MASK,
        "model_max_length": max_tokens,
        "clean_up_tokenization_spaces": False,
    }
    return {"tokenizer.json": _json(tokenizer), "tokenizer_config.json": _json(settings)}


def save_tokenizer(folder: Path, frame: Frame, *, max_tokens: int) -> None:
    """Write the tokenizer into an existing folder."""
    for name, content in tokenizer_files(frame, max_tokens=max_tokens).items():
        (folder / name).write_text(content, encoding="utf-8")


def _added(token: str) -> dict[str, Any]:
    settings = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": TOKEN_IDS[token], "content": token, **settings, "special": True}


def _template(token: str, frame: Frame, sequences: tuple[str, ...]) -> list[dict[str, Any]]:
    special = [{"SpecialToken": {"id": token, "type_id": 0}}]
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in sequences]
    return [*special, *texts] if frame == "start" else [*texts, *special]


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
