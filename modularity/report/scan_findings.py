"""What a checkpoint scan found, in two sentences: how far neurons come in training, and which ranking settles."""

from collections.abc import Mapping

import numpy as np

from modularity.report.content import Finding, FloatArray
from modularity.report.findings import LEVEL, holm
from modularity.report.scan_content import SHOWN_LEVELS, ScanContent, ScanFunction, Similarity
from modularity.report.wording import count, joined, number, p_value, with_interval

SUBJECT = "Training"
SECTION = "training"


def scan_findings(content: ScanContent) -> tuple[Finding, ...]:
    """Sentences on the best neurons at the first and the last step, and on the likeness of consecutive checkpoints.

    Parameters
    ----------
    content : the scan; a sentence that it has no values for is left out

    Returns
    -------
    findings : the first `supported` only if the best neurons of every function are beyond permuted labels at the last
        step (Holm over functions); the second tests nothing (`descriptive`)
    """
    return tuple(found for found in (_neurons(content), _settling(content)) if found is not None)


def _neurons(content: ScanContent) -> Finding | None:
    shown = [f for f in content.functions if np.isfinite(f.best.value_T[[0, -1]]).all()]
    if not shown:
        return None
    adjusted = holm([float(f.best.p_value_T[-1]) for f in shown])
    beyond = all(p is not None and p <= LEVEL for p in adjusted)
    parts = [
        f"{f.name} from {_at(f.best.value_T, f.best.low_T, f.best.high_T, 0)} to "
        f"{_at(f.best.value_T, f.best.low_T, f.best.high_T, -1)}, {p_value(p)}"
        for f, p in zip(shown, adjusted)
    ]
    text = (
        f"{SUBJECT}: from step {count(int(content.steps_T[0]))} to step {count(int(content.steps_T[-1]))} of another "
        "model the normalised AP of the best neurons "
        f"[95 % interval; 0 is a constant neuron; p at the last step, corrected] goes for {'; for '.join(parts)}."
    )
    return Finding(text, "supported" if beyond else "unsupported", SUBJECT, SECTION)


def _settling(content: ScanContent) -> Finding | None:
    parts = [part for part in map(_settling_of, content.functions) if part]
    if not parts:
        return None
    text = (
        f"{SUBJECT}: Spearman correlation of consecutive checkpoints, first pair → last pair [95 % interval over "
        f"sub-functions], random groups as chance level of experts: {'; '.join(parts)}."
    )
    return Finding(text, "descriptive", SUBJECT, SECTION)


def _settling_of(function: ScanFunction) -> str | None:
    found: Mapping[str, Similarity] = {
        level: similarity
        for level in SHOWN_LEVELS
        if (similarity := function.similarity.get(("consecutive", level))) is not None
        and np.isfinite(similarity.rho_T).any()
    }
    if not found:
        return None
    words = []
    for level, similarity in found.items():
        known = np.flatnonzero(np.isfinite(similarity.rho_T))
        first, last = (_at(similarity.rho_T, similarity.low_T, similarity.high_T, int(i)) for i in known[[0, -1]])
        words.append(f"{'random groups' if level == SHOWN_LEVELS[-1] else level} {first} → {last}")
    return f"{function.name} (n = {number(function.n_subfunctions, 0)}): {joined(words)}"


def _at(value: FloatArray, low: FloatArray, high: FloatArray, index: int) -> str:
    return with_interval(float(value[index]), float(low[index]), float(high[index]))
