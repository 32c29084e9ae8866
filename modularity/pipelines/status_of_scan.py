"""How far a checkpoint scan is, read from its record and from the runs of its checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from modularity.errors import StoreError
from modularity.pipelines.status import GO_ON
from modularity.runtime.progress import format_duration
from modularity.store import ScannedCheckpoint, checkpoint_run, open_space, open_summary, read_scan


@dataclass(frozen=True)
class ScanStatus:
    """State of a scan."""

    uri: str
    state: str
    checkpoints: tuple[Mapping[str, Any], ...]
    """`name`, `step`, `state`, `items_done` and `items_planned` of each, and the `error` of those that failed."""
    partition_of: str | None
    equal_parameters: tuple[tuple[str, ...], ...]
    tables: tuple[str, ...]
    notes: tuple[str, ...]
    created: str
    updated: str
    seconds_left: float | None
    """Of work, for the checkpoints that are not done, at the mean of the finished ones; None where none is finished."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Lines for the terminal."""
        states = [str(checkpoint["state"]) for checkpoint in self.checkpoints]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        rows = [
            ("scan", self.uri),
            ("state", f"interrupted: {GO_ON}" if self.state == "interrupted" else self.state),
            ("checkpoints", f"{len(states)}: {counts}"),
            *self._left_rows(states),
            ("partition", f"of {self.partition_of}" if self.partition_of else "none"),
            *(("equal", f"{', '.join(names)} have the same parameters") for names in self.equal_parameters),
            *(("note", note) for note in self.notes),
            ("tables", ", ".join(self.tables) or "none yet"),
            ("times", f"created {self.created}, updated {self.updated}"),
        ]
        width = max((len(str(checkpoint["name"])) for checkpoint in self.checkpoints), default=0)
        lines = [f"{name:<12}{value}" for name, value in rows]
        return "\n".join([*lines, *(f"  {self._line(checkpoint, width)}" for checkpoint in self.checkpoints)])

    def _left_rows(self, states: Sequence[str]) -> list[tuple[str, str]]:
        if not self.seconds_left:
            return []
        n_left, duration = states.count("planned"), format_duration(self.seconds_left)
        return [("left", f"about {duration} of work for {n_left} checkpoints, divided by those side by side")]

    @staticmethod
    def _line(checkpoint: Mapping[str, Any], width: int) -> str:
        text = f"{checkpoint['name']:<{width}}  {checkpoint['state']}"
        if checkpoint["error"]:
            return f"{text}: {str(checkpoint['error']).strip().splitlines()[-1]}"
        if checkpoint["items_planned"] and checkpoint["state"] == "planned":
            return f"{text}, {checkpoint['items_done']}/{checkpoint['items_planned']} items"
        return text


def scan_status(uri: str) -> ScanStatus:
    """Status of the scan at `uri`; StoreError if there is none."""
    record = read_scan(uri)
    seconds = [checkpoint.seconds for checkpoint in record.finished if checkpoint.seconds is not None]
    n_left = sum(checkpoint.state == "planned" for checkpoint in record.checkpoints)
    return ScanStatus(
        uri=open_space(uri).uri,
        state=record.state,
        checkpoints=tuple(_checkpoint(uri, checkpoint) for checkpoint in record.checkpoints),
        partition_of=record.partition_of,
        equal_parameters=record.equal_parameters,
        tables=() if record.summary is None else open_summary(uri).tables(),
        notes=record.notes,
        created=record.created,
        updated=record.updated,
        seconds_left=n_left * fmean(seconds) if seconds else None,
    )


def _checkpoint(uri: str, checkpoint: ScannedCheckpoint) -> dict[str, Any]:
    done, planned = 0, 0
    if checkpoint.state == "planned":
        try:
            run = checkpoint_run(open_space(uri), checkpoint.name)
        except StoreError:  # not begun
            pass
        else:
            done, planned = len(run.committed_ids()), sum(run.manifest.items_planned.values())
    values = {name: getattr(checkpoint, name) for name in ("name", "step", "state", "error")}
    return values | {"items_done": done, "items_planned": planned}
