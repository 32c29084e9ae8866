"""The place of a run is looked at before any model is loaded, and told with everything else that is wrong."""

import os
from pathlib import Path
from typing import Any

import pytest
import tiny_jobs

from modularity.errors import IdentityError, InputError
from modularity.pipelines import EmergentModularityConfig, model_worker
from modularity.pipelines.place import place_problems
from modularity.store import Run


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch, finished: Run) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(model_worker, "load_model", refuse)


def test_an_empty_or_missing_folder_and_a_run_are_places(tmp_path: Path, finished: Run) -> None:
    for place in (tmp_path, tmp_path / "new" / "run", finished.uri):
        assert place_problems(str(place)) == []
    assert list(tmp_path.iterdir()) == []


def test_other_things_are_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert "is not empty and holds no run" in place_problems(str(tmp_path))[0]
    assert "is a file" in place_problems(str(tmp_path / "notes.txt" / "run"))[0]
    assert "is no place to keep a run" in place_problems("ftp://somewhere/run")[0]
    (tmp_path / "run.json").write_text("{")
    assert "is damaged" in place_problems(str(tmp_path))[0]


def test_a_folder_that_may_not_be_changed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert place_problems(str(tmp_path / "run")) == [
        f"{tmp_path / 'run'} cannot be written: {tmp_path} may not be changed; name another folder"
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
def test_an_object_store_is_asked(bucket: str) -> None:
    assert place_problems(f"{bucket}/new") == []
    assert place_problems(f"{bucket}/new") == []
    assert "failed" in place_problems("s3://no-such-bucket/run")[0]


def test_the_place_is_told_with_the_problems_of_the_data(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    absent = [{"name": "absent", "source": str(tmp_path / "absent.jsonl")}]
    with pytest.raises(InputError) as caught:
        tiny_jobs.run(tiny_jobs.job(bert, absent, experts={"n_experts": 7}), tmp_path)
    data, experts, place = caught.value.problems
    assert "absent.jsonl" in data
    assert "n_experts=7" in experts
    assert "is not empty and holds no run" in place


def test_a_run_of_another_config_is_refused_with_the_problems_of_the_data(
    config: EmergentModularityConfig, finished: Run, tmp_path: Path
) -> None:
    other = config.replace(variant="paper")
    with pytest.raises(IdentityError, match=r"config\.variant: recorded .corrected., now .paper."):
        tiny_jobs.run(other, finished.uri)
    absent = {**config.functions[0].as_json(), "source": str(tmp_path / "absent.jsonl")}
    with pytest.raises(InputError) as caught:
        tiny_jobs.run(other.replace(functions=[absent]), finished.uri)
    assert len(caught.value.problems) == 2
    assert "config.variant" in caught.value.problems[1]
