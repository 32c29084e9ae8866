"""How far a study in parts is, from its record and the runs of its parts; and the status of whatever lies there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from modularity.errors import StoreError
from modularity.pipelines.status import GO_ON, RunStatus, run_status
from modularity.pipelines.status_of_scan import ScanStatus, scan_status
from modularity.runtime.progress import format_duration
from modularity.store import is_scan, is_study, open_space, read_study

NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class StudyStatus:
    """State of a study in parts."""

    uri: str
    job: str
    state: str
    parts: Mapping[str, RunStatus | None]
    """By name, in the order in which they run; None: not begun."""
    created: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Lines for the terminal."""
        n_finished = sum(part is not None and part.state == "finished" for part in self.parts.values())
        state = f"{self.state}: {n_finished} of {len(self.parts)} parts are finished"
        rows = [
            ("study", self.uri),
            ("job", self.job),
            ("state", f"{state}; {GO_ON}" if self.state in ("interrupted", "failed") else state),
            ("created", self.created),
        ]
        width = max(map(len, self.parts))
        parts = [f"  {name:<{width}}  {_line(part)}" for name, part in self.parts.items()]
        return "\n".join([*(f"{name:<10}{value}" for name, value in rows), *parts])


def _line(part: RunStatus | None) -> str:
    if part is None:
        return NOT_BEGUN
    done, planned = part.n_done_and_planned
    text = f"{part.state}, {done}/{planned} items"
    if part.pace is not None and part.state == "running":
        text += f", about {format_duration(part.pace.seconds_left)} left"
    return f"{text}: {part.failure}" if part.failure else text


def study_status(uri: str) -> StudyStatus:
    """Status of the study at `uri`; StoreError if there is none."""
    record, space = read_study(uri), open_space(uri)
    parts: dict[str, RunStatus | None] = {}
    for name in record.parts:
        try:
            parts[name] = run_status(space.join(name).uri)
        except StoreError:
            parts[name] = None
            if not space.join(name).is_empty():
                raise
    states = [NOT_BEGUN if part is None else part.state for part in parts.values()]
    return StudyStatus(space.uri, record.job, _state(states), parts, record.created)


def _state(states: list[str]) -> str:
    """State of the whole: what went wrong in a part first; between two parts it is running."""
    for state in ("failed", "interrupted"):
        if state in states:
            return state
    if set(states) == {"finished"}:
        return "finished"
    return "planned" if set(states) <= {NOT_BEGUN, "planned"} else "running"


def status_of(uri: str) -> RunStatus | ScanStatus | StudyStatus:
    """Status of the run, the scan or the study at `uri`; StoreError if there is none."""
    if is_scan(uri):
        return scan_status(uri)
    return study_status(uri) if is_study(uri) else run_status(uri)
