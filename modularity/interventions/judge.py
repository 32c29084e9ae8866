"""A classifier that tells from a short text which of two categories it is from, and how far it can be trusted.

TF-IDF of character or word n-grams and a logistic regression, both of scikit-learn, trained on pieces of texts as long
as the continuations that are judged. Its accuracy is measured on pieces of other texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modularity.errors import DataError
from modularity.stats import Interval, wilson_interval

Features = Literal["characters", "words"]


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained classifier of two categories."""

    classifier: Any
    names: tuple[str, str]
    """Category 0 and category 1."""
    accuracy: Interval
    """On held-out pieces, as many of each category, with Wilson's interval; chance is one half."""
    n_training: int
    """Pieces it was trained on."""
    n_test: int
    """Held-out pieces."""

    def probability(self, texts: Sequence[str], name: str) -> np.ndarray:
        """P(category `name`) of each text, float64; a text without known n-grams gets what the training says of it."""
        if name not in self.names:
            raise DataError(f"category {name!r}: expected one of {', '.join(self.names)}")
        found: np.ndarray = self.classifier.predict_proba(list(texts))[:, self.names.index(name)]
        return found


def train_judge(
    names: tuple[str, str],
    training: tuple[Sequence[str], Sequence[str]],
    test: tuple[Sequence[str], Sequence[str]],
    *,
    features: Features = "characters",
    seed: int = 0,
) -> Judge:
    """Train on pieces of two categories, and test on others.

    Parameters
    ----------
    names : the categories
    training, test : pieces of the first category, and of the second; the larger side is cut to the smaller
    features : n-grams of 1 to 4 characters within words, or of 1 and 2 words
    seed : of the solver

    Raises
    ------
    DataError
        A side has no piece.
    """
    sizes = [len(side) for side in (*training, *test)]
    if not min(sizes):
        raise DataError(f"training and test pieces of {names}: {sizes}; expected at least one of each")
    analyser: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (1, 4)}
    if features == "words":
        analyser = {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"\S+"}
    classifier = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, dtype=np.float64, **analyser),
        LogisticRegression(C=10.0, max_iter=2000, random_state=seed),
    )
    pieces, labels = _balanced(training)
    classifier.fit(pieces, labels)
    held_out, gold = _balanced(test)
    n_right = int((classifier.predict(held_out) == gold).sum())
    return Judge(classifier, names, wilson_interval(n_right, len(gold)), len(labels), len(gold))


def _balanced(sides: tuple[Sequence[str], Sequence[str]]) -> tuple[list[str], np.ndarray]:
    n = min(map(len, sides))
    return [*sides[0][:n], *sides[1][:n]], np.repeat([0, 1], n)
