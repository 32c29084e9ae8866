"""The stairs: a room imports only from floors below, and each foreign package has its rooms."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "modularity"
FLOORS = {
    "errors": 0, "types": 0, "config": 0,
    "stats": 1, "data": 1, "models": 1, "store": 1, "runtime": 1,
    "capture": 2, "interventions": 2, "tuning": 2, "pretraining": 2,
    "neurons": 3, "experts": 3, "circuits": 3, "geometry": 3,
    "pipelines": 4, "report": 4,
    "launching": 5,
    "submitting": 6, "cli_options": 6,
    "cluster_commands": 7,
    "cli": 8,
    "__main__": 9,
}  # fmt: skip
ALLOWED_IN = {
    "ray": {"runtime"},
    "transformers": {"models", "capture", "interventions", "tuning", "pretraining"},
    "torch": {"models", "capture", "interventions", "tuning", "pretraining", "stats", "experts", "neurons", "geometry"},
    "zarr": {"store"},
    "obstore": {"store"},
    "duckdb": {"store"},
    "pyarrow": {"store", "data"},
    "jinja2": {"report"},
}
PURE = {"neurons": {"stats"}, "experts": {"stats"}, "circuits": {"stats"}, "geometry": {"stats"}}
SAME_FLOOR = {("types", "errors"), ("config", "errors"), ("config", "types")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def violations(room: str, names: set[str]) -> list[str]:
    """What `room` imports and may not."""
    found = []
    for name in sorted(names):
        top, *rest = name.split(".")
        if top in ALLOWED_IN and room not in ALLOWED_IN[top]:
            found.append(f"{room} imports {top}, which belongs to {sorted(ALLOWED_IN[top])}")
        if top != "modularity" or not rest or rest[0] == room or rest[0] not in FLOORS:
            continue
        below = FLOORS[rest[0]] < FLOORS[room] or (room, rest[0]) in SAME_FLOOR
        if not below:
            found.append(f"{room} (floor {FLOORS[room]}) imports {rest[0]} (floor {FLOORS[rest[0]]})")
        elif room in PURE and FLOORS[rest[0]] > 0 and rest[0] not in PURE[room]:
            found.append(f"{room} takes and returns arrays, but imports {rest[0]}")
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_respect_the_floors(path: Path) -> None:
    assert violations(room_of(path), imports_of(path.read_text())) == []


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms <= set(FLOORS)


def test_names_of_no_meaning_are_not_used() -> None:
    assert not {path.stem for path in PACKAGE.rglob("*.py")} & {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize(
    ("room", "source", "message"),
    [
        ("stats", "import ray", "stats imports ray"),
        ("stats", "from modularity.capture import Capturer", "stats (floor 1) imports capture (floor 2)"),
        ("data", "from modularity import models", "data (floor 1) imports models (floor 1)"),
        ("neurons", "from modularity.store import open_run", "neurons takes and returns arrays, but imports store"),
        ("report", "import modularity.pipelines.plan", "report (floor 4) imports pipelines (floor 4)"),
    ],
)
def test_the_check_finds_violations(room: str, source: str, message: str) -> None:
    assert any(message in found for found in violations(room, imports_of(source)))
