"""Restricted routing on a tiny OLMoE from plan to report, and the test of functional experts against others by hand."""

import dataclasses
from pathlib import Path

import documented
import numpy as np
import pytest
import tiny_jobs
import tiny_perturbation as tiny
import torch
import transformers

from modularity.pipelines.perturbation import plan_perturbation
from modularity.pipelines.perturbation_config import RoutingConfig
from modularity.pipelines.restrictions import Restriction, compare_restrictions, restriction_items
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


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a random OLMoE with six experts, called functional generously, so that there are some."""
    folder = tmp_path_factory.mktemp("olmoe")
    config = transformers.OlmoeConfig(
        vocab_size=tiny.N_WORDS + tiny.SHIFT, hidden_size=32, intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, num_experts=6, num_experts_per_tok=2, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.15 * torch.randn(parameter.shape))
    module.save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    experts = {"n_experts": 6, "methods": ["native"], "top_fraction": 0.25, "sensitivity": [0.25], "fdr": 0.9}
    job = tiny.source_job(folder, folder / "model", capture={"layers": [0, 1]}, experts=experts)
    return tiny_jobs.run(job, folder / "run")


def test_routing_of_a_mixture_model_from_plan_to_report(source: Run, tmp_path: Path) -> None:
    config = tiny.config(
        source, rankings=["single", "experts"], noises=["zero"], seeds=[0], layers=[0, 1], routing={"n_draws": 19}
    )
    plan = plan_perturbation(config)
    functional = {
        row["subfunction"] for row in tiny_jobs.rows_of(source, "expert_counts", partition="native", functional=True)
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
