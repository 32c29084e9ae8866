"""Every job file: its docstring states the study, and its help has an example that names the file."""

import ast
import importlib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

REPO = Path(__file__).parent.parent.parent
JOBS = sorted(path.stem for path in (REPO / "jobs").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", JOBS)
def test_docstring_has_question_source_figures_and_command(name: str) -> None:
    text = ast.get_docstring(ast.parse((REPO / "jobs" / f"{name}.py").read_text())) or ""
    assert "?" in text.splitlines()[0]
    parts = [text.find(part) for part in ("\nQuestion: ", "\nSource: ", "\nTo compare with", f"python -m jobs.{name}")]
    assert -1 not in parts
    assert parts == sorted(parts)


@pytest.mark.parametrize("name", JOBS)
def test_help_has_an_example_and_the_shared_flags(name: str) -> None:
    job = typer.Typer(rich_markup_mode=None)
    job.command()(importlib.import_module(f"jobs.{name}").command)
    text = CliRunner().invoke(job, ["--help"]).output
    assert f"Example: python -m jobs.{name}" in text
    assert all(flag in text for flag in ("--out", "--plan", "--set"))
    assert len((REPO / "jobs" / f"{name}.py").read_text().splitlines()) <= 80
