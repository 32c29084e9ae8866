"""The plan of a job: what it will compute, write and need, known before any of it starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from modularity.errors import AllowanceError
from modularity.pipelines.config import Allowance
from modularity.runtime.progress import format_bytes, format_duration

TIME_RANGE = (0.6, 2.0)
"""Estimates, made by probes of a few milliseconds, lie within these multiples of the time that jobs take."""


@dataclass(frozen=True)
class Load:
    """What a job asks of a machine, with its model on a GPU or on the host."""

    on_gpu: bool
    n_parallel: int
    """Work items that run the model and can run side by side."""
    forward_flops: float
    """Floating-point operations of all of them."""
    dtype: str
    """Dtype of the weights."""
    weight_bytes: int
    """The weights, wherever they are."""
    device_bytes: int
    """GPU memory of a worker at its peak; 0 on the host."""
    worker_bytes: int
    """Host memory of a worker at its peak."""
    store_bytes: int
    """Bytes written, before compression."""
    analysis_seconds: float
    """Time of one thread of this machine for what needs no model."""
    flops_per_cpu: float | None
    """Operations per second of one CPU of this machine; None where no time is estimated for others."""


@dataclass(frozen=True)
class Loads:
    """What a job asks for on either kind of machine, and what its config has fixed."""

    gpu: Load
    host: Load
    may_use_gpu: bool = True
    """False where the config says `cpu`."""
    needs_gpu: bool = False
    """True where the config says `cuda` or spreads the model over GPUs."""
    gpus_per_worker: float | None = None
    cpus_per_worker: float | None = None
    workers: int | None = None
    has_settings: bool = True
    """False for a job without a `runtime` section, which is one process."""

    def times(self, n_runs: int) -> Self:
        """Loads of as many runs, side by side, each with one worker."""
        return self._changed(
            lambda load: replace(
                load,
                n_parallel=n_runs,
                forward_flops=n_runs * load.forward_flops,
                store_bytes=n_runs * load.store_bytes,
                analysis_seconds=n_runs * load.analysis_seconds,
            )
        )

    def and_then(self, other: "Loads") -> Self:
        """Loads of this job with another one after it, on the same workers."""

        def both(one: Load, two: Load) -> Load:
            return replace(
                one,
                weight_bytes=max(one.weight_bytes, two.weight_bytes),
                forward_flops=one.forward_flops + two.forward_flops,
                device_bytes=max(one.device_bytes, two.device_bytes),
                worker_bytes=max(one.worker_bytes, two.worker_bytes),
                store_bytes=one.store_bytes + two.store_bytes,
                analysis_seconds=one.analysis_seconds + two.analysis_seconds,
            )

        return replace(self, gpu=both(self.gpu, other.gpu), host=both(self.host, other.host))

    def _changed(self, change: Callable[[Load], Load]) -> Self:
        return replace(self, gpu=change(self.gpu), host=change(self.host))


@dataclass(frozen=True)
class Remedies:
    """What lowers the needs of a job, by keys that its config has; each ends with `or raise` the allowance."""

    store: str = "pool the positions, choose fewer sites, layers or examples"
    memory: str = "lower capture.tokens_per_batch or capture.rows_per_item"
    time: str = "lower functions.*.cap_per_label or predictivity.n_permutations"


def check_allowance(
    allowance: Allowance, store_bytes: int, worker_bytes: int, seconds: float | None, remedies: Remedies
) -> None:
    """Raise AllowanceError with everything that exceeds the allowance, and with what lowers it."""
    problems = []
    if store_bytes > allowance.store_bytes:
        problems.append(
            f"the store needs {format_bytes(store_bytes)}, allowed are {format_bytes(allowance.store_bytes)}: "
            f"{remedies.store}, or raise allowance.store_bytes"
        )
    if allowance.worker_bytes is not None and worker_bytes > allowance.worker_bytes:
        problems.append(
            f"a worker needs {format_bytes(worker_bytes)} of memory, allowed are "
            f"{format_bytes(allowance.worker_bytes)}: {remedies.memory}, or raise allowance.worker_bytes"
        )
    if allowance.hours is not None and seconds is not None and seconds > 3600 * allowance.hours:
        problems.append(
            f"the job takes about {format_duration(seconds)}, allowed are {allowance.hours:g} h: {remedies.time}, "
            "or raise allowance.hours"
        )
    if problems:
        raise AllowanceError("the plan exceeds its allowance\n  " + "\n  ".join(problems))


NOT_ESTIMATED = {"partition": "partitions", "experts": "tests of experts"}
"""Kinds of work items whose time is not estimated."""


@dataclass(frozen=True)
class Plan:
    """Size of a job."""

    items: Mapping[str, int]
    """Work items of each kind."""
    n_examples: int
    n_rows: int
    """Rows of the activation store, over all functions."""
    n_tokens: int
    """Real tokens of functions that go through the model."""
    n_truncated: int
    """Examples that lose their end."""
    store_bytes: int
    """Bytes written, before compression."""
    worker_bytes: int
    """Host memory of a worker at its peak, the interpreter with its libraries included."""
    seconds: float | None
    """Estimated time of capture and ranking for one worker like this machine; None where the model runs on a GPU."""
    device_bytes: int = 0
    """GPU memory of a worker at its peak; 0 without a GPU."""
    model_bytes: int = 0
    """Of `worker_bytes`: the weights."""
    library_bytes: int = 0
    """Of `worker_bytes`: interpreter, libraries and job data, measured in the process that plans."""
    notes: tuple[str, ...] = ()
    reuse: str | None = None
    """Which items are taken over from another run."""
    reductions: str | None = None
    """What is computed in flight, and its size."""
    loads: Loads | None = None
    """What it asks of machines elsewhere."""
    remedies: Remedies = Remedies()
    """What lowers the needs of this job."""
    n_estimated_tokens: int = 0
    """Tokens of corpora, by an estimate from a sample."""

    def rows(self) -> list[tuple[str, str]]:
        """Names and values as they are printed."""
        items = ", ".join(f"{count:,} {kind}" for kind, count in self.items.items())
        truncated = f" ({self.n_truncated:,} truncated)" if self.n_truncated else " (none truncated)"
        gpu = f", and {format_bytes(self.device_bytes)} of GPU memory" if self.device_bytes else ""
        return [
            ("work items", f"{sum(self.items.values()):,}: {items}"),
            *([("reused", self.reuse)] if self.reuse is not None else []),
            ("examples", f"{self.n_examples:,}{truncated}"),
            ("tokens", self._tokens_text()),
            ("rows", f"{self.n_rows:,}"),
            *([("reductions", self.reductions)] if self.reductions is not None else []),
            ("store", f"{format_bytes(self.store_bytes)} before compression"),
            ("memory", self._memory_text() + gpu),
            ("time", self._time_text()),
        ]

    def _tokens_text(self) -> str:
        if not self.n_estimated_tokens:
            return f"{self.n_tokens:,}"
        known = f"{self.n_tokens:,} of functions, and " if self.n_tokens else ""
        return f"{known}about {self.n_estimated_tokens:,} of corpora, by an estimate from a sample"

    def _memory_text(self) -> str:
        buffers = self.worker_bytes - self.model_bytes - self.library_bytes
        return (
            f"about {format_bytes(self.worker_bytes)} per worker, of which {format_bytes(self.model_bytes)} model, "
            f"{format_bytes(buffers)} buffers, {format_bytes(self.library_bytes)} libraries"
        )

    def _time_text(self) -> str:
        if self.seconds is None:
            return "not estimated: the model runs on a GPU"
        low, high = (format_duration(factor * self.seconds) for factor in TIME_RANGE)
        time = f"{low} to {high}" if low != high else f"about {low}"
        return f"{time} with one worker, {self.time_of()}"

    def time_of(self) -> str:
        """What the time is that of."""
        more = [word for kind, word in NOT_ESTIMATED.items() if kind in self.items]
        return f"for forwards and ranking ({' and '.join(more)} come on top)" if more else "for forwards and ranking"

    def text(self) -> str:
        """The plan as lines of text."""
        lines = [f"  {name:<11}{value}" for name, value in self.rows()]
        return "\n".join(["Plan", *lines, *(f"  note: {note}" for note in self.notes)])

    def check(self, allowance: Allowance) -> None:
        """Raise AllowanceError with everything that exceeds the allowance."""
        check_allowance(allowance, self.store_bytes, self.worker_bytes, self.seconds, self.remedies)
