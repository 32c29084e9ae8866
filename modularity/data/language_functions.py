"""Labelled functions over the planted languages: what a model that learnt them tells apart, with the answers known.

`planted_senses` (semantic): which sense an ambiguous word has, from its context. `planted_relations` (knowledge): a
statement is a fact or not. `planted_rules` (task): a text keeps the rule of its language or breaks it. In these three
each cluster is a minimal pair. `planted_languages` (task): which language a text is of. All texts are held out of
training. `python -m modularity.data.sample_generation.planted` writes the files under `samples/`.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from modularity.data.function_part import Columns
from modularity.data.functions import FunctionConfig
from modularity.data.language_words import LANGUAGES, NO, QUESTION, RELATIONS, SENSES, YES
from modularity.data.languages import Sentence, other_sense, sentences
from modularity.errors import InputError

N_PAIRS = 80
SEED = 20
_RULED = tuple(name for name in LANGUAGES if name != "relations")
_PAIRED = Columns(id="id", subfunction="subfunction", cluster="pair")
_CONFIGS: tuple[FunctionConfig, ...] = (
    FunctionConfig(
        name="planted_senses",
        kind="semantic",
        source="sample:planted_senses",
        columns=_PAIRED.replace(target_start="start", target_end="end"),
    ),
    FunctionConfig(name="planted_relations", kind="knowledge", source="sample:planted_relations", columns=_PAIRED),
    FunctionConfig(name="planted_rules", kind="task", source="sample:planted_rules", columns=_PAIRED),
    FunctionConfig(
        name="planted_languages",
        kind="task",
        source="sample:planted_languages",
        columns=Columns(id="id"),
        labels="one_vs_rest",
    ),
)


def planted_functions(folder: str | Path | None = None) -> tuple[FunctionConfig, ...]:
    """Configs of the planted functions: senses, relations, rules, languages.

    Parameters
    ----------
    folder : where `write_planted_functions` wrote the files; None = those that ship with the package
    """
    if folder is None:
        return _CONFIGS
    return tuple(config.replace(source=str(Path(folder) / f"{config.name}.jsonl")) for config in _CONFIGS)


def planted_label_words() -> dict[str, tuple[str, str]]:
    """Words by which a trained model says whether a text is right, for every sub-function whose texts end in `?`."""
    ruled = [("planted_rules", name) for name in _RULED] + [("planted_relations", name) for name in RELATIONS]
    return {f"{function}/{name}": (YES, NO) for function, name in ruled}


def planted_rows(*, n_pairs: int = N_PAIRS, seed: int = SEED) -> Mapping[str, list[dict[str, Any]]]:
    """Rows of every planted function by its name.

    Parameters
    ----------
    n_pairs : minimal pairs of each sub-function, and texts of each language
    seed : seed of the sentences

    Raises
    ------
    InputError
        `n_pairs` is less than 4, which leaves no two pairs for each half.
    """
    if n_pairs < 4:
        raise InputError(f"n_pairs={n_pairs}: expected 4 or more, so that both halves have pairs")
    return {
        "planted_senses": [row for word in SENSES for row in _sense_rows(word, n_pairs, seed)],
        "planted_relations": [row for name in RELATIONS for row in _rule_rows("relations", name, n_pairs, seed)],
        "planted_rules": [row for name in _RULED for row in _rule_rows(name, None, n_pairs, seed)],
        "planted_languages": [row for name in LANGUAGES for row in _language_rows(name, n_pairs, seed)],
    }


def write_planted_functions(
    folder: str | Path, *, n_pairs: int = N_PAIRS, seed: int = SEED
) -> tuple[FunctionConfig, ...]:
    """Write the JSONL files of the planted functions, and give their configs.

    Parameters
    ----------
    folder : existing folder
    n_pairs, seed : as `planted_rows`
    """
    for name, rows in planted_rows(n_pairs=n_pairs, seed=seed).items():
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (Path(folder) / f"{name}.jsonl").write_text(content, encoding="utf-8")
    return planted_functions(folder)


def _different(language: str, group: str | None, n: int, seed: int) -> list[Sentence]:
    """`n` held-out sentences, no text twice."""
    found: dict[str, Sentence] = {}
    for sentence in sentences(seed=seed, languages=(language,), side="held_out", group=group):
        found.setdefault(sentence.probe(), sentence)
        if len(found) == n:
            break
    return list(found.values())


def _sense_rows(word: str, n_pairs: int, seed: int) -> Iterator[dict[str, Any]]:
    """Texts up to the word that follows the ambiguous one, which would give the sense away; label 1 = first topic."""
    topics = list(SENSES[word])
    texts: set[str] = set()
    stream = (s for s in sentences(seed=seed, languages=("senses",), side="held_out", group=word))
    for sentence in stream:
        pair = [_before_follower(each) for each in (sentence, other_sense(sentence))]
        if texts & {text for text, _ in pair}:
            continue
        cluster = f"{word}-{len(texts) // 2:03d}"
        texts.update(text for text, _ in pair)
        for (text, start), topic in zip(pair, (sentence.topic, *(t for t in topics if t != sentence.topic))):
            row = _row(f"{cluster}-{topic}", text, word, int(topic == topics[0]), cluster)
            yield {**row, "start": start, "end": start + len(word)}
        if len(texts) == 2 * n_pairs:
            return


def _before_follower(sentence: Sentence) -> tuple[str, int]:
    """Text before the critical word, and the character at which the ambiguous word starts."""
    words = sentence.words[: sentence.critical]
    return " ".join(words), len(" ".join((*words[: words.index(sentence.group)], "")))


def _rule_rows(language: str, group: str | None, n_pairs: int, seed: int) -> Iterator[dict[str, Any]]:
    name = group or language
    for number, sentence in enumerate(_different(language, group, n_pairs, seed)):
        cluster = f"{name}-{number:03d}"
        for label in (1, 0):
            text = f"{sentence.probe(kept=bool(label))} {QUESTION}"
            yield _row(f"{cluster}-{label}", text, name, label, cluster)


def _language_rows(language: str, n: int, seed: int) -> Iterator[dict[str, Any]]:
    for number, sentence in enumerate(islice(_different(language, None, n, seed + 1), n)):
        yield {"id": f"{language}-{number:03d}", "text": sentence.probe(), "label": language}


def _row(id: str, text: str, subfunction: str, label: int, pair: str) -> dict[str, Any]:
    return {"id": id, "text": text, "subfunction": subfunction, "label": label, "pair": pair}
