"""Documents name only what exists: files, links, commands, make targets, config keys."""

import re
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

REPO = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md"), *REPO.glob("modularity/**/*.md")])
TOP = ("modularity/", "jobs/", "tests/", "docs/", "benchmarks/", ".ci/")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"(?<![\w/.])((?:modularity|jobs|tests|docs|benchmarks|\.ci)/[\w./<>*-]+)")
MODULE = re.compile(r"python -m ((?:jobs|benchmarks|modularity)[\w.]*)")
COMMAND = re.compile(r"(?:^\s*|`|\$ )modularity ([a-z]+)\b", re.MULTILINE)
MAKE = re.compile(r"(?:^\s*|`)make ([a-z]+)\b", re.MULTILINE)


def ids(path: Path) -> str:
    return str(path.relative_to(REPO))


def tracked() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_links_lead_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text()) if not link.startswith(("http", "mailto"))]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_named_paths_exist(document: Path) -> None:
    names = {name.rstrip(".,:;") for name in PATH.findall(document.read_text()) if "<" not in name and "*" not in name}
    assert sorted(name for name in names if not (REPO / name).exists()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_named_commands_exist(document: Path) -> None:
    from modularity.cli import app

    text = document.read_text()
    modules = [name for name in MODULE.findall(text) if not (REPO / Path(*name.split("."))).with_suffix(".py").exists()
               and not (REPO / Path(*name.split(".")) / "__main__.py").exists()]  # fmt: skip
    assert modules == []
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert sorted(set(COMMAND.findall(text)) - known) == []
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    assert sorted(set(MAKE.findall(text)) - targets) == []


def test_no_path_of_a_machine_is_in_the_project() -> None:
    home = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
    found = [
        name
        for name in sorted(tracked())
        if (REPO / name).suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ""}
        and (REPO / name).is_file()
        and name != "tests/docs/test_docs.py"
        and home.search((REPO / name).read_text(errors="ignore"))
    ]
    assert found == []


def test_every_study_has_a_page() -> None:
    studies = {path.stem for path in (REPO / "jobs").glob("*.py")} - {"__init__"}
    assert sorted(study for study in studies if not (REPO / "docs" / "studies" / f"{study}.md").exists()) == []
