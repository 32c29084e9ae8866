"""The files for `ray up`: valid by Ray's own schema, with a token, pinned images, and a head that does no work."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

REPO = Path(__file__).parent.parent.parent
FILES = sorted((REPO / "cluster" / "ray_up").glob("*.yaml"))


def read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    return values


def prepared(values: dict[str, Any]) -> dict[str, Any]:
    """The values as `ray up` completes them before it looks at them."""
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(copy.deepcopy(values))


def check(values: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(prepared(values))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_file_fits_the_schema_of_ray(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    check(read(path))
    wrong = read(path)
    wrong["head_node_typ"] = wrong.pop("head_node_type", "head")
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        check(wrong)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_node_asks_for_the_token(path: Path) -> None:
    values = read(path)
    assert "--env RAY_AUTH_MODE=token" in values["docker"]["run_options"]
    assert values["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    for commands in (values["head_start_ray_commands"], values["worker_start_ray_commands"]):
        assert "chmod 600 ~/.ray/auth_token" in commands
        [start] = [command for command in commands if "ray start" in command]
        assert start.startswith("RAY_AUTH_MODE=token ray start ")
    [head] = [command for command in values["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head
    assert "--num-cpus=0" in head


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_images_are_pinned_and_nothing_secret_is_inside(path: Path) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    values = read(path)
    assert values["docker"]["image"].endswith(f":{project}-gpu")
    assert not re.search(r"AKIA[0-9A-Z]{16}|secret_access_key|BEGIN .*PRIVATE KEY|\"private_key\"", path.read_text())


@pytest.mark.parametrize("path", [path for path in FILES if path.stem != "on-prem"], ids=lambda path: path.stem)
def test_gpus_come_only_when_asked_for(path: Path) -> None:
    values = read(path)
    types = values["available_node_types"]
    assert types[values["head_node_type"]]["resources"]["CPU"] == 0
    assert types["gpu"]["min_workers"] == 0
    assert types["gpu"]["resources"]["GPU"] >= 1
    assert values["idle_timeout_minutes"] > 0
    assert sum(each.get("max_workers", 0) for each in types.values()) >= values["max_workers"] > 0


def test_there_is_one_file_for_each_provider() -> None:
    assert [read(path)["provider"]["type"] for path in FILES] == ["aws", "gcp", "local"]
