"""The manifest of a run, `run.json`: what was asked for, of which model and data, with which versions, and its state.

Two manifests belong together when their identity and their config are equal; a run is resumed only then.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, ValidationError

from modularity.config import Config
from modularity.errors import IdentityError, StoreError
from modularity.store.records import record_bytes, record_digest
from modularity.types import content_digest

SCHEMA_VERSION = 1
MANIFEST_PATH = "run.json"
CREATED_PATH = "run.created.json"
"""The manifest as it was when the run began, written once: `run.json` can be made anew from it."""
RunState = Literal["planned", "running", "finished", "failed", "interrupted"]


class Manifest(Config):
    """What one run computes and from what; stored as `run.json`."""

    schema_version: int = SCHEMA_VERSION
    """Version of the store format, `docs/store_format.md`."""
    job: str
    """Name of the job that made the run, e.g. `emergent_modularity`."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The resolved config, defaults included."""
    config_digest: str = ""
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON of `config`; filled in."""
    identity: dict[str, Any] = Field(default_factory=dict)
    """Model id, revision, parameter hash, tokenizer hash, data fingerprints, attention: what results depend on."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of this package and of the libraries that the numbers come from."""
    seeds: dict[str, int] = Field(default_factory=dict)
    """Every seed, by what it is used for."""
    state: RunState = "planned"
    items_planned: dict[str, int] = Field(default_factory=dict)
    """Number of work items of each kind."""
    created: str = ""
    """UTC, ISO 8601; filled in."""
    updated: str = ""
    """UTC, ISO 8601; filled in at every write."""
    notes: dict[str, Any] = Field(default_factory=dict)
    """What else the job wants to record (arithmetic chosen, truncation counts, messages of a failure)."""

    @classmethod
    def of(cls, job: str, **fields: Any) -> "Manifest":
        """Manifest of a new run: digest and times are filled in."""
        manifest = cls(job=job, **fields)
        stamp = utc_now()
        return manifest.model_copy(
            update={"config_digest": content_digest(manifest.config), "created": stamp, "updated": stamp}
        )

    def to_bytes(self) -> bytes:
        """Content of `run.json`; keys stay in order, as parts and contrasts of functions depend on it."""
        return record_bytes(self.as_json())


def utc_now() -> str:
    """The current time, UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def parse_manifest(data: bytes, address: str, *, remedy: str | None = None) -> Manifest:
    """Read the content of a `run.json`; `remedy` says what to do where it is damaged.

    Raises
    ------
    StoreError
        It is not JSON, not a manifest, of a newer format version, or does not match its digests.
    """
    remedy = remedy or (
        f"restore it from a copy, or delete it and run the job again, which makes it anew from {CREATED_PATH}"
    )
    try:
        values = json.loads(data)
    except ValueError as error:
        raise StoreError(f"{address} is damaged, it is not JSON ({error}); {remedy}") from None
    if not isinstance(values, dict) or "schema_version" not in values or "job" not in values:
        raise StoreError(f"{address} is not the manifest of a run; name the folder that a job wrote with --out")
    version = values["schema_version"]
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise StoreError(
            f"{address} has format version {version!r}, this package reads up to {SCHEMA_VERSION}; "
            "install a newer modularity"
        )
    recorded_digest = values.pop("digest", None)
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        raise StoreError(f"{address} is damaged at {place!r}: {detail['msg']}; {remedy}") from None
    if manifest.config_digest != content_digest(manifest.config):
        raise StoreError(f"{address} was changed: its config does not match config_digest; {remedy}")
    if recorded_digest not in (None, record_digest(values)):
        raise StoreError(f"{address} was changed: it does not match its digest; {remedy}")
    return manifest


def check_same_run(recorded: Manifest, wanted: Manifest, address: str) -> None:
    """Refuse to mix: IdentityError lists every key of identity and config that differs, with both values."""
    differences = [
        f"  {part}.{key}: recorded {old}, now {new}"
        for part in ("identity", "config")
        for key, old, new in differing_keys(getattr(recorded, part), getattr(wanted, part))
    ]
    if recorded.job != wanted.job:
        differences.insert(0, f"  job: recorded {recorded.job!r}, now {wanted.job!r}")
    if differences:
        lines = "\n".join(differences)
        raise IdentityError(
            f"the run at {address} was made from something else:\n{lines}\n"
            "choose another --out for the new run, or set these values back to resume the recorded one"
        )


def differing_keys(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Dotted key, recorded value and wanted value (as JSON, or `absent`) wherever two nested mappings differ."""
    old, new = dict(_leaves(recorded, "")), dict(_leaves(wanted, ""))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key, "absent") != new.get(key, "absent"):
            yield key, old.get(key, "absent"), new.get(key, "absent")


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(child, Mapping) for child in value):
        for position, child in enumerate(value):
            yield from _leaves(child, f"{prefix}.{position}")
    else:
        yield prefix, json.dumps(value, sort_keys=True, ensure_ascii=False)
