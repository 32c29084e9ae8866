"""The image: both targets, not root, pinned versions, no weights, and nothing of the checkout that it does not need."""

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent.parent
LINES = (REPO / "cluster" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
STEPS = [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in LINES if line and line[0] != "#"]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in STEPS:
        if word == "FROM":
            found[rest.rpartition(" AS ")[2]] = []
        if found:
            found[next(reversed(found))].append((word, rest))
    return found


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build."""
    kept = False
    for pattern in (REPO / ".dockerignore").read_text().splitlines():
        if not pattern or pattern.startswith("#"):
            continue
        bare = pattern.lstrip("!").removeprefix("**/")
        if pattern == "*" or path == bare or path.startswith(f"{bare}/") or fnmatch(path, bare) or f"/{bare}/" in path:
            kept = pattern.startswith("!")
    return not kept


def test_there_is_a_target_for_each_image_of_the_manifests() -> None:
    text = "".join(path.read_text() for path in (REPO / "k8s").rglob("*.yaml"))
    assert set(re.findall(r"modularity:[\d.]+-(\w+)", text)) == set(stages()) == {"cpu", "gpu"}


def test_ray_and_python_are_those_of_the_lock() -> None:
    [ray] = re.findall(r"^ray==(\S+)$", (REPO / "constraints.txt").read_text(), re.MULTILINE)
    assert dict(rest.split("=") for word, rest in STEPS if word == "ARG")["RAY_VERSION"] == ray
    for name, steps in stages().items():
        image = steps[0][1].partition(" AS ")[0]
        assert image == f"${{RAY_IMAGE}}:${{RAY_VERSION}}-py311-{name}"


@pytest.mark.parametrize("name", ["cpu", "gpu"], ids="for {}".format)
def test_it_does_not_run_as_root_and_asks_for_a_token(name: str) -> None:
    steps = stages()[name]
    users = [rest for word, rest in steps if word == "USER"]
    assert users[-1] == "1000:100"
    assert any(word == "ENV" and "RAY_AUTH_MODE=token" in rest for word, rest in steps)
    last_root = max(index for index, step in enumerate(steps) if step == ("USER", "root"))
    as_root = [rest for word, rest in steps[last_root : steps.index(("USER", "1000:100"))] if word == "RUN"]
    assert as_root == ["install --directory --owner=1000 --group=100 /opt/modularity"]


@pytest.mark.parametrize("name", ["cpu", "gpu"], ids="for {}".format)
def test_everything_is_installed_from_the_lock(name: str) -> None:
    installs = [rest for word, rest in stages()[name] if word == "RUN" and "pip" in rest]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in rest and "--no-cache-dir" in rest for rest in installs)
    assert ("/whl/cpu" in installs[0]) is (name == "cpu")
    extras = re.findall(r'"\.\[(.*?)\]"', installs[1])[0].split(",")
    declared = (REPO / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in declared for extra in extras)


@pytest.mark.parametrize("name", ["cpu", "gpu"], ids="for {}".format)
def test_what_is_copied_exists_and_holds_no_weights_but_the_sample(name: str) -> None:
    copied = [part for word, rest in stages()[name] if word == "COPY" for part in rest.split()[1:-1]]
    assert {"modularity", "jobs", "constraints.txt", "pyproject.toml", "cluster/profiles"} <= set(copied)
    assert [part for part in copied if not (REPO / part).exists() or ignored(part)] == []
    listed = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True).stdout.split()
    weights = [path for path in listed if path.endswith((".safetensors", ".bin", ".pt")) and not ignored(path)]
    assert all(path.startswith("modularity/data/samples/series/") for path in weights)


def test_history_environments_and_runs_stay_outside() -> None:
    for path in (".git/config", ".venv/bin/python", "runs/first/run.json", "tests/conftest.py", "shared/data/x"):
        assert ignored(path)
