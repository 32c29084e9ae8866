"""The plan of a job: what it will compute, write and need, known before any of it starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from modularity.errors import AllowanceError
from modularity.pipelines.config import Allowance
from modularity.runtime.progress import format_bytes, format_duration


@dataclass(frozen=True)
class Plan:
    """Size of a job."""

    items: Mapping[str, int]
    """Work items of each kind."""
    n_examples: int
    n_rows: int
    """Rows of the activation store, over all functions."""
    n_tokens: int
    """Real tokens that go through the model."""
    n_truncated: int
    """Examples that lose their end."""
    store_bytes: int
    """Bytes written, before compression."""
    worker_bytes: int
    """Host memory of a worker at its peak, above that of the interpreter with its libraries (some 0.5 to 1 GB)."""
    seconds: float | None
    """Estimated time of capture and ranking for one worker like this machine; None where the model runs on a GPU."""
    device_bytes: int = 0
    """GPU memory of a worker at its peak; 0 without a GPU."""
    notes: tuple[str, ...] = ()
    reuse: str | None = None
    """Which items are taken over from another run."""

    def rows(self) -> list[tuple[str, str]]:
        """Names and values as they are printed."""
        items = ", ".join(f"{count:,} {kind}" for kind, count in self.items.items())
        time = "not estimated: the model runs on a GPU" if self.seconds is None else format_duration(self.seconds)
        truncated = f" ({self.n_truncated:,} truncated)" if self.n_truncated else " (none truncated)"
        gpu = f", and {format_bytes(self.device_bytes)} of GPU memory" if self.device_bytes else ""
        return [
            ("work items", f"{sum(self.items.values()):,}: {items}"),
            *([("reused", self.reuse)] if self.reuse is not None else []),
            ("examples", f"{self.n_examples:,}{truncated}"),
            ("tokens", f"{self.n_tokens:,}"),
            ("rows", f"{self.n_rows:,}"),
            ("store", f"{format_bytes(self.store_bytes)} before compression"),
            ("memory", f"{format_bytes(self.worker_bytes)} per worker at its peak, above the libraries" + gpu),
            ("time", f"{time} (estimate, one worker)" if self.seconds is not None else time),
        ]

    def text(self) -> str:
        """The plan as lines of text."""
        lines = [f"  {name:<11}{value}" for name, value in self.rows()]
        return "\n".join(["Plan", *lines, *(f"  note: {note}" for note in self.notes)])

    def check(self, allowance: Allowance) -> None:
        """Raise AllowanceError with everything that exceeds the allowance."""
        problems = []
        if self.store_bytes > allowance.store_bytes:
            problems.append(
                f"the store needs {format_bytes(self.store_bytes)}, allowed are {format_bytes(allowance.store_bytes)}: "
                "pool the positions, choose fewer sites, layers or examples, or raise allowance.store_bytes"
            )
        if allowance.worker_bytes is not None and self.worker_bytes > allowance.worker_bytes:
            problems.append(
                f"a worker needs {format_bytes(self.worker_bytes)} of memory, allowed are "
                f"{format_bytes(allowance.worker_bytes)}: lower capture.tokens_per_batch or capture.rows_per_item, "
                "or raise allowance.worker_bytes"
            )
        if allowance.hours is not None and self.seconds is not None and self.seconds > 3600 * allowance.hours:
            problems.append(
                f"the job takes about {format_duration(self.seconds)}, allowed are {allowance.hours:g} h: "
                "lower functions.*.cap_per_label or predictivity.n_permutations, or raise allowance.hours"
            )
        if problems:
            raise AllowanceError("the plan exceeds its allowance\n  " + "\n  ".join(problems))
