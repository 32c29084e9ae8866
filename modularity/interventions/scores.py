"""How well label words were chosen: accuracy alone hides a model that answers one label to everything.

Source: the read-out of Zhang et al. 2023, arXiv 2305.18390, Fig. 2, is accuracy; a perturbed model may fall below the
majority share by collapsing to the minority label. Balanced accuracy and the correlation coefficient of Matthews (1975;
for several classes Gorodkin 2004) are at chance then, and the logit margin moves before any answer does.
"""

from dataclasses import asdict, dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, matthews_corrcoef

from modularity.errors import DataError, NumericError

COLLAPSE_SHARE = 0.95
"""Answers of one label from which on a model counts as collapsed."""


@dataclass(frozen=True)
class TaskScores:
    """Scores of one task, over its examples."""

    n: int
    """Examples."""
    accuracy: float
    """Share of right answers."""
    balanced_accuracy: float
    """Mean over classes of the share of right answers; chance is 1 / number of classes."""
    mcc: float
    """Correlation coefficient of Matthews, in [-1, 1]; 0 at chance, and where all answers are one label."""
    margin: float
    """Mean of the logit of the right label word minus the largest other one."""
    majority: float
    """Share of the most frequent class: the accuracy of a constant answer at best."""
    answer_share: float
    """Share of the most frequent answer."""
    top_answer: int
    """That answer, lowest index if there are several."""
    collapsed: bool
    """Whether `answer_share` is at least 0.95 while no class is that frequent."""

    def as_dict(self) -> dict[str, float | int | bool]:
        """All scores by name."""
        return asdict(self)


def task_scores(logits_EC: np.ndarray, gold_E: np.ndarray) -> TaskScores:
    """Scores of answers read from the logits of label words.

    Parameters
    ----------
    logits_EC : float array of shape (n_examples, n_classes), finite; the largest is the answer, ties by lowest index
    gold_E : int array of shape (n_examples,), the right class; every class occurs

    Raises
    ------
    DataError
        Shapes do not fit, a class does not occur, or there are fewer than two.
    NumericError
        A logit is not finite.
    """
    gold = _checked(logits_EC, gold_E)
    n_examples, n_classes = logits_EC.shape
    answer_E = logits_EC.argmax(axis=1)
    confusion_CC = confusion_matrix(gold, answer_E, labels=np.arange(n_classes))
    gold_C, answer_C = confusion_CC.sum(axis=1), confusion_CC.sum(axis=0)
    answer_share, majority = float(answer_C.max()) / n_examples, float(gold_C.max()) / n_examples
    return TaskScores(
        n=n_examples,
        accuracy=float(np.trace(confusion_CC)) / n_examples,
        balanced_accuracy=float((np.diag(confusion_CC) / gold_C).mean()),
        mcc=float(matthews_corrcoef(gold, answer_E)),
        margin=float(logit_margins(logits_EC, gold).mean()),
        majority=majority,
        answer_share=answer_share,
        top_answer=int(answer_C.argmax()),
        collapsed=answer_share >= COLLAPSE_SHARE > majority,
    )


def logit_margins(logits_EC: np.ndarray, gold_E: np.ndarray) -> np.ndarray:
    """Logit of the right class minus the largest other one, float64 of shape (n_examples,)."""
    logits = np.array(logits_EC, dtype=np.float64)
    rows = np.arange(len(logits))
    right_E = logits[rows, gold_E]
    logits[rows, gold_E] = -np.inf
    margin_E: np.ndarray = right_E - logits.max(axis=1)
    return margin_E


def _checked(logits_EC: np.ndarray, gold_E: np.ndarray) -> np.ndarray:
    gold = np.asarray(gold_E)
    if (
        logits_EC.ndim != 2
        or logits_EC.shape[1] < 2
        or gold.shape != logits_EC.shape[:1]
        or gold.dtype.kind not in "iu"
    ):
        raise DataError(
            f"logits have shape {logits_EC.shape} and classes shape {gold.shape}, dtype {gold.dtype}: expected "
            "(examples, classes) with at least two classes, and one integer for each example"
        )
    missing = sorted(set(range(logits_EC.shape[1])) ^ set(np.unique(gold).tolist()))
    if missing:
        raise DataError(
            f"classes {missing} do not occur, or have no logit: expected examples of every class of "
            f"0 to {logits_EC.shape[1] - 1}"
        )
    if not np.isfinite(logits_EC).all():
        example = int(np.argwhere(~np.isfinite(logits_EC))[0, 0])
        raise NumericError(
            f"a logit of example {example} is not finite: noise this strong leaves the range of the dtype"
        )
    return gold
