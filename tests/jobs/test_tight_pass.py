"""The tight pass from the command line: plan, run, report, and messages for wrong input."""

import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.tight_pass import command
from modularity.cli import run_as_job
from modularity.report import write_report
from modularity.store import open_run

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))

import tiny_jobs as tiny


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tight-job")
    tiny.save(folder / "opt", tiny.random_module(tiny.opt_config()))
    (folder / "texts").mkdir()
    for n, text in enumerate(("river stone moon sun", "hill road tree bird fish")):
        (folder / "texts" / f"{n}.txt").write_text(text)
    return ["--model", str(folder / "opt"), "--texts", str(folder / "texts")]


SMALL = ("layers=[0]", "runtime.executor=inprocess", "runtime.cpus_per_worker=1", "n_resamples=100",
         'controls=["shuffled_weights"]')  # fmt: skip


def call(*arguments: Any) -> int:
    settings = [part for value in SMALL for part in ("--set", value)]
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [*map(str, arguments), *settings])
    return int(ended.value.code or 0)


def test_plan_run_and_report(inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*inputs, "--plan") == 0
    assert "8 spectrum, 1 tight_pass_tests" in capsys.readouterr().out
    out = tmp_path / "run"
    assert call(*inputs, "--out", out) == 0
    page = (out / "report.html").read_text()
    for part in ("Tight passes in", "against shuffled weights the effective rank", "Sorted singular values of the",
                 "exact, from the whole Jacobian", "With fewer than 6 texts", 'id="figure-directions"'):  # fmt: skip
        assert part in page
    assert "://" not in page.replace("http://www.w3.org", "")
    run = open_run(str(out))
    assert run.manifest.state == "finished"
    assert {row["category"] for row in run.table("tight_pass").to_pylist()} == {"texts"}
    figures = write_report(str(out), out=tmp_path / "page.html", figures_folder=tmp_path / "figures")
    assert sorted(Path(path).stem for path in figures) == ["directions", "page", "spectra-attention", "spectra-ffn"]
    capsys.readouterr()
    assert call(*inputs, "--out", out) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_wrong_input_is_listed(inputs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*inputs, "--set", "kinds=[mlp]", "--set", "max_tokens=0") == 2
    text = capsys.readouterr().err
    assert all(part in text for part in ("kinds", "max_tokens", "--out is missing"))
    assert call(*inputs, "--plan", "--set", "allowance.worker_bytes=1000") == 2
    assert "of memory, allowed are" in capsys.readouterr().err
