"""The joint study from the command line: plan of all parts, every problem at once, run, page."""

from pathlib import Path
from typing import Any

import pytest

from jobs.opt_modularity import command, opt_values
from modularity.cli import run_as_job
from modularity.config import validate_config
from modularity.errors import InputError
from modularity.pipelines import OptModularityConfig, status_of
from modularity.store import open_run

SMALL = (
    "runtime.executor=inprocess", "runtime.cpus_per_worker=1", "pruning=null", "graph_modularity.layers=[0]",
    "graph_modularity.n_draws=19", "graph_modularity.methods=[spectral]", "graph_modularity.n_permutations=100",
    "tight_pass.layers=[0]", "tight_pass.kinds=[ffn]", "tight_pass.controls=[]", "tight_pass.n_resamples=100",
    "tight_pass.texts.per_category=1", "similarity.controls=[]", "similarity.experts=null",
    "similarity.sites=[residual]", "similarity.texts.per_category=2", "similarity.scores.n_draws=199",
    "similarity.scores.n_bootstrap=100", "similarity.scores.n_permutations=19",
)  # fmt: skip


def call(*arguments: Any, overrides: tuple[str, ...] = SMALL) -> int:
    values = [str(argument) for argument in arguments]
    for override in overrides:
        values += ["--set", override]
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, values)
    return int(ended.value.code or 0)


def test_parts_run_in_folders_of_their_own_and_one_page_has_all_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert call("--model", "series", "--out", out, "--plan") == 0
    printed = capsys.readouterr().out
    names = ("similarity", "tight_pass", "graph_modularity", "pruning")
    assert [name for name in names if f"{name}: Plan" in printed] == ["similarity", "tight_pass", "graph_modularity"]
    assert not out.exists()
    assert call("--model", "series", "--out", out) == 0
    page = (out / "report.html").read_text()
    for name in ("similarity", "tight_pass", "graph_modularity"):
        run = open_run(str(out / name))
        assert (run.manifest.job, run.manifest.state) == (name, "finished")
        assert f'href="{name}/report.html"' in page
        assert (out / name / "report.html").is_file()
    assert page.count('class="verdict"') >= 3
    told = status_of(str(out))
    assert told.state == "finished"
    assert "state     finished: 3 of 3 parts are finished" in told.text()
    capsys.readouterr()
    assert call("--model", "series", "--out", out) == 0
    assert capsys.readouterr().err.count("nothing to do") == 3


def test_problems_of_all_parts_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ("graph_modularity.layers=[7]", "tight_pass.layers=[9]", "pruning=null")
    assert call("--model", "series", "--out", tmp_path / "study", overrides=wrong) == 2
    told = capsys.readouterr().err
    assert "graph_modularity: " in told
    assert "tight_pass: " in told
    assert not (tmp_path / "study").exists()


def test_parts_share_the_model_and_say_so_where_they_differ() -> None:
    values = opt_values("series", None, None, None)
    config = validate_config(OptModularityConfig, values)
    assert list(config.parts()) == ["similarity", "tight_pass", "graph_modularity", "pruning"]
    assert all(part.model == config.model for part in config.parts().values())
    with pytest.raises(InputError, match=r"similarity\.model is 'other'"):
        validate_config(OptModularityConfig, {**values, "similarity": {"model": {"name": "other"}}})
    with pytest.raises(InputError, match="no part is given"):
        validate_config(OptModularityConfig, {"model": {"name": "x"}})
    again = validate_config(OptModularityConfig, config.as_json())
    assert again == config
