"""Texts brought together: means per layer with intervals, the model against its controls, layers against each other.

The unit is the text. Measures are per token ("directions per token", of D): the Jacobian of a longer text is larger,
and that of an FFN is one block for each token. Ratios to a control are paired by text: the test flips the signs of the
differences of logarithms. Layers are compared by Friedman's test with texts as blocks.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import friedmanchisquare

from modularity.pipelines.tight_pass_config import MODEL, TightPassConfig
from modularity.pipelines.tight_pass_measure import columns_of
from modularity.stats import benjamini_hochberg, bootstrap_interval
from modularity.stats.sign_flip import sign_flip_test
from modularity.store import Run, table_from_columns
from modularity.types import WorkItem

Row = Mapping[str, Any]
PER_TOKEN = (
    "rank",
    "rank_float32",
    "rank_bound",
    "stable_rank",
    "effective_rank",
    "above_tenth",
    "above_hundredth",
    "above_thousandth",
)
TESTED = ("rank", "stable_rank", "effective_rank", "above_hundredth", "token_stable_rank", "token_effective_rank")
MEASURES = (*PER_TOKEN, "token_stable_rank", "token_effective_rank", "active_share")


def write_tests(run: Run, item: WorkItem, config: TightPassConfig) -> dict[str, Any]:
    """The tables `tight_pass_layers`, `tight_pass_tests` and `tight_pass_layer_tests` from all spectra."""
    rows = run.table("tight_pass").to_pylist()
    tables = {
        "tight_pass_layers": list(layer_rows(rows, config)),
        "tight_pass_tests": with_q(list(control_rows(rows, config))),
        "tight_pass_layer_tests": with_q(list(position_rows(rows, config))),
    }
    written = [
        run.write_table(name, item, table_from_columns(columns_of(list(found))))
        for name, found in tables.items()
        if found
    ]
    run.commit(item, tables=written)
    return {}


def value_of(row: Row, measure: str) -> float:
    """A measure of one spectrum, per token where it counts directions."""
    value = float(row[measure])
    return value / row["n_tokens"] if measure in PER_TOKEN else value


def _cells(rows: Sequence[Row]) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    """Rows of each kind, layer and control, texts in one order."""
    keys = sorted({(row["sub_block"], row["layer"], row["control"]) for row in rows})
    for kind, layer, control in keys:
        names = {"sub_block": kind, "layer": layer, "control": control}
        own = [row for row in rows if all(row[name] == value for name, value in names.items())]
        yield names, sorted(own, key=lambda row: row["text"])


def layer_rows(rows: Sequence[Row], config: TightPassConfig) -> Iterator[dict[str, Any]]:
    """Mean over texts of every measure, with a bootstrap interval over texts; NaN with a single text."""
    for names, own in _cells(rows):
        for measure in MEASURES:
            values_N = np.array([value_of(row, measure) for row in own])
            if not np.isfinite(values_N).all():
                continue
            low, high = _interval(values_N, config)
            yield {
                **names, "measure": measure, "n_texts": len(values_N), "mean": float(values_N.mean()), "low": low,
                "high": high, "smallest": float(values_N.min()), "largest": float(values_N.max()),
            }  # fmt: skip


def _interval(values_N: np.ndarray, config: TightPassConfig) -> tuple[float, float]:
    if len(values_N) < 2:
        return float("nan"), float("nan")
    interval = bootstrap_interval(
        lambda weights_NR: weights_NR @ values_N / weights_NR.sum(axis=1),
        len(values_N),
        n_resamples=config.n_resamples,
        seed=config.seed,
    )
    return interval.low, interval.high


def control_rows(rows: Sequence[Row], config: TightPassConfig) -> Iterator[dict[str, Any]]:
    """The model against each control: ratio of geometric means over texts, and a paired test."""
    cells = {tuple(names.values()): own for names, own in _cells(rows)}
    for (kind, layer, control), own in cells.items():
        if control == MODEL:
            continue
        trained = cells[kind, layer, MODEL]
        for measure in TESTED:
            pairs = [(value_of(a, measure), value_of(b, measure)) for a, b in zip(trained, own, strict=True)]
            if not all(a > 0 and b > 0 for a, b in pairs):  # NaN: not known; 0: has no logarithm
                continue
            test = sign_flip_test(np.array([np.log(a / b) for a, b in pairs]), seed=config.seed)
            yield {
                "sub_block": kind, "layer": layer, "control": control, "measure": measure, "n_texts": test.n,
                "model_mean": float(np.mean([a for a, _ in pairs])),
                "control_mean": float(np.mean([b for _, b in pairs])),
                "ratio": float(np.exp(test.mean)), "low": float(np.exp(test.interval.low)),
                "high": float(np.exp(test.interval.high)), "p_value": test.p_value,
                "smallest_p_value": test.smallest_p_value,
            }  # fmt: skip


def position_rows(rows: Sequence[Row], config: TightPassConfig) -> Iterator[dict[str, Any]]:
    """Whether layers differ, and which is lowest, for the model and each control."""
    for kind in config.kinds:
        for control in config.conditions():
            for measure in TESTED:
                found = _by_text(rows, kind, control, measure)
                if found is None:
                    continue
                layers, values_TL = found
                enough = values_TL.shape[0] > 1 and len(layers) > 2
                differ = bool(np.ptp(values_TL, axis=1).any())
                p = float(friedmanchisquare(*values_TL.T).pvalue) if enough and differ else 1.0
                means_L = values_TL.mean(axis=0)
                lowest, highest = int(means_L.argmin()), int(means_L.argmax())
                yield {
                    "sub_block": kind, "control": control, "measure": measure, "n_texts": len(values_TL),
                    "n_layers": len(layers), "lowest_layer": layers[lowest], "lowest_mean": float(means_L[lowest]),
                    "n_lowest": int((values_TL.argmin(axis=1) == lowest).sum()), "highest_layer": layers[highest],
                    "highest_mean": float(means_L[highest]), "p_value": p,
                }  # fmt: skip


def _by_text(rows: Sequence[Row], kind: str, control: str, measure: str) -> tuple[list[int], np.ndarray] | None:
    own = [row for row in rows if row["sub_block"] == kind and row["control"] == control]
    layers, texts = sorted({row["layer"] for row in own}), sorted({row["text"] for row in own})
    values_TL = np.full((len(texts), len(layers)), np.nan)
    for row in own:
        values_TL[texts.index(row["text"]), layers.index(row["layer"])] = value_of(row, measure)
    return (layers, values_TL) if values_TL.size and np.isfinite(values_TL).all() else None


def with_q(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with `q_value`: Benjamini-Hochberg over all of them."""
    if not rows:
        return []
    q_values = benjamini_hochberg(np.array([row["p_value"] for row in rows]))
    return [{**row, "q_value": float(q)} for row, q in zip(rows, q_values, strict=True)]
