"""How far a run is, read from its store alone."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from modularity.pipelines.pace import Pace, pace_of
from modularity.runtime.progress import format_bytes, format_duration
from modularity.store import CommitRecord, missing_or_resized, open_run

GO_ON = "the command that started the run goes on with the others"


@dataclass(frozen=True)
class RunStatus:
    """State of a run."""

    uri: str
    job: str
    state: str
    model: str
    created: str
    updated: str
    items: Mapping[str, tuple[int, int]]
    """Items done and planned, by kind."""
    pace: Pace | None
    """Rate over the latest items and time left; None where fewer than two times are known."""
    n_tokens: int | None
    """Tokens through the model so far; None for jobs that do not record them."""
    n_bytes: int
    """Bytes written so far, compressed."""
    functions: tuple[str, ...]
    results: tuple[str, ...]
    tables: tuple[str, ...]
    failure: str | None
    damage: tuple[str, ...]
    """Recorded objects that are missing or have another size; their bytes are not read."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @property
    def n_done_and_planned(self) -> tuple[int, int]:
        """Items of all kinds that are done, and that are planned."""
        return sum(done for done, _ in self.items.values()), sum(planned for _, planned in self.items.values())

    def text(self) -> str:
        """Lines for the terminal."""
        done, planned = self.n_done_and_planned
        kinds = ", ".join(f"{kind} {done}/{planned}" for kind, (done, planned) in self.items.items())
        rows = [
            ("run", self.uri),
            ("job", f"{self.job} of {self.model}"),
            ("state", self._state_text()),
            *([("damage", self._damage_text())] if self.damage else []),
            ("items", f"{done}/{planned}: {kinds}"),
            *([("pace", self._pace_text(self.pace))] if self.pace is not None else []),
            *([("captured", f"{self.n_tokens:,} tokens")] if self.n_tokens is not None else []),
            ("written", format_bytes(self.n_bytes)),
            ("functions", ", ".join(self.functions) or "none"),
            ("results", ", ".join(self.results) or "none"),
            ("tables", ", ".join(self.tables) or "none"),
            ("times", f"created {self.created}, updated {self.updated}"),
        ]
        return "\n".join(f"{name:<10}{value}" for name, value in rows)

    def _pace_text(self, pace: Pace) -> str:
        items = "item" if pace.n_items == 1 else f"{pace.n_items} items"
        text = f"{pace.items_per_minute:.3g} items a minute over the last {items}"
        if self.state == "finished":
            return text
        text += f", about {format_duration(pace.seconds_left)} left at this pace"
        if self.state == "running":
            text += f"; the last was recorded {format_duration(max(0.0, time.time() - pace.last_recorded))} ago"
        return text

    def _damage_text(self) -> str:
        more = f" and {len(self.damage) - 1} more" if len(self.damage) > 1 else ""
        return f"{self.damage[0]}{more}; `modularity verify {self.uri}` lists all and what to do"

    def _state_text(self) -> str:
        if self.state == "interrupted":
            return f"interrupted: finished work items stay recorded; {GO_ON}"
        return self.state + (f": {self.failure}" if self.failure else "")


def _n_tokens(records: Iterable[CommitRecord]) -> int | None:
    """Tokens of the captured rows, or of the reductions where no rows are stored; None where no record has any."""
    found: Counter[str] = Counter()
    for record in records:
        if "tokens" in record.info:
            found[record.item.kind] += int(record.info["tokens"])
    return max(found.values(), default=None)


def run_status(uri: str) -> RunStatus:
    """Status of the run at `uri`; StoreError if there is none."""
    run = open_run(uri)
    manifest, records = run.manifest, run.commits()
    done = Counter(record.item.kind for record in records.values())
    items = {kind: (done[kind], planned) for kind, planned in manifest.items_planned.items()}
    times = run.ledger.times()
    stored = [stored for record in records.values() for stored in record.objects]
    return RunStatus(
        uri=run.uri,
        job=manifest.job,
        state=manifest.state,
        model=str(manifest.identity.get("model", {}).get("name", "unknown")),
        created=manifest.created,
        updated=manifest.updated,
        items=items,
        pace=pace_of([(times[name], each.item.kind) for name, each in records.items() if name in times], items),
        n_tokens=_n_tokens(records.values()),
        n_bytes=sum(stored_object.n_bytes for stored_object in stored),
        functions=run.functions(),
        results=run.result_names(),
        tables=run.tables(),
        failure=manifest.notes.get("failure"),
        damage=tuple(problem.message for problem in missing_or_resized(run)),
    )
