"""The same architecture with random weights as a control: same examples, own null, counted in the plan, on the page."""

from pathlib import Path

import numpy as np
import pytest
import tiny_jobs

from modularity.errors import InputError
from modularity.pipelines import plan_job, run_job, verify_runs
from modularity.pipelines.random_control import control_config, control_uri
from modularity.report import render_report
from modularity.report.run_content import report_content
from modularity.store import open_run


def test_the_curve_of_random_weights_stands_beside_that_of_the_model(
    planted: Path, folder: Path, tmp_path: Path
) -> None:
    config = tiny_jobs.job(
        planted, [tiny_jobs.word_function(folder)], analyses=["predictivity"], controls={"random_weights": True}
    )
    run = tiny_jobs.run(config, tmp_path / "run")
    control = open_run(control_uri(run.uri))
    assert control.manifest.identity["data"] == run.manifest.identity["data"]
    hashes = {each.manifest.identity["model"]["parameter_hash"] for each in (run, control)}
    assert len(hashes) == 2
    assert control.coordinates("words")["example"].tolist() == run.coordinates("words")["example"].tolist()
    rows = tiny_jobs.rows_of(run, "random_init_predictivity")
    assert rows == control.table("function_curve").to_pylist()
    trained = {row["layer"]: row["normalised_evaluation"] for row in tiny_jobs.rows_of(run, "function_curve")}
    assert trained[0] > next(row["normalised_evaluation"] for row in rows if row["layer"] == 0)
    (record,) = [each for each in run.commits().values() if each.item.kind == "random_control"]
    assert record.info["parameters"] == control.manifest.identity["model"]["parameter_hash"]
    (curve,) = report_content(run).curves
    assert curve.random_L is not None
    np.testing.assert_array_equal(curve.random_L, [row["normalised_evaluation"] for row in rows])
    for name, shown in (("low", curve.random_low_L), ("high", curve.random_high_L)):
        assert shown is not None
        np.testing.assert_array_equal(shown, [row[name] for row in rows])
    page = render_report(report_content(run))
    assert "the same architecture with random weights" in page
    assert "words \\u00b7 layer 0 \\u00b7 random weights" in page
    assert [report.problems for report in verify_runs(run.uri, n_rows=0)] == [(), ()]
    content = control.content_hash()
    control.discard(next(each for each, r in control.commits().items() if r.item.kind == "predictivity"))
    assert not run_job(config, run.uri, quiet=True).was_finished
    assert open_run(control.uri).content_hash() == content
    assert run_job(config, run.uri, quiet=True).was_finished
    plan = plan_job(config)
    alone, second = plan_job(config.replace(controls={})), plan_job(control_config(config))
    assert plan.store_bytes == alone.store_bytes + second.store_bytes
    assert (plan.n_rows, plan.n_tokens) == (2 * alone.n_rows, 2 * alone.n_tokens)


def test_a_control_that_says_nothing_is_refused(planted: Path, folder: Path) -> None:
    functions, controls = [tiny_jobs.word_function(folder)], {"random_weights": True}
    with pytest.raises(InputError, match="the model itself has random weights"):
        config = tiny_jobs.job(planted, functions, controls=controls)
        config.replace(model=config.model.replace(weights="random").as_json())
    with pytest.raises(InputError, match="needs 'predictivity'"):
        tiny_jobs.job(planted, functions, controls=controls, analyses=[])
