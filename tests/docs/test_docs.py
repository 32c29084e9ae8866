"""Documents name only what exists: files, links, commands, make targets, config keys."""

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

from modularity.cli import app
from modularity.config import apply_overrides, validate_config
from modularity.data import FunctionConfig
from modularity.pipelines import EmergentModularityConfig, PerturbationConfig, TightPassConfig
from modularity.pretraining import PretrainConfig

REPO = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md"), *REPO.glob("modularity/**/*.md")])
TOP = ("modularity/", "jobs/", "tests/", "docs/", "benchmarks/", ".ci/")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"(?<![\w/.])((?:modularity|jobs|tests|docs|benchmarks|\.ci)/[\w./<>*-]+)")
MODULE = re.compile(r"python -m ((?:jobs|benchmarks|modularity)[\w.]*)")
COMMAND = re.compile(r"(?:^\s*|`|\$ )modularity ([a-z]+)\b", re.MULTILINE)
BLOCK = re.compile(r"^```(?:yaml|json)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"(?:python -m (jobs\.\w+)|(?<![\w./-])modularity ([a-z]+) )([^`\n#]*)")
FLAG = re.compile(r"`(--[a-z][a-z-]*)")
OVERRIDE = re.compile(r"--set ([\w.]+=[^\s`]+)")
FLAGS_OF_OTHERS = {"--no-deps", "--address", "--working-dir", "--local-dir", "--check"}
"""Flags of pip, Ray, the hub and the scripts beside the samples that documents name."""
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
    text = document.read_text()
    modules = [name for name in MODULE.findall(text) if not (REPO / Path(*name.split("."))).with_suffix(".py").exists()
               and not (REPO / Path(*name.split(".")) / "__main__.py").exists()]  # fmt: skip
    assert modules == []
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert sorted(set(COMMAND.findall(text)) - known) == []
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    assert sorted(set(MAKE.findall(text)) - targets) == []


def commands() -> dict[str, set[str]]:
    """Flags of every command, and of every job file as `jobs.name`."""
    found = dict(get_command(app).commands)  # type: ignore[attr-defined]
    for path in (REPO / "jobs").glob("[a-z]*.py"):
        job = typer.Typer()
        job.command()(importlib.import_module(f"jobs.{path.stem}").command)
        found[f"jobs.{path.stem}"] = get_command(job)
    return {
        name: {"--help", *(o for p in command.params for o in (*p.opts, *p.secondary_opts))}
        for name, command in found.items()
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_named_flags_exist(document: Path) -> None:
    known, text = commands(), document.read_text()
    wrong = []
    for job, command, rest in CALL.findall(text):
        flags = {word.partition("=")[0] for word in rest.split() if word.startswith("--")}
        wrong += [f"{job or command} {flag}" for flag in sorted(flags - known.get(job or command, set()))]
    of_benchmarks = {
        flag
        for path in (REPO / "benchmarks").glob("*.py")
        for flag in re.findall(r'"(--[a-z][a-z-]*)"', path.read_text())
    }
    everywhere = set().union(*known.values(), of_benchmarks) | {"--version"} | FLAGS_OF_OTHERS
    assert wrong + sorted(set(FLAG.findall(text)) - everywhere) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_examples_of_configs_are_valid(document: Path) -> None:
    for block in BLOCK.findall(document.read_text()):
        values: Any = yaml.safe_load(block)
        if "model" in values:
            validate_config(EmergentModularityConfig, values)
        elif "functions" in values:
            validate_config(EmergentModularityConfig, {"model": {"name": "x"}, **values})
        elif "name" in values and "source" in values:
            validate_config(FunctionConfig, values)


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_named_overrides_are_valid(document: Path) -> None:
    values = {"model": {"name": "x"}, "functions": [{"name": "a", "source": "a.jsonl"}]}
    overrides = [text.rstrip(".,;:)") for text in OVERRIDE.findall(document.read_text()) if text != "key=value"]
    for override in overrides:
        key = override.partition("=")[0].partition(".")[0]
        if key in EmergentModularityConfig.model_fields:
            validate_config(EmergentModularityConfig, apply_overrides(values, [override]))
        elif key in PerturbationConfig.model_fields:
            validate_config(PerturbationConfig, apply_overrides({"source": "runs/x"}, [override]))
        elif key in TightPassConfig.model_fields:
            texts = {"model": {"name": "x"}, "texts": {"source": "x.jsonl"}}
            validate_config(TightPassConfig, apply_overrides(texts, [override]))
        else:
            validate_config(PretrainConfig, apply_overrides({}, [override]))


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
