"""Which checkpoints a list, a pattern, some folders or a training directory mean, and what is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from modularity.errors import InputError, ModelError
from modularity.models import ModelConfig
from modularity.pipelines.revisions import find_checkpoints, step_of

PYTHIA = ["main", *(f"step{step}" for step in (0, *(2**n for n in range(10)), *range(1000, 144000, 1000)))]
HUB = ModelConfig(name="owner/pythia")


def steps(revisions: str, available: Sequence[str] = PYTHIA) -> list[int]:
    selection = find_checkpoints(HUB, revisions, list_revisions=lambda _: available)
    return [checkpoint.step for checkpoint in selection.checkpoints]


def problems(revisions: str | None, folders: Sequence[str] = (), model: ModelConfig = HUB) -> list[str]:
    with pytest.raises(InputError) as caught:
        find_checkpoints(model, revisions, folders, list_revisions=lambda _: PYTHIA)
    return list(caught.value.problems)


def test_even_steps_are_the_nearest_that_exist() -> None:
    assert steps("step1000:step143000:8") == [1000, 21000, 42000, 62000, 82000, 102000, 123000, 143000]
    assert steps("step3000:step5000:3") == [3000, 4000, 5000]


def test_log_steps_have_even_ratios() -> None:
    assert steps("step1:step512:log10") == [2**n for n in range(10)]
    assert steps("step1:step143000:log12") == [1, 4, 8, 32, 64, 256, 512, 2000, 6000, 17000, 49000, 143000]


def test_lists_mix_names_patterns_and_steps_and_are_sorted() -> None:
    assert steps("step64, step0,step1000:step3000:2,144000=main") == [0, 64, 1000, 3000, 144000]
    found = find_checkpoints(HUB, "7=main,step5", list_revisions=lambda _: PYTHIA).checkpoints
    assert [(c.name, c.step, c.model, c.revision) for c in found] == [
        ("step5", 5, "owner/pythia", "step5"),
        ("main", 7, "owner/pythia", "main"),
    ]


def test_names_with_more_than_a_step() -> None:
    olmo = ["main", "step1000-tokens4B", "step2000-tokens8B", "stage2-step500-tokens1B"]
    assert steps("step1000:step2000:2", olmo) == [1000, 2000]
    assert step_of("stage1-step1000-tokens3B") == 1000
    assert step_of("checkpoint-500") == 500
    assert step_of("main") is None
    assert step_of("v2-epoch3") is None


def test_fewer_than_asked_is_told() -> None:
    selection = find_checkpoints(HUB, "step1:step8:log9", list_revisions=lambda _: PYTHIA)
    assert [checkpoint.step for checkpoint in selection.checkpoints] == [1, 2, 4, 8]
    assert selection.notes == ("step1:step8:log9: 9 revisions asked for, 4 different ones are nearest",)


def test_a_list_of_names_asks_nobody() -> None:
    def refuse(_: ModelConfig) -> Sequence[str]:
        raise AssertionError("the list of revisions is not needed")

    assert len(find_checkpoints(HUB, "step1,step2", list_revisions=refuse).checkpoints) == 2


def test_everything_wrong_with_the_patterns_is_told_at_once() -> None:
    said = problems("step9:step1:4,step1:step9,step0:step8:log3,a1:b2:3,step1:step9:1,,main")
    assert len(said) == 7
    expected = (
        "'step9:step1:4': the first step, 9, must lie before the last, 1",
        "'step1:step9': expected FIRST:LAST:N (even steps) or FIRST:LAST:logN",
        "log spacing begins at step 1 or later; list step0 before a comma",
        "one end is 'a' and a number, the other 'b' and a number",
        "'step1:step9:1': 1 revisions between two ends; expected at least 2",
        "--revisions has an empty entry",
        "'main': expected one step number in the name; write it before: 1000=main",
    )
    for text in expected:
        assert any(text in problem for problem in said), text


@pytest.mark.parametrize(
    ("revisions", "message"),
    [
        (None, "--revisions is missing: which revisions of 'owner/pythia'?"),
        ("go1:go9:3", "no revision goN lies between both ends; there are main, step0, step1, step2, step4, step8 and"),
        ("step1,1=step1-b", "step 1 is named 2 times: step1, step1-b; keep one, or give another step by STEP=NAME"),
        ("step1", "a scan compares checkpoints, but only 1 is there; name at least two"),
    ],
)
def test_refusals(revisions: str | None, message: str) -> None:
    assert message in problems(revisions)[0]


def test_a_revision_of_the_model_is_refused_with_the_rest() -> None:
    said = problems("step5:step1:2", model=ModelConfig(name="owner/pythia", revision="step1"))
    assert "model.revision='step1': a scan takes several" in said[0]
    assert "must lie before the last" in said[1]


def test_without_hub_and_cache_the_model_error_is_clear(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the Hugging Face hub cannot be reached \(HF_HUB_OFFLINE is set\)") as caught:
        find_checkpoints(ModelConfig(name="owner/pythia", cache_dir=str(tmp_path)), "step1:step9:3")
    assert "give folders instead" in str(caught.value)


def training(folder: Path) -> ModelConfig:
    for name in ("step00000100", "step00000020", "step00000000", "checkpoint-7", "logs", "tensorboard2"):
        (folder / name).mkdir(parents=True)
    return ModelConfig(name=str(folder))


def test_a_training_directory_is_sorted_by_number(tmp_path: Path) -> None:
    model = training(tmp_path / "training")
    found = find_checkpoints(model, None).checkpoints
    assert [(c.step, c.name) for c in found] == [
        (0, "step00000000"), (7, "checkpoint-7"), (20, "step00000020"), (100, "step00000100"),
    ]  # fmt: skip
    assert found[2].model == str(tmp_path / "training" / "step00000020")
    assert found[2].revision is None
    chosen = find_checkpoints(model, "step0:step100:2,step20").checkpoints
    assert [checkpoint.step for checkpoint in chosen] == [0, 20, 100]


def test_wrong_training_directories(tmp_path: Path) -> None:
    model = training(tmp_path / "training")
    assert "'step5' is no sub-folder; there are step00000000, " in problems("step5,step20", model=model)[0]
    empty = ModelConfig(name=str(tmp_path))
    assert "holds no sub-folders named like step00000100" in problems(None, model=empty)[0]
    assert "does not exist" in problems(None, model=ModelConfig(name=str(tmp_path / "none")))[0]


def test_two_sub_folders_of_one_step_are_told_and_a_name_means_itself(tmp_path: Path) -> None:
    for name in ("step10", "checkpoint-10", "step20", "final"):
        (tmp_path / name).mkdir()
    model = ModelConfig(name=str(tmp_path))
    said = problems(None, model=model)
    assert len(said) == 1
    assert "step 10 is named 2 times" in said[0]
    assert "'step0010' is the step of 2 sub-folders, checkpoint-10, step10; name one of them" in problems(
        "step0010,step20", model=model
    )
    chosen = find_checkpoints(model, "checkpoint-10,step20,30=final").checkpoints
    assert [(c.step, c.name) for c in chosen] == [(10, "checkpoint-10"), (20, "step20"), (30, "final")]
    assert "'final': expected one step number in the name" in problems("²=final,step20", model=model)[0]


def test_models_that_are_not_named_like_steps_are_told(tmp_path: Path) -> None:
    model = training(tmp_path / "training")
    assert find_checkpoints(model, None).notes == ()
    for name in ("step1000-tokens4B", "final", "step00000020"):
        (tmp_path / "training" / name).mkdir(exist_ok=True)
        (tmp_path / "training" / name / "config.json").write_text("{}")
    selection = find_checkpoints(model, None)
    assert len(selection.checkpoints) == 4
    assert selection.notes == (
        "not named like steps, so left out: final, step1000-tokens4B; name them with --revisions",
    )


def test_several_folders_with_and_without_steps(tmp_path: Path) -> None:
    for name in ("early-10", "final"):
        (tmp_path / name).mkdir()
    folders = [f"500={tmp_path / 'final'}", str(tmp_path / "early-10")]
    found = find_checkpoints(HUB, None, folders).checkpoints
    assert [(c.step, c.name, c.model) for c in found] == [
        (10, "early-10", str(tmp_path / "early-10")),
        (500, "final", str(tmp_path / "final")),
    ]
    said = problems("step1", [str(tmp_path / "final"), str(tmp_path / "none-1")])
    assert "--revisions 'step1' with 2 folders" in said[0]
    assert "'final': expected one step number in the name" in said[1]
    assert "none-1' does not exist" in said[2]
