"""Scans: as one job at a time, extended, with broken checkpoints, resumed, and over two Ray workers."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import documented
import numpy as np
import pytest
import tiny_jobs
import tiny_scans

from modularity.errors import IdentityError, InputError, UnavailableError, WorkError
from modularity.pipelines import (
    ScanConfig,
    is_scan_complete,
    plan_scan,
    run_job,
    run_scan,
    scan_status,
    scan_worker,
    verify_runs,
)
from modularity.pipelines import scan as scan_module
from modularity.pipelines.revisions import find_checkpoints
from modularity.pipelines.scan import _factory
from modularity.pipelines.scan_summary import _require_equal_layers
from modularity.store import checkpoint_run, is_scan, open_space, open_summary, read_scan, verify_store
from modularity.types import PARTITION

NAMES = ["step00000000", "step00000010", "step00000100", "step00001000"]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_scans.save_series(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def scan_config(series: Path, functions: list[dict[str, Any]]) -> ScanConfig:
    return tiny_scans.scan(series, functions[1:])


@pytest.fixture(scope="module")
def scanned(scan_config: ScanConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished scan, first of the two outer checkpoints, then extended by the others."""
    out = tmp_path_factory.mktemp("scan") / "scan"
    run_scan(with_scan(scan_config, revisions="step0,step1000"), str(out), quiet=True)
    first = {name: (out / "checkpoints" / name / "run.json").read_bytes() for name in (NAMES[0], NAMES[3])}
    run_scan(scan_config, str(out), quiet=True)
    for name, before in first.items():
        assert (out / "checkpoints" / name / "run.json").read_bytes() == before, "done again"
    return out


def with_scan(config: ScanConfig, **changes: Any) -> ScanConfig:
    return config.replace(scan={**config.scan.as_json(), **changes})


def test_the_record_of_a_finished_scan(scanned: Path) -> None:
    record = read_scan(scanned)
    assert record.state == "finished"
    assert [(c.name, c.step, c.state) for c in record.checkpoints] == [
        (name, step, "finished") for name, step in zip(NAMES, (0, 10, 100, 1000))
    ]
    assert record.partition_of == "step00001000"
    assert record.equal_parameters == (("step00000010", "step00000100"),)
    assert [path.name for path in (scanned / "summaries").iterdir() if (path / "run.json").exists()] == [
        str(record.summary).removeprefix("summaries/")
    ]


def test_each_run_is_that_of_a_job_for_one_checkpoint(scan_config: ScanConfig, scanned: Path, tmp_path: Path) -> None:
    record = read_scan(scanned)
    checkpoints = {c.name: c for c in find_checkpoints(scan_config.model, None).checkpoints}
    for name in (NAMES[3], NAMES[0], NAMES[2]):
        config = scan_config.of_checkpoint(checkpoints[name], partition_of=NAMES[3], matmul=record.matmul)
        alone = run_job(config, str(tmp_path / name), quiet=True).run
        run = checkpoint_run(open_space(scanned), name)
        assert run.content_hash() == alone.content_hash()
        assert {c.name: c.content_hash for c in record.checkpoints}[name] == alone.content_hash()
        assert verify_store(run).ok


def test_all_have_the_partition_of_the_last(scanned: Path) -> None:
    labels = [checkpoint_run(open_space(scanned), name).results(PARTITION)["expert"].values for name in NAMES]
    for other in labels[:3]:
        assert (other == labels[3]).all()


def test_tables_of_the_comparison_are_documented(scanned: Path) -> None:
    assert documented.differences(open_summary(scanned), scan=True) == {}


def test_tables_and_results_along_steps(scanned: Path) -> None:
    summary = open_summary(scanned)
    assert summary.manifest.state == "finished"
    assert verify_store(summary).ok
    results = summary.results("topics")
    assert results["step"].values.tolist() == [0, 10, 100, 1000]
    assert results["level"].values.tolist() == ["neuron", "balanced", "random", "random partition"]
    assert results["consecutive"][:3, 1].values == pytest.approx(1.0)  # equal parameters
    assert results["final"][:, 3].values == pytest.approx(1.0)
    assert abs(float(results["final"][0, 0].mean())) < 0.5  # unrelated weights
    best = checkpoint_run(open_space(scanned), NAMES[1]).table("best_neurons").to_pylist()
    assert sorted(results["best"][1].values.ravel()) == pytest.approx(
        sorted(row["normalised_evaluation"] for row in best)
    )
    steps = summary.table("function_steps").to_pylist()
    assert [row["step"] for row in steps] == [0, 10, 100, 1000]
    tests = checkpoint_run(open_space(scanned), NAMES[0]).table("modularity_tests").to_pylist()
    wanted = next(
        row for row in tests
        if (row["figure"], row["layer"], row["null"], row["partition"]) == ("degree", -1, "permuted labels", "balanced")
    )  # fmt: skip
    assert steps[0]["degree"] == wanted["observed"]
    rows = summary.table("stabilisation").to_pylist()
    one = next(r for r in rows if (r["level"], r["comparison"], r["step"]) == ("neuron", "consecutive", 0))
    values_SL = results["consecutive"][0, 0].values
    assert one["rho"] == pytest.approx(values_SL.mean())
    assert (one["step_to"], one["n_subfunctions"], one["n_layers"]) == (10, 2, 2)
    assert one["low"] == pytest.approx(values_SL.mean(axis=1).min(), abs=1e-12)
    assert not any(r["step"] == 1000 for r in rows if r["comparison"] == "consecutive")


def test_a_finished_scan_is_left_as_it_is(scan_config: ScanConfig, scanned: Path) -> None:
    before = {path: path.read_bytes() for path in scanned.rglob("run.json")}
    assert run_scan(scan_config, str(scanned), quiet=True).state != "failed"
    assert {path: path.read_bytes() for path in scanned.rglob("run.json")} == before


def test_a_damaged_scan_is_verified_and_mended(scan_config: ScanConfig, scanned: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan"
    shutil.copytree(scanned, out)
    assert [report.problems for report in verify_runs(str(out), n_rows=0)] == [()] * 6
    assert is_scan_complete(str(out))
    record, checkpoint = out / "scan.json", checkpoint_run(open_space(out), NAMES[1])
    record.write_text(record.read_text().replace('"step": 10,', '"step": 11,'))
    item_id, damaged = next((each, r) for each, r in checkpoint.commits().items() if r.item.kind == "capture")
    Path(checkpoint.uri, damaged.objects[0].path).write_bytes(b"damaged")
    told = [report.problems for report in verify_runs(str(out), n_rows=0)]
    assert [len(problems) for problems in told] == [1, 0, 1, 0, 0, 0]
    assert "scan.json was changed: it does not match its digest; delete it and run the job again" in told[0][0]
    assert f"delete commits/{item_id}.json and run the job again" in told[2][0]
    record.unlink()
    Path(checkpoint.uri, "commits", f"{item_id}.json").unlink()
    run_scan(scan_config, str(out), quiet=True)
    assert [report.problems for report in verify_runs(str(out), n_rows=0)] == [()] * 6
    assert [c.content_hash for c in read_scan(out).checkpoints] == [
        c.content_hash for c in read_scan(scanned).checkpoints
    ]
    assert is_scan_complete(str(out))


def test_verify_looks_at_every_run(scanned: Path) -> None:
    record, *found = verify_runs(str(scanned), n_rows=1)
    assert record.uri == str(scanned)
    assert [Path(each.uri).name for each in found[:4]] == NAMES
    assert [each.n_rows for each in found] == [1, 1, 1, 1, 0]
    assert not any(each.problems for each in found)


def test_what_was_deleted_because_of_damage_is_made_again(
    scan_config: ScanConfig, scanned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scan"
    shutil.copytree(scanned, out)
    summary = str(read_scan(out).summary)
    lost = [*out.glob(f"checkpoints/{NAMES[1]}/commits/experts-*"), *out.glob(f"{summary}/commits/curves-*")]
    before = {path: path.read_bytes() for path in lost}
    assert len(lost) == 2
    for path in lost:
        path.unlink()
    run_scan(scan_config, str(out), quiet=True)
    assert {path: path.exists() for path in lost} == dict.fromkeys(before, True)
    assert open_summary(out).content_hash() == open_summary(scanned).content_hash()


def test_status(scanned: Path) -> None:
    status = scan_status(str(scanned))
    text = status.text()
    assert "checkpoints 4: 4 finished" in text
    assert "partition   of step00001000" in text
    assert "equal       step00000010, step00000100 have the same parameters" in text
    assert json.loads(json.dumps(status.as_json()))["state"] == "finished"


def test_plan(scan_config: ScanConfig, tmp_path: Path) -> None:
    plan = plan_scan(scan_config, str(tmp_path / "scan"))
    assert "  checkpoints 4: step00000000, step00000010" in plan.text()
    assert "  to be run   4, 1 at a time" in plan.text()
    assert plan.whole.store_bytes == 4 * plan.each.store_bytes
    for runtime, said in (({}, "4, 1 at a time, more where workers fit"), ({"workers": 3}, "4, 3 at a time")):
        assert f"  to be run   {said}\n" in plan_scan(scan_config.replace(runtime=runtime), None).text()
    assert not (tmp_path / "scan").exists()


def test_other_settings_are_refused_with_both_values(scan_config: ScanConfig, scanned: Path) -> None:
    other = scan_config.replace(predictivity={**scan_config.predictivity.as_json(), "n_permutations": 50})
    with pytest.raises(IdentityError, match=r"config\.predictivity\.n_permutations: recorded 40, now 50"):
        run_scan(other, str(scanned), quiet=True)
    with pytest.raises(IdentityError, match=r"scan\.partition_of: recorded step00001000, now step00000000"):
        run_scan(with_scan(scan_config, partition_of="step00000000"), str(scanned), quiet=True)


def test_changed_data_are_refused(scan_config: ScanConfig, scanned: Path, folder: Path) -> None:
    path = folder / "topics.jsonl"
    before = path.read_text()
    path.write_text("\n".join(before.splitlines()[3:]) + "\n")
    try:
        with pytest.raises(IdentityError, match="function 'topics' has other examples than when step00000000"):
            run_scan(scan_config, str(scanned), quiet=True)
    finally:
        path.write_text(before)


def test_wrong_input_is_told_at_once(scan_config: ScanConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        run_scan(with_scan(scan_config, revisions="step9:step1:3"), str(tmp_path), quiet=True)
    assert any("holds no scan (no scan.json)" in problem for problem in caught.value.problems)
    assert any("must lie before" in problem for problem in caught.value.problems)
    with pytest.raises(InputError, match=r"scan\.partition_of='main' is not among the checkpoints step00000000"):
        run_scan(with_scan(scan_config, partition_of="main"), str(tmp_path / "scan"), quiet=True)
    bad = scan_config.replace(experts={**scan_config.experts.as_json(), "n_experts": 7})
    with pytest.raises(InputError, match="n_experts=7 does not divide"):
        run_scan(bad, str(tmp_path / "scan"), quiet=True)
    assert not is_scan(tmp_path / "scan")


def test_folders_of_another_shape_are_refused_before_any_work(
    series: Path, scan_config: ScanConfig, tmp_path: Path
) -> None:
    mixed = tmp_path / "series"
    shutil.copytree(series, mixed)
    for name, change in ((NAMES[0], {"intermediate_size": 80}), (NAMES[1], {"num_hidden_layers": 3})):
        shutil.rmtree(mixed / name)
        tiny_jobs.save(mixed / name, tiny_jobs.random_module(tiny_jobs.bert_config(**change)))
    config = scan_config.replace(model={**scan_config.model.as_json(), "name": str(mixed)}, analyses=("predictivity",))
    with pytest.raises(InputError) as caught:
        run_scan(config, str(tmp_path / "scan"), quiet=True)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "step00000000 has layers of 80, 80 neurons, others of 160, 160",
        "step00000010 has layers of 160, 160, 160 neurons, others of 160, 160",
    ]
    assert not (tmp_path / "scan").exists()


def test_a_comparison_of_other_shapes_is_refused(scanned: Path) -> None:
    def run(widths: list[int]) -> Any:
        return SimpleNamespace(results=lambda _: {"width": SimpleNamespace(values=np.array(widths))})

    with pytest.raises(InputError, match="the layers of step00000010 differ in number or width"):
        _require_equal_layers(read_scan(scanned), [run([4, 4]), run([4]), run([4, 4]), run([4, 4])], "topics")


def test_only_checkpoints_that_wait_are_fetched_ahead(scan_config: ScanConfig, scanned: Path) -> None:
    start: Any = SimpleNamespace(config=scan_config)
    factory = _factory(start, read_scan(scanned), NAMES[1:3], str(scanned))
    assert [name for name, _ in factory.configs] == NAMES[1:3]


def test_broken_checkpoints_are_reported_and_tried_again(series: Path, scan_config: ScanConfig, tmp_path: Path) -> None:
    broken = tmp_path / "series"
    shutil.copytree(series, broken)
    weights = broken / "step00001000" / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:1000])
    (broken / "step00000010" / "config.json").unlink()
    config = scan_config.replace(model={**scan_config.model.as_json(), "name": str(broken)})
    out = tmp_path / "scan"
    with pytest.raises(WorkError) as caught:
        run_scan(config, str(out), quiet=True)
    said = str(caught.value)
    assert said.startswith("2 of 4 checkpoints failed, the others are done and compared")
    assert "step00000010  InputError: folder" in said
    assert "step00001000  ModelError: " in said, said
    assert "has no header of a safetensors file; complete the download" in said
    record = read_scan(out)
    assert (record.state, record.partition_of) == ("failed", "step00000100")
    assert [c.name for c in record.finished] == ["step00000000", "step00000100"]
    assert open_summary(out).results("topics")["step"].values.tolist() == [0, 100]
    assert "step00000010  failed: InputError" in scan_status(str(out)).text()
    weights.write_bytes(kept)
    with pytest.raises(WorkError, match="1 of 4 checkpoints failed"):
        run_scan(config, str(out), quiet=True)
    assert read_scan(out).partition_of == "step00000100"
    assert open_summary(out).results("topics")["step"].values.tolist() == [0, 100, 1000]
    record = run_scan(with_scan(config, revisions="step0,step1000"), str(out), quiet=True)
    assert (record.state, [c.step for c in record.checkpoints]) == ("finished", [0, 100, 1000])


def test_an_interrupted_scan_goes_on(
    scan_config: ScanConfig, scanned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modularity.pipelines import analysis_worker

    out, calls = tmp_path / "scan", []
    original = analysis_worker.AnalysisWorker.__call__

    def interrupted(self: Any, item: Any) -> Any:
        calls.append(item)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return original(self, item)

    with monkeypatch.context() as patched:
        patched.setattr(analysis_worker.AnalysisWorker, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_scan(scan_config, str(out), quiet=True)
    assert read_scan(out).state == "interrupted"
    assert "interrupted: the command that started the run goes on" in scan_status(str(out)).text()
    record = run_scan(scan_config, str(out), quiet=True)
    assert [c.content_hash for c in record.checkpoints] == [c.content_hash for c in read_scan(scanned).checkpoints]
    assert open_summary(out).content_hash() == open_summary(scanned).content_hash()


@pytest.mark.parametrize("is_down", [False, True], ids=["one record", "every record"])
def test_a_store_at_fault_ends_the_scan_with_the_table_of_what_failed(
    is_down: bool, scan_config: ScanConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, begun = tmp_path / "scan", []
    original = scan_worker.run_with

    def unavailable(*arguments: Any, only_partition: bool, **options: Any) -> Any:
        if only_partition:
            return original(*arguments, only_partition=True, **options)
        begun.append(arguments)
        if is_down:
            monkeypatch.setattr(scan_module, "write_scan", no_answer)
        return no_answer()

    def no_answer(*_: Any) -> Any:
        raise UnavailableError("no answer")

    monkeypatch.setattr(scan_worker, "run_with", unavailable)
    with pytest.raises(UnavailableError, match="1 of 4 work items failed and 3 were not started"):
        run_scan(scan_config, str(out), quiet=True)
    assert len(begun) == 1
    record = read_scan(out)
    assert record.state == ("running" if is_down else "failed")
    assert {checkpoint.state for checkpoint in record.checkpoints} == {"planned"}


@pytest.mark.slow
def test_two_ray_workers_write_the_same(
    scan_config: ScanConfig, scanned: Path, tmp_path: Path, local_ray: None
) -> None:
    config = scan_config.replace(
        runtime={"executor": "ray", "cpus_per_worker": 1}, scan={**scan_config.scan.as_json(), "parallel": 2}
    )
    record = run_scan(config, str(tmp_path / "scan"), quiet=True)
    assert [c.content_hash for c in record.checkpoints] == [c.content_hash for c in read_scan(scanned).checkpoints]
    assert open_summary(tmp_path / "scan").content_hash() == open_summary(scanned).content_hash()
