"""The record of a study in parts, `study.json`: which parts it has; each is a run in the folder of its name."""

import os
from typing import Any

from pydantic import Field

from modularity.config import Config
from modularity.store.manifest import utc_now
from modularity.store.records import read_record, record_bytes
from modularity.store.space import open_space

STUDY_PATH = "study.json"
STUDY_VERSION = 1


class StudyRecord(Config):
    """Content of `study.json`."""

    schema_version: int = STUDY_VERSION
    job: str
    parts: tuple[str, ...] = Field(min_length=1)
    """Names of the parts, in the order in which they run."""
    config: dict[str, Any] = Field(default_factory=dict)
    created: str = ""
    """UTC, ISO 8601."""


def is_study(uri: str | os.PathLike[str]) -> bool:
    """Whether a study in parts lies at `uri`."""
    return open_space(uri).exists(STUDY_PATH)


def read_study(uri: str | os.PathLike[str]) -> StudyRecord:
    """The record of the study at `uri`; StoreError where it is missing, damaged, or of a newer version."""
    return read_record(
        open_space(uri), STUDY_PATH, StudyRecord, STUDY_VERSION, remedy="run the job again, which writes it anew"
    )


def write_study(uri: str | os.PathLike[str], record: StudyRecord) -> None:
    """Write the record, with the time; only the coordinator of the study calls it."""
    stamped = record.model_copy(update={"created": utc_now()})
    open_space(uri).write(STUDY_PATH, record_bytes(stamped.as_json()))
