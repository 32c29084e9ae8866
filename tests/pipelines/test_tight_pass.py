"""The tight-pass job on tiny checkpoints: spectra against autograd, both ways for attention, resume, plan, refusals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import documented
import numpy as np
import pytest
import tiny_jobs as tiny
import torch

from modularity.config import validate_config
from modularity.errors import AllowanceError, InputError, WorkError
from modularity.models import SubBlock, load_model, record_text
from modularity.pipelines import TightPassConfig, plan_tight_pass, run_tight_pass
from modularity.pipelines.tight_pass_prepare import prepare_tight_pass
from modularity.store import Run

WORDS = ("river stone moon sun old new", "the a an of and with over under", "hill road tree bird fish lamp door")
N_ITEMS = 3 * 3 * 2 * 2
"""Texts, conditions, layers, kinds."""


def write_texts(path: Path) -> Path:
    return tiny.write_rows(path, [{"id": f"t{n}", "text": text} for n, text in enumerate(WORDS)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tight")
    write_texts(place / "texts.jsonl")
    tiny.save(place / "opt", tiny.random_module(tiny.opt_config()))
    return place


def config(folder: Path, **changes: Any) -> TightPassConfig:
    values: dict[str, Any] = {
        "model": {"name": str(folder / "opt"), "dtype": "float32"},
        "texts": {"source": str(folder / "texts.jsonl"), "id": "id"},
        "n_points": 32,
        "n_resamples": 200,
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    }
    return validate_config(TightPassConfig, {**values, **changes})


@pytest.fixture(scope="module")
def finished(folder: Path) -> Run:
    return run_tight_pass(config(folder), str(folder / "run"), quiet=True).run


def rows(run: Run, table: str, **wanted: Any) -> list[Mapping[str, Any]]:
    found = run.table(table).to_pylist()
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


def jacobian(folder: Path, text: int, kind: Any, layer: int) -> torch.Tensor:
    """By autograd, of the plain model."""
    prepared = prepare_tight_pass(config(folder))
    model = load_model(prepared.config.model_of("model"))
    found = record_text(model, prepared.texts[text].ids_T, stack="decoder", layers=[layer], kinds=[kind])
    block = SubBlock(model, found[kind, layer])
    size = block.point_TD.numel()
    return torch.autograd.functional.jacobian(block, block.point_TD).reshape(size, size)


@pytest.mark.parametrize("kind", ["ffn", "attention"])
def test_spectra_are_those_of_the_whole_jacobian(finished: Run, folder: Path, kind: str) -> None:
    values = torch.linalg.svdvals(jacobian(folder, 1, kind, 1)).numpy()
    (row,) = rows(finished, "tight_pass", text="t1", sub_block=kind, layer=1, control="model")
    assert row["n_values"] == len(values) == row["n_tokens"] * row["width"]
    assert row["largest"] == pytest.approx(values[0], rel=1e-10)
    assert row["stable_rank"] == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-9)
    assert row["rank"] == (values > len(values) * np.finfo(float).eps * values[0]).sum()
    assert row["stable_low"] == row["stable_rank"] == row["stable_high"]
    spectra = finished.results("tight_pass_spectra").sel(control="model", sub_block=kind, layer=1, text="t1")
    np.testing.assert_allclose(spectra["leading_value"].values, values[:16], rtol=1e-9)
    above = spectra["count_above"].sel(cut=1e-2, method="nearest")
    assert int(above) == (values > float(above["cut"]) * values[0]).sum() == row["above_hundredth"]
    middle = spectra["sorted_value"].values[16]
    assert middle == pytest.approx(values[int(16.5 / 32 * len(values))], rel=1e-9)


def test_rank_of_the_ffn_is_its_bound_token_by_token(finished: Run) -> None:
    tokens = rows(finished, "tight_pass_tokens")
    assert len(tokens) == sum(row["n_tokens"] for row in rows(finished, "tight_pass", sub_block="ffn"))
    assert all(row["rank"] <= row["rank_bound"] <= min(31, row["n_active"]) for row in tokens)
    assert sum(row["rank"] == row["rank_bound"] for row in tokens) > 0.95 * len(tokens)
    assert {row["rank_bound"] == row["n_active"] for row in tokens} == {True, False}  # both limits occur


def test_products_with_vectors_agree_with_the_whole_jacobian(finished: Run, folder: Path) -> None:
    free = {"dense_up_to": 0, "n_probes": 6, "n_steps": 32, "n_leading": 8, "n_iterations": 3}
    one = config(folder, kinds=["attention"], controls=[], layers=[1], matrix_free=free)
    run = run_tight_pass(one, str(folder / "free"), quiet=True).run
    inside = []
    for row in rows(run, "tight_pass"):
        wanted = {"sub_block": "attention", "control": "model", "layer": row["layer"], "text": row["text"]}
        (exact,) = rows(finished, "tight_pass", **wanted)
        assert row["method"] == "matrix_free"
        assert np.isnan(row["rank"])
        assert row["largest"] == pytest.approx(exact["largest"], abs=row["largest_residual"] + 1e-12)
        assert row["effective_rank"] == pytest.approx(exact["effective_rank"], rel=0.05)
        assert row["hundredth_low"] <= exact["above_hundredth"] <= row["hundredth_high"]
        inside += [row[f"{n}_low"] <= exact[f"{n}_rank"] <= row[f"{n}_high"] for n in ("stable", "effective")]
    assert sum(inside) >= 4  # of 6 intervals at 95 %
    place = {"control": "model", "sub_block": "attention", "layer": 1}
    sorted_free, sorted_exact = (
        each.results("tight_pass_spectra")["sorted_value"].sel(place) for each in (run, finished)
    )
    difference = np.abs(np.log(sorted_free.values[:, :24]) - np.log(sorted_exact.values[:, :24]))
    assert np.median(difference) < 0.15


def test_controls_are_other_weights_on_the_same_texts(finished: Run) -> None:
    for kind in ("ffn", "attention"):
        largest = {
            control: [row["largest"] for row in rows(finished, "tight_pass", sub_block=kind, control=control)]
            for control in ("model", "random_weights", "shuffled_weights")
        }
        assert not set(largest["model"]) & set(largest["random_weights"])
        assert not set(largest["model"]) & set(largest["shuffled_weights"])
    assert len(rows(finished, "tight_pass")) == N_ITEMS


def test_texts_are_brought_together(finished: Run) -> None:
    own = rows(finished, "tight_pass", sub_block="ffn", layer=0, control="model")
    (mean,) = rows(finished, "tight_pass_layers", sub_block="ffn", layer=0, control="model", measure="stable_rank")
    per_token = [row["stable_rank"] / row["n_tokens"] for row in own]
    assert mean["mean"] == pytest.approx(np.mean(per_token))
    assert mean["low"] <= mean["mean"] <= mean["high"]
    assert mean["n_texts"] == 3
    tests = rows(finished, "tight_pass_tests")
    assert {row["smallest_p_value"] for row in tests} == {0.25}
    assert all(0.25 <= row["p_value"] <= row["q_value"] <= 1 for row in tests)
    assert {row["n_layers"] for row in rows(finished, "tight_pass_layer_tests")} == {2}


def test_tables_are_documented(finished: Run) -> None:
    assert documented.differences(finished) == {}


def test_a_stopped_run_goes_on_and_gives_the_same(finished: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modularity.pipelines import tight_pass_worker

    calls = []

    def fails_later(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return measure(*args, **kwargs)

    measure = tight_pass_worker.measure_ffn
    monkeypatch.setattr(tight_pass_worker, "measure_ffn", fails_later)
    with pytest.raises(KeyboardInterrupt):
        run_tight_pass(config(folder), str(folder / "stopped"), quiet=True)
    monkeypatch.setattr(tight_pass_worker, "measure_ffn", measure)
    run = run_tight_pass(config(folder), str(folder / "stopped"), quiet=True).run
    assert run.content_hash() == finished.content_hash()
    assert run_tight_pass(config(folder), str(folder / "stopped"), quiet=True).was_finished


def test_the_plan_counts_and_refuses(folder: Path) -> None:
    plan = plan_tight_pass(config(folder))
    assert plan.items == {"spectrum": N_ITEMS, "tight_pass_tests": 1}
    assert plan.seconds is not None
    assert plan.seconds > 0
    assert "the whole Jacobian for 3 texts" in plan.text()
    small = config(folder, allowance={"worker_bytes": 1000, "hours": 1e-9, "store_bytes": 10})
    with pytest.raises(AllowanceError) as caught:
        plan_tight_pass(small).check(small.allowance)
    assert all(part in str(caught.value) for part in ("of memory", "the store needs", "h: take fewer texts"))
    with pytest.raises(AllowanceError):
        run_tight_pass(small, str(folder / "refused"), quiet=True)
    assert not (folder / "refused").exists()


def test_all_problems_at_once(folder: Path) -> None:
    wrong = config(folder, layers=[0, 7], stack="encoder", texts={"source": "absent.jsonl"})
    with pytest.raises(InputError) as caught:
        prepare_tight_pass(wrong)
    assert "absent.jsonl" in str(caught.value)
    assert "stack='encoder': the model has decoder" in str(caught.value)
    with pytest.raises(InputError, match=r"layers=\[7\] do not exist"):
        prepare_tight_pass(config(folder, layers=[0, 7]))
    with pytest.raises(InputError) as caught:
        config(folder, kinds=["ffn", "ffn"], model={"name": "x", "attention": "sdpa", "weights": "random"})
    assert all(part in str(caught.value) for part in ("twice", "sdpa", "random weights"))


def test_a_layout_that_does_not_fit_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modularity.models import sub_blocks

    monkeypatch.setattr(sub_blocks, "TOLERANCE", dict.fromkeys(sub_blocks.TOLERANCE, 0.0))
    with pytest.raises(WorkError, match=r"SiteError: decoder\.layers\.0: the ffn .* differs from what the model gave"):
        run_tight_pass(
            config(folder, layers=[0], kinds=["ffn"], controls=[], texts={"source": str(folder / "texts.jsonl")}),
            str(folder / "unfit"),
            quiet=True,
        )


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_encoders(folder: Path, name: str) -> None:
    build = {"bert": tiny.bert_config, "t5": tiny.t5_config}[name]
    tiny.save(folder / name, tiny.random_module(build()))
    model = {"name": str(folder / name), "dtype": "float32"}
    one = config(folder, model=model, layers=[1], controls=[], with_norm=False)
    run = run_tight_pass(one, str(folder / f"run-{name}"), quiet=True).run
    assert {row["reproduction_error"] < 1e-5 for row in rows(run, "tight_pass")} == {True}
    assert {row["sub_block"] for row in rows(run, "tight_pass")} == {"ffn", "attention"}
