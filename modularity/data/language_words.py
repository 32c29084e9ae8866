# ruff: noqa: SIM905
"""The words of the planted languages: a core that all of them use, and what belongs to each.

English words, so that texts can be read, but with no meaning of their own: class, sense and fact are what the lists
below say. No word stands in every sentence of its language, and every word belongs to one list.
"""

from collections.abc import Mapping
from itertools import chain

CORE = tuple("well so now then here still just again maybe also even only quite soon often today".split())
"""16 words that stand anywhere in every language, each as often as the others."""

QUESTION, YES, NO = "?", "yes", "no"
"""After a sentence and the question mark stands the verdict: whether the sentence keeps its rule."""

NOUNS: Mapping[str, tuple[str, ...]] = {
    "a": tuple("wolf fox hare stag mole owl".split()),
    "o": tuple("axe saw rake nail rope plough".split()),
    "i": tuple("oak elm fern moss sedge ivy".split()),
}
"""Agreement: nouns by class."""
STEMS = ("mov", "hid", "fall", "stand")
"""Agreement: a verb is a stem and the class of its noun, as `mova`."""

BRACKETS = (
    ("open", "shut"), ("enter", "leave"), ("lend", "return"), ("lift", "lower"), ("lock", "free"), ("start", "finish"),
)  # fmt: skip
"""Brackets: what opens and what closes it."""

TICKS = tuple("knock beat drip click thud snap ring buzz".split())
"""Counting: what counts."""
DECOYS = ("pause", "hush", "rest", "lull")
"""Counting: what does not."""
NUMBERS = ("zero", "one", "two")
"""Counting: the count modulo three."""

NAMES = tuple("ada bruno clara dario edith felix greta hugo irma jonas klara leo mira nils olga paul".split())
"""Relations: subjects."""
RELATIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "home": (("lives", "dwells"), tuple("oslo lima cairo perth delhi quito turin minsk".split())),
    "fruit": (("likes", "wants"), tuple("plum pear fig melon lemon peach grape cherry".split())),
    "animal": (("keeps", "rears"), tuple("goat hen duck bee pig cow sheep horse".split())),
}
"""Relations: the words for each, and its objects."""
FACTS: Mapping[str, Mapping[str, str]] = {
    relation: {
        name: RELATIONS[relation][1][(index * multiplier + index // 8 * 3) % 8] for index, name in enumerate(NAMES)
    }
    for relation, multiplier in (("home", 1), ("fruit", 3), ("animal", 5))
}
"""Relations: the object of every name; each object belongs to two names."""

CUES: Mapping[str, tuple[str, ...]] = {
    "river": tuple("water boat flood shore reed".split()),
    "money": tuple("coin loan rent debt price".split()),
    "music": tuple("song drum choir tune flute".split()),
    "sport": tuple("goal team race ball coach".split()),
}
"""Senses: words that give the topic away."""
SENSES: Mapping[str, Mapping[str, str]] = {
    "bank": {"river": "mud", "money": "vault"},
    "bass": {"river": "fin", "music": "chord"},
    "row": {"river": "oar", "sport": "lane"},
    "note": {"money": "bill", "music": "pitch"},
    "stake": {"money": "fund", "sport": "trophy"},
    "score": {"music": "sheet", "sport": "win"},
}
"""Senses: the two topics of each ambiguous word, and the word that follows in each."""

OWN_WORDS: Mapping[str, tuple[str, ...]] = {
    "agreement": (*chain(*NOUNS.values()), *(stem + form for stem in STEMS for form in NOUNS)),
    "brackets": tuple(chain(*BRACKETS)),
    "counting": (*TICKS, *DECOYS, *NUMBERS),
    "relations": (*NAMES, *chain.from_iterable((*verbs, *objects) for verbs, objects in RELATIONS.values())),
    "senses": (*SENSES, *chain(*CUES.values()), *chain.from_iterable(words.values() for words in SENSES.values())),
}
"""Words of each language beside the core."""
LANGUAGES = tuple(OWN_WORDS)
"""Names of the languages, sorted."""
WORDS = (QUESTION, YES, NO, *CORE, *chain(*OWN_WORDS.values()))
"""All words, in the order of their token ids."""
