"""Restricted routing on a tiny OLMoE from plan to report, and the test of functional experts against others by hand."""

import dataclasses
from pathlib import Path

import documented
import numpy as np
import pytest
import tiny_jobs
import tiny_perturbation as tiny

from modularity.errors import InputError
from modularity.pipelines.perturbation import plan_perturbation
from modularity.pipelines.perturbation_config import RoutingConfig
from modularity.pipelines.restrictions import (
    Restriction,
    compare_restrictions,
    restriction_items,
    restriction_notes,
    restriction_of,
)
from modularity.report import headline_findings, report_content
from modularity.store import Manifest, Run, create_run, table_from_columns
from modularity.types import WorkItem

HALVES = Restriction("task0", "decoder", ((0, (1, 2)), (1, (0,))), (), 6)


def test_others_are_as_many_and_differ_by_draw() -> None:
    assert HALVES.functional() == {("decoder", 0): (1, 2), ("decoder", 1): (0,)}
    draws = [HALVES.others(draw, 0) for draw in range(20)]
    assert all(len(draw["decoder", 0]) == 2 and not {1, 2} & set(draw["decoder", 0]) for draw in draws)
    assert len({draw["decoder", 0] for draw in draws}) > 3
    assert HALVES.others(3, 0) == draws[3]


def test_random_experts_are_as_many_drawn_from_all() -> None:
    draws = [HALVES.any_experts(draw, (0, 5)) for draw in range(40)]
    assert all(len(set(draw["decoder", 0])) == 2 and len(draw["decoder", 1]) == 1 for draw in draws)
    assert {expert for draw in draws for expert in draw["decoder", 0]} == set(range(6))
    assert HALVES.any_experts(7, (0, 5)) == draws[7]
    assert [HALVES.any_experts(draw, (0, 6)) for draw in range(40)] != draws


def test_a_restriction_leaves_out_layers_without_a_control_of_the_same_size() -> None:
    made = restriction_of("task0", "decoder", {3: [4, 1], 1: [], 2: [0, 1, 2, 5]}, 6)
    assert (made.experts, made.left_out) == (((3, (1, 4)),), (2,))
    none = restriction_of("task1", "decoder", {}, 6)
    notes = restriction_notes([made, none])
    assert notes[0] == "task task0: functional experts of 6 are layer 3: 1 4"
    assert notes[1].startswith("task task0: more than half of the experts of layers [2] are functional; they stay")
    assert notes[2] == "task task1: no layer has functional experts to restrict routing to"


def test_a_task_without_functional_experts_has_no_item() -> None:
    none = dataclasses.replace(HALVES, task="task1", experts=())
    items = restriction_items([HALVES, none], RoutingConfig(n_draws=19))
    assert [item.integer("draw") for item in items] == list(range(-1, 19))
    assert {item.text("task") for item in items} == {"task0"}


def test_p_is_the_share_of_draws_at_least_as_good(tmp_path: Path) -> None:
    run = create_run(str(tmp_path / "run"), Manifest.of("perturbation"))
    measures = ("accuracy", "balanced_accuracy", "mcc", "margin")
    rows = []
    for draw, value in enumerate([0.8, *np.linspace(0.1, 0.9, 19)], -1):
        strategy = "functional" if draw < 0 else "others"
        for task in ("task0", "task1"):
            rows.append(
                {"experts_of": "task0", "task": task, "strategy": strategy, "draw": draw, "n_layers": 2,
                 "n_experts": 3, "n": 10}
                | dict.fromkeys(measures, float(value)) | {f"drop_{name}": 0.1 for name in measures}
            )  # fmt: skip
    item = WorkItem.of("routing")
    run.commit(item, tables=[run.write_table("routing", item, _table(rows))])
    compare_restrictions(run, WorkItem.of("routing_tests"))
    found = tiny_jobs.rows_of(run, "routing_tests", measure="margin")
    own = next(row for row in found if row["task"] == "task0")
    assert own["p_value"] == own["q_value"] == pytest.approx((1 + 3) / 20)  # 0.811, 0.856 and 0.9
    assert (own["unrestricted"], own["others"], own["n_draws"]) == pytest.approx((0.9, 0.5, 19))
    assert np.isnan(next(row for row in found if row["task"] == "task1")["q_value"])


def _table(rows):
    return table_from_columns({key: [row[key] for row in rows] for key in rows[0]})


def test_routing_of_a_mixture_model_from_plan_to_report(olmoe_run: Run, tmp_path: Path) -> None:
    config = tiny.config(
        olmoe_run, rankings=["single", "experts"], noises=["zero"], seeds=[0], layers=[0, 1], routing={"n_draws": 19}
    )
    plan = plan_perturbation(config)
    functional = {
        row["subfunction"] for row in tiny_jobs.rows_of(olmoe_run, "expert_counts", partition="native", functional=True)
    }
    assert functional
    run = tiny.run(config, tmp_path / "run")
    assert documented.differences(run) == {}
    rows = tiny_jobs.rows_of(run, "routing")
    assert len(rows) == plan.items["routing"] * 4
    assert {row["experts_of"] for row in rows} <= functional
    sizes = {(row["experts_of"], row["n_layers"], row["n_experts"]) for row in rows}
    assert len(sizes) == len({row["experts_of"] for row in rows})
    assert len({row["margin"] for row in rows if row["task"] == "task0"}) > 5
    content = report_content(run)
    assert content.perturbation is not None
    assert content.perturbation.routing is not None
    assert content.sections == ("perturbation", "routing")
    assert any(finding.text.startswith("routing: restricted to its own") for finding in headline_findings(content))


def test_routers_that_choose_within_groups_are_refused_with_all_other_problems(deepseek_run: Run) -> None:
    words = tiny.WORDS | {"task9": ("w1", "w2")}
    config = tiny.config(deepseek_run, label_words=words, layers=[0], routing={"n_draws": 19})
    with pytest.raises(InputError) as caught:
        plan_perturbation(config)
    first, *others = caught.value.problems
    assert "routers of 'deepseek_v3' choose within groups of experts or by a bias, and cannot be restricted" in first
    assert first.endswith("switch_transformers; leave the section routing out")
    assert any("no sub-function 'task9'" in other for other in others)
    assert any(other.startswith("layers [0]") for other in others)
    assert plan_perturbation(config.replace(label_words=tiny.WORDS, layers=[1], routing=None)).items["select"] > 0
