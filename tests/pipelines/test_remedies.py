"""What a refused plan advises are keys that the config of the job has."""

import importlib
import re
from dataclasses import asdict
from typing import Any, get_args

import pytest

from modularity import pipelines
from modularity.config import Config
from modularity.launching import CONFIGS, JOINT
from modularity.pipelines.plan import Remedies

MODULES = {
    "graph_modularity": "graph_modularity_plan", "similarity": "similarity_prepare", "tight_pass": "tight_pass_plan",
}  # fmt: skip
"""Where the remedies of a job stand, if not in the module of its name."""
WITH_DEFAULTS = ("emergent_modularity", "scan_checkpoints")
KEY = re.compile(r"\b[a-z]+(?:_[a-z]+)+(?:\.[a-z_*]+)*|\b[a-z_]+(?:\.[a-z_*]+)+")


def remedies(job: str) -> Remedies:
    if job in WITH_DEFAULTS:
        return Remedies()
    found: Remedies = importlib.import_module(f"modularity.pipelines.{MODULES.get(job, job)}").REMEDIES
    return found


def has_key(config: Any, names: list[str]) -> bool:
    """Whether nested configs have this key; `*` and lists stand for their items."""
    if not names:
        return True
    if names[0] == "*":
        return has_key(config, names[1:])
    if isinstance(config, type) and issubclass(config, Config):
        field = config.model_fields.get(names[0])
        return field is not None and has_key(field.annotation, names[1:])
    return any(has_key(each, names) for each in get_args(config))


@pytest.mark.parametrize("job", sorted(CONFIGS.keys() - {JOINT}))
def test_advised_keys_exist(job: str) -> None:
    keys = KEY.findall(" ".join(asdict(remedies(job)).values()))
    assert keys
    config = getattr(pipelines, CONFIGS[job])
    assert [key for key in keys if not has_key(config, key.split("."))] == []


def test_the_check_finds_keys_that_a_job_lacks() -> None:
    assert not has_key(pipelines.MoeficationConfig, ["capture", "tokens_per_batch"])
    assert has_key(pipelines.EmergentModularityConfig, ["functions", "*", "cap_per_label"])
