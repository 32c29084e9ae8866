"""Texts of a MoEfication job: those that routers learn from and those on which all is measured, disjoint.

Routers learn from the selection half of every function; a text that also stands in the evaluation half of another
function is left out there, and counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modularity.data import FunctionData, Pooling, TokenTable, tokenise
from modularity.errors import InputError

SEED = 0
"""Of the draws of texts, the same for every seed of the job."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Chosen texts of all functions, one after the other."""

    tables: Mapping[str, TokenTable]
    """Tokens by function; a function without a text is left out."""
    example_ids: tuple[str, ...]
    function_N: tuple[str, ...]
    cluster_N: np.ndarray
    """int64: texts with one number belong together; numbered over all functions from 0."""

    @property
    def n_texts(self) -> int:
        """Number of texts (N)."""
        return len(self.example_ids)

    @property
    def n_tokens(self) -> int:
        """Tokens of all of them."""
        return sum(table.n_tokens for table in self.tables.values())

    @property
    def lengths_N(self) -> np.ndarray:
        """Tokens of each text."""
        return np.concatenate([table.lengths_E for table in self.tables.values()])

    def starts(self) -> dict[str, int]:
        """Place of the first text of each function."""
        sizes = [table.n_examples for table in self.tables.values()]
        return dict(zip(self.tables, np.cumsum([0, *sizes[:-1]]).tolist()))


@dataclass(frozen=True, eq=False)
class TextHalves:
    """Both sides of a job."""

    training: Texts
    evaluation: Texts
    notes: tuple[str, ...]
    """What was left out, with counts."""


def choose_texts(
    functions: Sequence[FunctionData],
    tokenizer: Any,
    *,
    max_tokens: int,
    training_tokens: int,
    evaluation_tokens: int,
    least_tokens: int = 1,
) -> TextHalves:
    """Draw whole texts of each half up to a number of tokens.

    Parameters
    ----------
    functions : with their two halves
    tokenizer : a Hugging Face tokenizer
    max_tokens : longer texts lose their end
    training_tokens, evaluation_tokens : texts are drawn until there are as many
    least_tokens : shorter texts are left out: 2 where the next token is predicted

    Raises
    ------
    InputError
        A half has no text left.
    """
    measured = {e.fingerprint for f in functions for e, chosen in zip(f.examples, f.selection_E) if not chosen}
    halves, notes = {}, [note for function in functions for note in function.notes]
    for half, n_tokens in (("selection", training_tokens), ("evaluation", evaluation_tokens)):
        usable, counts = [], {"also measured": 0, "repeated": 0}
        seen: set[str] = set()
        for function in functions:
            kept = []
            for index in np.flatnonzero(function.selection_E == (half == "selection")).tolist():
                fingerprint = function.examples[index].fingerprint
                if half == "selection" and fingerprint in measured:
                    counts["also measured"] += 1
                elif fingerprint in seen:
                    counts["repeated"] += 1
                else:
                    seen.add(fingerprint)
                    kept.append(index)
            usable.append(_subset(function, kept))
        halves[half], dropped = _draw(usable, tokenizer, max_tokens, n_tokens, least_tokens, half)
        notes += _notes(half, counts, dropped, halves[half])
    return TextHalves(halves["selection"], halves["evaluation"], tuple(notes))


def _draw(
    functions: Sequence[FunctionData], tokenizer: Any, max_tokens: int, n_tokens: int, least_tokens: int, half: str
) -> tuple[Texts, dict[str, int]]:
    """Texts of all functions in random order until there are enough tokens."""
    whole = {f.name: _table(f, tokenizer, max_tokens) for f in functions if f.n_examples}
    lengths = [table.lengths_E for table in whole.values()]
    length_N = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
    order = np.random.default_rng(SEED).permutation(len(length_N))
    order = order[length_N[order] >= least_tokens]
    n_drawn = int(np.searchsorted(np.cumsum(length_N[order]), n_tokens)) + 1
    chosen_N = np.zeros(len(length_N), dtype=bool)
    chosen_N[order[:n_drawn]] = True
    if not chosen_N.any():
        raise InputError(
            f"no text is left in the {half} half of {', '.join(f.name for f in functions)}: expected some of at least "
            f"{least_tokens} tokens, in this half alone; give more data"
        )
    dropped = {"too short": int((length_N < least_tokens).sum()), "beyond": len(order) - int(chosen_N.sum())}
    tables, ids, names, clusters, start = {}, [], [], [], 0
    for function in functions:
        if function.name not in whole:
            continue
        kept = np.flatnonzero(chosen_N[start : start + function.n_examples])
        start += function.n_examples
        if not len(kept):
            continue
        part = _subset(function, kept.tolist())
        tables[part.name] = _table(part, tokenizer, max_tokens)
        ids += [example.id for example in part.examples]
        names += [part.name] * part.n_examples
        clusters += [(part.name, int(cluster)) for cluster in part.cluster_E]
    numbers = {pair: number for number, pair in enumerate(dict.fromkeys(clusters))}
    return Texts(tables, tuple(ids), tuple(names), np.array([numbers[pair] for pair in clusters])), dropped


def _table(function: FunctionData, tokenizer: Any, max_tokens: int) -> TokenTable:
    return tokenise(function, tokenizer, max_tokens=max_tokens, pooling=Pooling(kind="max"))


def _subset(function: FunctionData, kept: Sequence[int]) -> FunctionData:
    index = np.array(kept, dtype=np.int64)
    return replace(
        function,
        examples=tuple(function.examples[i] for i in kept),
        labels_SE=function.labels_SE[:, index],
        selection_E=function.selection_E[index],
        cluster_E=function.cluster_E[index],
    )


def _notes(half: str, counts: Mapping[str, int], dropped: Mapping[str, int], texts: Texts) -> list[str]:
    notes = []
    if counts["also measured"]:
        notes.append(
            f"{counts['also measured']:,} texts of the selection half are in the evaluation half of another function, "
            "and train no router"
        )
    if counts["repeated"]:
        notes.append(f"{counts['repeated']:,} texts of the {half} half stand in several functions, and are used once")
    if dropped["too short"]:
        notes.append(f"{dropped['too short']:,} texts of the {half} half have no next token to predict, left out")
    if dropped["beyond"]:
        key = "training.tokens" if half == "selection" else "evaluation_tokens"
        notes.append(
            f"{texts.n_texts:,} texts of {texts.n_tokens:,} tokens are drawn from the {half} half, "
            f"{dropped['beyond']:,} more are not needed (raise {key} to use them)"
        )
    return notes
