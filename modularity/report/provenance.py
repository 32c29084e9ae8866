"""What is needed to judge and repeat a run, for the last section of its page."""

import json
from collections.abc import Sequence
from typing import TypeAlias

from modularity.report.content import Provenance, ProvenanceGroup
from modularity.store import Run

Pair: TypeAlias = tuple[str, str]
"""A name and its value, or what a command does and the command."""


def run_provenance(
    run: Run, *, origin: Sequence[Pair] = (), details: Sequence[Pair] = (), commands: Sequence[Pair] | None = None
) -> Provenance:
    """Provenance of any run.

    Parameters
    ----------
    run : the run
    origin : names and values that stand after the job: what the run was made from
    details : the same at the end of the run's own
    commands : (what it does, command line), before the one that runs the job again; None: status and tables
    """
    manifest = run.manifest
    device, variant = manifest.notes.get("device"), manifest.config.get("variant")
    own = [
        ("run", run.uri),
        ("job", manifest.job),
        *origin,
        *([("variant", str(variant))] if variant is not None else []),
        ("config digest", manifest.config_digest),
        ("content hash", run.content_hash()),
        ("created", manifest.created),
        *([("device", str(device))] if device is not None else []),
        *details,
    ]
    groups = {
        "Run": own,
        "Model": [(name, str(value)) for name, value in manifest.identity["model"].items()],
        "Data fingerprints": [(name, str(value)) for name, value in manifest.identity.get("data", {}).items()],
        "Versions": list(manifest.versions.items()),
        "Seeds": [(name, str(seed)) for name, seed in manifest.seeds.items()],
    }
    if commands is None:
        commands = (status_command(run), ("the tables", f'modularity sql {run.uri} "show tables"'))
    again = ("run it again from the config below", "modularity run config.json --out ANOTHER")
    return Provenance(
        groups=tuple(ProvenanceGroup(title, tuple(pairs)) for title, pairs in groups.items() if pairs),
        commands=(*commands, again),
        config=json.dumps(manifest.config, indent=1, ensure_ascii=False),
    )


def source_provenance(run: Run) -> Provenance:
    """Provenance of a run that is made from the rankings of another one."""
    source = run.manifest.identity["source"]
    origin = [("rankings from", str(run.manifest.config["source"])), ("its content hash", str(source["content_hash"]))]
    return run_provenance(run, origin=origin)


def status_command(run: Run) -> Pair:
    """How far a run is."""
    return "how far the run is", f"modularity status {run.uri}"
