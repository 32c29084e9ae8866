"""Runs that take over what another run has computed: the same content as without, and nothing captured again."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_jobs

from modularity.errors import IdentityError, InputError
from modularity.pipelines import EmergentModularityConfig, analysis_worker, model_worker, plan_job, run_job
from modularity.store import Run, open_run, verify_store

Counts = Counter[str]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Items that workers compute, by kind; the model is asked for its identity in every run."""
    counts: Counts = Counter()
    for worker in (model_worker.ModelWorker, analysis_worker.AnalysisWorker):

        def call(self: Any, item: Any, original: Any = worker.__call__) -> Any:
            counts[item.kind] += item.kind != "identify"
            return original(self, item)

        monkeypatch.setattr(worker, "__call__", call)
    return counts


def changed(config: EmergentModularityConfig, **changes: Any) -> EmergentModularityConfig:
    """The config with single keys of its sections changed."""
    values = config.as_json()
    return config.replace(
        **{name: {**values[name], **new} if isinstance(new, dict) else new for name, new in changes.items()}
    )


def reused(config: EmergentModularityConfig, source: Run, out: Path) -> Run:
    return run_job(config, str(out), reuse=source.uri, quiet=True).run


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"experts": {"fdr": 0.2}}, {}),
        ({"predictivity": {"n_permutations": 30}}, {"predictivity": 6}),
        ({"experts": {"n_experts": 10}}, {"partition": 2}),
        ({"analyses": ["predictivity"]}, {"predictivity": 6}),
    ],
)
def test_a_changed_analysis_captures_nothing_and_gives_the_same_content(
    paper_config: EmergentModularityConfig,
    paper_run: Run,
    tmp_path: Path,
    computed: Counts,
    changes: dict[str, Any],
    expected: dict[str, int],
) -> None:
    config = changed(paper_config, **changes)
    run = reused(config, paper_run, tmp_path / "run")
    kinds = ("capture", "partition", "predictivity")
    assert {kind: computed[kind] for kind in kinds if computed[kind]} == expected
    assert run.manifest.state == "finished"
    assert run.manifest.notes["reused"] == paper_run.uri
    assert verify_store(run).ok
    before = paper_run.content_hash()
    fresh = tiny_jobs.run(config, tmp_path / "fresh")
    assert computed["capture"] == 1
    assert run.content_hash() == fresh.content_hash()
    assert paper_run.content_hash() == before


def test_a_captured_run_is_analysed_later(
    paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path, computed: Counts
) -> None:
    captured = tiny_jobs.run(changed(paper_config, analyses=[]), tmp_path / "captured")
    assert computed == {"capture": 1, "identify": 0}
    assert reused(paper_config, captured, tmp_path / "run").content_hash() == paper_run.content_hash()
    assert computed["capture"] == 1


def test_one_function_of_a_run_with_several(config: EmergentModularityConfig, finished: Run, tmp_path: Path) -> None:
    one = config.replace(functions=[config.functions[1].as_json()])
    assert reused(one, finished, tmp_path / "run").functions() == ("topics",)


def test_the_plan_says_what_is_reused(config: EmergentModularityConfig, finished: Run) -> None:
    plan = plan_job(changed(config, experts={"fdr": 0.2}), reuse=finished.uri)
    assert f"reused     3 capture, 2 partition, 12 predictivity from {finished.uri}" in plan.text()
    assert "reused" not in plan_job(config).text()


def test_an_interrupted_reuse_goes_on(
    paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(paper_config, experts={"fdr": 0.2})
    with monkeypatch.context() as patched:

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(analysis_worker, "summarise_function", stop)
        patched.setattr(analysis_worker.AnalysisWorker, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            reused(config, paper_run, tmp_path / "run")
    assert open_run(tmp_path / "run").manifest.state == "interrupted"
    run = reused(config, paper_run, tmp_path / "run")
    assert run.content_hash() == tiny_jobs.run(config, tmp_path / "fresh").content_hash()


def test_other_activations_are_refused_with_both_values(
    config: EmergentModularityConfig, finished: Run, tmp_path: Path
) -> None:
    with pytest.raises(IdentityError) as caught:
        reused(changed(config, capture={"dtype": "bfloat16"}), finished, tmp_path / "run")
    message = str(caught.value)
    assert 'config.capture.dtype: recorded "float32", now "bfloat16"' in message
    assert "set these values back to reuse them, or leave --reuse away to capture anew" in message
    assert not (tmp_path / "run").exists()
    threads = config.replace(runtime={"executor": "inprocess", "cpus_per_worker": 2})
    with pytest.raises(IdentityError, match=r"identity\.threads: recorded 1, now 2"):
        reused(threads, finished, tmp_path / "run")


def test_a_run_to_reuse_must_be_there_and_another_one(
    config: EmergentModularityConfig, paper_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--reuse: there is no run at"):
        reused(config, type(paper_run)(paper_run.space.join("none"), paper_run.manifest), tmp_path / "run")
    with pytest.raises(InputError, match="is the place of --out: name another place"):
        plan_or_run = changed(config, experts={"fdr": 0.2})
        run_job(plan_or_run, str(tmp_path / "run"), reuse=str(tmp_path / "run"), quiet=True)


def test_a_refusal_of_other_analyses_names_the_way(config: EmergentModularityConfig, finished: Run) -> None:
    with pytest.raises(IdentityError, match="only analyses differ: another --out with --reuse"):
        tiny_jobs.run(changed(config, experts={"fdr": 0.2}), finished.uri)


def test_label_words_are_added_without_computing_anything_again(
    paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path, computed: Counts
) -> None:
    functions = paper_config.as_json()["functions"]
    name = str(paper_run.results(functions[0]["name"])["subfunction"].values[0])
    functions[0]["label_words"] = {name: ["yes", "no"]}
    run = reused(paper_config.replace(functions=functions), paper_run, tmp_path / "run")
    assert not any(computed[kind] for kind in ("capture", "partition", "predictivity"))
    assert run.manifest.config["functions"][0]["label_words"] == {name: ["yes", "no"]}
    assert run.manifest.identity["data"] == paper_run.manifest.identity["data"]
