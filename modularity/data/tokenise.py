"""Texts to token ids, with the special tokens that the tokenizer adds and no others, and to the rows of a pooling.

Takes any tokenizer with the call of Hugging Face; this room imports none.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from modularity.data.functions import Example, FunctionData, Pooling
from modularity.data.positions import Encoded, Rows, pooled_rows, refuse
from modularity.data.token_batch import TokenTable
from modularity.errors import InputError

_BATCH = 1024
"""Texts in one call of the tokenizer: bounds the memory of its Python lists."""


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    is_fast: bool
    mask_token_id: int | None
    eos_token_id: int | None

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Tokens that are added to one text, or to a pair."""

    def __call__(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """Encode a list of texts, or of pairs."""


def tokenise(
    function: FunctionData, tokenizer: Tokenizer, *, max_tokens: int | None, pooling: Pooling | None = None
) -> TokenTable:
    """Tokens of all examples of a function, and its rows.

    Texts longer than `max_tokens` (special tokens counted) lose their end, of pairs the longer segment first, as the
    tokenizer truncates; this is reported in `truncated_E`.

    Parameters
    ----------
    function : examples
    tokenizer : a Hugging Face tokenizer; a fast one for span pooling
    max_tokens : limit per example, or None
    pooling : overrides the pooling of the function

    Returns
    -------
    table : ragged tokens and rows

    Raises
    ------
    InputError
        The tokenizer lacks what pooling needs, or examples have no tokens, or not the tokens that pooling asks for.
    """
    pooling = pooling or function.pooling
    _check_tokenizer(function.name, tokenizer, pooling)
    encoded, type_ids = _encode(function, tokenizer, max_tokens, pooling)
    refuse(function, encoded.lengths_E == 0, "has no tokens")
    rows = pooled_rows(function, encoded, pooling, mask_id=tokenizer.mask_token_id)
    return TokenTable(
        token_ids=encoded.token_ids,
        type_ids=type_ids,
        offsets_E1=encoded.offsets_E1,
        truncated_E=encoded.truncated_E,
        row_example_R=rows.example_R,
        row_position_R=rows.position_R,
        reduction=rows.reduction,
        pool_mask=rows.pool_mask,
        fingerprint=_fingerprint(encoded, type_ids, rows),
    )


def _check_tokenizer(name: str, tokenizer: Tokenizer, pooling: Pooling) -> None:
    problems = []
    if pooling.kind == "span" and not tokenizer.is_fast:
        problems.append(
            f"function {name!r}: span pooling needs the character offsets of a fast tokenizer, and "
            f"{type(tokenizer).__name__} is slow; load its fast version or declare token positions"
        )
    if pooling.kind == "mask" and tokenizer.mask_token_id is None:
        problems.append(
            f"function {name!r}: mask pooling needs a mask token, and {type(tokenizer).__name__} has none; "
            "choose another pooling"
        )
    if pooling.drop_final_eos and tokenizer.eos_token_id is None:
        problems.append(
            f"function {name!r}: drop_final_eos=True, and {type(tokenizer).__name__} has no end-of-sequence token; "
            "leave it False"
        )
    if problems:
        raise InputError(problems)


def _encode(
    function: FunctionData, tokenizer: Tokenizer, max_tokens: int | None, pooling: Pooling
) -> tuple[Encoded, npt.NDArray[np.uint8] | None]:
    paired = any(example.text_pair is not None for example in function.examples)
    least = tokenizer.num_special_tokens_to_add(pair=paired) + 1 + paired
    if max_tokens is not None and max_tokens < least:
        raise InputError(
            f"function {function.name!r}: max_tokens={max_tokens} leaves no room for text; expected at least {least}"
        )
    options = {"return_special_tokens_mask": pooling.skip_special, "return_offsets_mapping": pooling.kind == "span"}
    columns: dict[str, list[list[Any]]] = {}
    truncated: list[bool] = []
    for start in range(0, function.n_examples, _BATCH):
        examples = function.examples[start : start + _BATCH]
        found = _features(tokenizer, examples, options)
        long = [
            index for index, ids in enumerate(found["input_ids"]) if max_tokens is not None and len(ids) > max_tokens
        ]
        if long:
            limits = {"truncation": True, "max_length": max_tokens}
            shortened = _features(tokenizer, [examples[index] for index in long], options | limits)
            for name, values in shortened.items():
                for index, value in zip(long, values):
                    found[name][index] = value
        truncated += np.isin(np.arange(len(examples)), long).tolist()
        for name, values in found.items():
            columns.setdefault(name, []).extend(values)
    if pooling.drop_final_eos:
        _drop_final_eos(function.name, columns, tokenizer.eos_token_id)
    lengths = [len(ids) for ids in columns["input_ids"]]
    special, characters = columns.get("special_tokens_mask"), columns.get("offset_mapping")
    types = columns.get("token_type_ids")
    encoded = Encoded(
        token_ids=_flat(columns["input_ids"], np.int32),
        offsets_E1=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        truncated_E=np.array(truncated, bool),
        special=None if special is None else _flat(special, np.bool_),
        characters=None if characters is None else _flat(chain.from_iterable(characters), np.int64).reshape(-1, 2),
    )
    return encoded, None if types is None else _flat(types, np.uint8)


def _features(
    tokenizer: Tokenizer, examples: Sequence[Example], options: Mapping[str, Any]
) -> dict[str, list[list[Any]]]:
    """Ids and what `options` ask for, one list for each example, never padded."""
    fixed = {"add_special_tokens": True, "padding": False, "return_attention_mask": False, "verbose": False}
    texts = [example.text for example in examples]
    pairs = [example.text_pair for example in examples]
    paired = pairs[0] is not None
    encoding = tokenizer(texts, pairs if paired else None, **({"truncation": False} | fixed | dict(options)))
    names = ("input_ids", "token_type_ids", "special_tokens_mask", "offset_mapping")
    found = {name: list(encoding[name]) for name in names if name in encoding}
    if paired and "offset_mapping" in found:
        for index, spans in enumerate(found["offset_mapping"]):
            segments = encoding.sequence_ids(index)
            found["offset_mapping"][index] = [span if seg == 0 else (0, 0) for span, seg in zip(spans, segments)]
    return found


def _drop_final_eos(name: str, columns: dict[str, list[list[Any]]], eos: int | None) -> None:
    ends = [index for index, ids in enumerate(columns["input_ids"]) if ids and ids[-1] == eos]
    if not ends:
        raise InputError(
            f"function {name!r}: drop_final_eos=True, and no example ends in the end-of-sequence token {eos}; "
            "leave it False"
        )
    for values in columns.values():
        for index in ends:
            values[index] = values[index][:-1]


def _flat(values: Iterable[Iterable[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.fromiter(chain.from_iterable(values), dtype)


def _fingerprint(encoded: Encoded, type_ids: npt.NDArray[np.uint8] | None, rows: Rows) -> str:
    digest = hashlib.sha256(str(rows.reduction).encode())
    arrays = (encoded.token_ids, type_ids, encoded.offsets_E1, encoded.truncated_E, rows.example_R, rows.position_R)
    for array in (*arrays, rows.pool_mask):
        digest.update(b"-" if array is None else f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:16]
