"""JSON records that hold a digest of themselves, so that a changed bit is found: manifests, scans, studies in parts."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from modularity.config import AnyConfig
from modularity.errors import StoreError
from modularity.store.space import Space
from modularity.types import content_digest


def record_bytes(values: Mapping[str, Any]) -> bytes:
    """Content of a record's file: its values in their order, then `digest`."""
    return (json.dumps({**values, "digest": record_digest(values)}, indent=2, ensure_ascii=False) + "\n").encode()


def record_digest(values: Mapping[str, Any]) -> str:
    """Digest of the values of a record, `digest` left out."""
    return content_digest(json.dumps(values, sort_keys=True, ensure_ascii=False))


def read_record(space: Space, path: str, cls: type[AnyConfig], version: int, *, remedy: str) -> AnyConfig:
    """A record of several runs; StoreError where it is missing, damaged, or of a newer version.

    Parameters
    ----------
    space : where it lies
    path : name of its file there
    cls : what it holds, with a `schema_version`
    version : the newest that this package reads
    remedy : what to do where it is damaged
    """
    address = space.address(path)
    try:
        values = json.loads(space.read(path))
    except ValueError as error:
        raise StoreError(f"{address} is damaged, it is not JSON ({error}); {remedy}") from None
    found = values.get("schema_version") if isinstance(values, Mapping) else None
    if not isinstance(found, int) or found > version:
        raise StoreError(
            f"{address} has format version {found!r}, this package reads up to {version}; install a newer modularity"
        )
    digest = values.pop("digest", None)
    try:
        record = cls.model_validate(values)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        raise StoreError(f"{address} is damaged at {place!r}: {detail['msg']}; {remedy}") from None
    if digest not in (None, record_digest(values)):  # the first versions had none
        raise StoreError(f"{address} was changed: it does not match its digest; {remedy}")
    return record
