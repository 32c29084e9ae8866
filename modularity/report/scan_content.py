"""What the page of a checkpoint scan shows, as plain values, and how it is read from the scan's tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.errors import StoreError
from modularity.report.content import FloatArray
from modularity.store import Run, ScanRecord, open_space, open_summary, read_scan

Row = dict[str, Any]

SHOWN_LEVELS = ("experts", "neurons", "random partitions")


@dataclass(frozen=True, eq=False)
class StepCurve:
    """One value along the steps, with an interval and what chance gives."""

    value_T: FloatArray
    low_T: FloatArray
    high_T: FloatArray
    null_T: FloatArray
    null_low_T: FloatArray
    null_high_T: FloatArray
    """5 and 95 % of the permutations."""
    p_value_T: FloatArray


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike checkpoints rank the units of one level: correlation at each step, with bootstrap ends."""

    rho_T: FloatArray
    low_T: FloatArray
    high_T: FloatArray


@dataclass(frozen=True, eq=False)
class ScanFunction:
    """Everything along the steps for one function."""

    name: str
    n_subfunctions: int
    n_layers: int
    best_layer_T: tuple[int, ...]
    best: StepCurve
    """Normalised AP on evaluation examples of the best neurons of the best layer."""
    proportion: StepCurve | None
    degree: StepCurve | None
    """Functional experts over all layers against permuted labels."""
    similarity: Mapping[tuple[str, str], Similarity]
    """By comparison (`consecutive`, `final`, `reliability`) and level (`SHOWN_LEVELS`)."""


@dataclass(frozen=True, eq=False)
class ScanContent:
    """The whole page of a scan."""

    title: str
    uri: str
    state: str
    steps_T: FloatArray
    functions: tuple[ScanFunction, ...]
    partition_of: str | None
    failed: tuple[tuple[str, str], ...]
    """Name and error of the checkpoints that failed."""
    equal_parameters: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    checkpoints: tuple[tuple[str, str, str], ...]
    """Name, state and parameter hash."""
    settings: tuple[tuple[str, str], ...]
    created: str

    @property
    def held_out(self) -> bool:
        """Whether neurons were scored on other examples than those they were chosen on."""
        return dict(self.settings).get("variant") == "corrected"


def scan_content(uri: str) -> ScanContent:
    """Everything that the page of the scan at `uri` shows; StoreError where it has no tables yet."""
    record, summary = read_scan(uri), open_summary(uri)
    if summary.manifest.state != "finished":
        raise StoreError(f"the tables of the scan at {uri} are not finished; the command that started it goes on")
    config = summary.manifest.config
    rows = summary.table("function_steps").to_pylist()
    steps = sorted({row["step"] for row in rows})
    names = [function["name"] for function in config["functions"]]
    return ScanContent(
        title=f"Emergence of modularity over {len(steps)} checkpoints of {_model_name(record)}",
        uri=open_space(uri).uri,
        state=record.state,
        steps_T=np.array(steps, dtype=np.float64),
        functions=tuple(_function(name, summary, rows) for name in names),
        partition_of=record.partition_of,
        failed=tuple((c.name, (c.error or "").strip()) for c in record.checkpoints if c.state == "failed"),
        equal_parameters=record.equal_parameters,
        notes=record.notes,
        checkpoints=tuple((c.name, c.state, (c.parameter_hash or "")[:16]) for c in record.checkpoints),
        settings=(
            ("variant", str(config["variant"])),
            ("label permutations", str(config["predictivity"]["n_permutations"])),
            ("experts per layer", str(config["experts"]["n_experts"])),
            ("random partitions", str(config["scan"]["n_random"])),
            ("bootstrap resamples", str(config["scan"]["n_bootstrap"])),
        ),
        created=record.created,
    )


def _model_name(record: ScanRecord) -> str:
    """Hub id, or the folder that holds the checkpoints."""
    first = record.checkpoints[0]
    if first.revision is not None:
        return first.model
    parts = [part for part in first.model.replace("\\", "/").split("/") if part]
    return "/".join(parts[-2:-1]) or first.model


def _function(name: str, summary: Run, rows: list[Row]) -> ScanFunction:
    own = sorted((row for row in rows if row["function"] == name), key=lambda row: row["step"])
    similar = [row for row in summary.table("stabilisation").to_pylist() if row["function"] == name]
    levels = {row["level"] for row in similar}
    expert = "native" if "native" in levels else "balanced"
    shown = dict(zip(SHOWN_LEVELS, (expert, "neuron", "random partition")))
    steps = [row["step"] for row in own]
    return ScanFunction(
        name=name,
        n_subfunctions=similar[0]["n_subfunctions"],
        n_layers=similar[0]["n_layers"],
        best_layer_T=tuple(row["best_layer"] for row in own),
        best=_curve(own, "normalised_evaluation", "", low="low", high="high"),
        proportion=_curve(own, "proportion", "proportion_"),
        degree=_curve(own, "degree", "degree_"),
        similarity={
            (comparison, level): _similarity(similar, comparison, stored, steps)
            for comparison in ("consecutive", "final", "reliability")
            for level, stored in shown.items()
            if stored in levels
        },
    )


def _column(rows: list[Row], name: str | None) -> FloatArray:
    values = [np.nan if name is None or row.get(name) is None else row[name] for row in rows]
    return np.array(values, dtype=np.float64)


def _curve(rows: list[Row], value: str, prefix: str, *, low: str | None = None, high: str | None = None) -> StepCurve:
    nulls = (_column(rows, f"{prefix}{name}") for name in ("null_mean", "null_low", "null_high", "p_value"))
    return StepCurve(_column(rows, value), _column(rows, low), _column(rows, high), *nulls)


def _similarity(rows: list[Row], comparison: str, level: str, steps: list[int]) -> Similarity:
    found = {row["step"]: row for row in rows if (row["comparison"], row["level"]) == (comparison, level)}
    at_steps = [found.get(step, {}) for step in steps]
    return Similarity(*(_column(at_steps, name) for name in ("rho", "low", "high")))
