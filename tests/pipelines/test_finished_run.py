"""The run that a further job starts from: what is refused, and its data read again."""

from pathlib import Path

import pytest
import torch

from modularity.errors import IdentityError, InputError
from modularity.models import load_head_model
from modularity.pipelines import EmergentModularityConfig
from modularity.pipelines.finished_run import (
    collect,
    finished_run,
    identify_source_model,
    longest_text,
    ranking_problems,
    source_job,
    subfunctions_of,
)
from modularity.pipelines.perturbation_tasks import TaskName
from modularity.store import Manifest, Run, create_run

TASK = TaskName("task0", "tasks", "task0", ("w21", "w20"))


def test_only_a_finished_study_is_taken(olmoe_run: Run, tmp_path: Path) -> None:
    assert finished_run(olmoe_run.uri).uri == olmoe_run.uri
    with pytest.raises(InputError, match=r"source: there is no run at"):
        finished_run(str(tmp_path / "nowhere"))
    other = create_run(str(tmp_path / "run"), Manifest.of("perturbation"))
    with pytest.raises(InputError, match=r"run of perturbation; expected a finished one of emergent_modularity"):
        finished_run(other.uri)


def test_its_subfunctions_are_those_that_were_ranked(olmoe_run: Run) -> None:
    assert subfunctions_of(olmoe_run) == [("tasks", f"task{number}") for number in range(4)]
    assert ranking_problems(olmoe_run) == []


def test_its_data_are_read_again_and_must_be_the_same(olmoe_run: Run, tmp_path: Path) -> None:
    declared = EmergentModularityConfig.model_validate(olmoe_run.manifest.config)
    job = source_job(None, olmoe_run, declared, [TASK])
    assert job.data_identity() == olmoe_run.manifest.identity["data"]
    assert longest_text(job) == 64
    (function,) = declared.functions
    lines = Path(str(function.source)).read_text().splitlines()
    changed = tmp_path / "changed.jsonl"
    changed.write_text("\n".join([*lines[:-1], lines[-1].replace("w", "w1", 1)]) + "\n")
    moved = declared.replace(functions=[function.as_json() | {"source": str(changed)}])
    with pytest.raises(InputError, match=r"function 'tasks' are not those of the run: fingerprint \S+, recorded is"):
        source_job(None, olmoe_run, moved, [TASK])


def test_another_model_is_refused(olmoe_run: Run) -> None:
    declared = EmergentModularityConfig.model_validate(olmoe_run.manifest.config)
    job = source_job(None, olmoe_run, declared, [TASK])
    model = load_head_model(job.config.model)
    assert identify_source_model(model, job, olmoe_run)["head"] == "causal"
    with torch.no_grad():
        model.base.module.get_input_embeddings().weight.mul_(1.5)
    with pytest.raises(IdentityError, match=r"row 0 of function 'tasks' differs"):
        identify_source_model(model, job, olmoe_run)


def test_problems_are_collected() -> None:
    def refuse() -> int:
        raise InputError(["one", "two"])

    problems: list[str] = []
    assert collect(refuse, problems) is None
    assert collect(lambda: 3, problems) == 3
    assert problems == ["one", "two"]
