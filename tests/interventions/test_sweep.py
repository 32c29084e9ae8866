"""The full matrix on planted models: one where neurons serve one task each, one where all serve every task."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from modularity.errors import DataError, InputError
from modularity.interventions import (
    LabelTask,
    Mean,
    Selection,
    Shuffle,
    Zero,
    drop_array,
    label_task,
    measure_task,
    run_sweep,
    sweep_cells,
)
from modularity.models import HeadModel
from modularity.stats import dissociation_index

N_TASKS, N_NEURONS, OWN = 4, 24, 6
"""Texts of task t end in w(2t) for label 0, w(2t + 1) for 1; label words are w(20 + 2t) and w(21 + 2t)."""
SHIFT = 5  # token of w0


def planted(model: HeadModel, *, shared: bool) -> HeadModel:
    """OPT whose first FFN maps the last token to a label word; neurons 6t … 6t + 5 serve task t, or all serve all."""
    decoder = model.base.module.decoder
    n = 2 * N_TASKS
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        for module in decoder.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.0)
        decoder.embed_tokens.weight[SHIFT : SHIFT + n, :n] = 4 * torch.eye(n)
        first = decoder.layers[0]
        for neuron in range(N_NEURONS):
            task, answer = neuron // OWN, neuron % 2
            for served in range(N_TASKS) if shared else (task,):
                first.fc1.weight[neuron, 2 * served + answer] = 1.0
                first.fc2.weight[n + 2 * served + answer, neuron] = 0.05
        head = model.module.get_output_embeddings()
        head.weight.zero_()
        head.weight[SHIFT + 20 : SHIFT + 20 + n, n : 2 * n] = torch.eye(n)
    return model


@pytest.fixture
def planted_opt(tiny) -> Callable[..., HeadModel]:
    return lambda *, shared: planted(tiny("opt", tie_word_embeddings=False), shared=shared)


@pytest.fixture
def tasks(function_of, word_tokenizer) -> list[LabelTask]:
    made = []
    for task in range(N_TASKS):
        labels = [0, 1] * 10
        texts = [f"w{30 + i % 5} w{35 + i % 7} w{2 * task + label}" for i, label in enumerate(labels)]
        words = (f"w{20 + 2 * task}", f"w{21 + 2 * task}")
        made.append(label_task(function_of(texts, labels, name=f"task{task}"), word_tokenizer, words))
    return made


def own_masks() -> list[Selection]:
    """The neurons that serve task t, in layer 0."""
    selections = []
    for task in range(N_TASKS):
        mask = np.zeros((2, N_NEURONS), dtype=bool)
        mask[0, OWN * task : OWN * (task + 1)] = True
        selections.append(Selection(f"task{task}", OWN, mask))
    return selections


@pytest.mark.parametrize("noise", ["zero", "shuffle"])
def test_a_true_double_dissociation_is_found(planted_opt, tasks, noise) -> None:
    model = planted_opt(shared=False)
    assert all(measure_task(model, task).accuracy == 1.0 for task in tasks)
    noises = {"zero": Zero(), "shuffle": Shuffle()}
    found = run_sweep(model, tasks, own_masks(), {noise: noises[noise]}, seeds=(0, 1, 2))
    drop = found.drop(noise=noise, strength=OWN)
    assert drop.shape == (3, 4, 4)
    result = dissociation_index(drop)
    assert result.index > 0.3
    assert result.p_value == pytest.approx(1 / 24)
    assert result.off_diagonal == 0.0
    assert result.share_double == 1.0


def test_neurons_that_serve_every_task_are_no_dissociation(planted_opt, tasks) -> None:
    model = planted_opt(shared=True)
    assert all(measure_task(model, task).accuracy == 1.0 for task in tasks)
    found = run_sweep(model, tasks, own_masks(), {"zero": Zero()}, seeds=(0,))
    drop = found.drop(noise="zero", strength=OWN, measure="margin")
    assert drop.min() > 0.01  # a quarter of the neurons that serve a task
    result = dissociation_index(drop)
    assert result.index == pytest.approx(0.0, abs=1e-6)
    assert result.share_double == 0.0


def test_collapse_is_noted(planted_opt, tasks) -> None:
    found = run_sweep(planted_opt(shared=False), tasks, own_masks(), {"zero": Zero()}, seeds=(0,))
    (row,) = [row for row in found.rows if (row["task"], row["ranking"]) == ("task1", "task1")]
    assert (row["collapsed"], row["accuracy"], row["balanced_accuracy"], row["mcc"]) == (True, 0.5, 0.5, 0.0)
    assert (row["drop_accuracy"], row["n_neurons"], row["strength"], row["noise"]) == (0.5, 6, 6.0, "zero")


def test_rows_are_plain_and_complete(planted_opt, tasks) -> None:
    seen = []
    mask = np.zeros((2, N_NEURONS), dtype=bool)
    random = [Selection("random", OWN, mask, seed=seed) for seed in (3, 4)]
    found = run_sweep(
        planted_opt(shared=False),
        tasks[:2],
        [*own_masks(), *random],
        {"zero": Zero(), "shuffle": Shuffle(), "mean": Mean(np.zeros((2, N_NEURONS)))},
        seeds=(3, 4),
        progress=lambda done, total, cell: seen.append((done, total)),
    )
    n_passes = 2 * (4 * (1 + 2 + 1) + 2 * 3)
    assert seen == [(done, n_passes) for done in range(1, n_passes + 1)]
    assert len(found.rows) == 2 + 2 * (4 * 2 * 3 + 2 * 3)
    assert {type(value) for row in found.rows for value in row.values()} <= {str, int, float, bool}
    assert [row["noise"] for row in found.rows[:2]] == ["none", "none"]
    assert found.drop(noise="shuffle", strength=OWN, rankings=("random",)).shape == (2, 1, 2)
    assert found.drop(noise="zero", strength=OWN, rankings=("random",)).max() == 0.0
    other_way = found.drop(noise="zero", strength=OWN, rankings=("task1", "task0"), tasks=("task1", "task0"))
    np.testing.assert_array_equal(other_way, found.drop(noise="zero", strength=OWN)[:, ::-1, ::-1])


def test_cells_of_noise_without_randomness_serve_all_seeds() -> None:
    selections = [Selection("a", 1, np.zeros((1, 1), bool)), Selection("b", 1, np.zeros((1, 1), bool), seed=7)]
    cells = sweep_cells(["t"], selections, {"zero": Zero(), "shuffle": Shuffle()}, seeds=(6, 7))
    assert [(cell.selection, cell.noise, cell.seed) for cell in cells] == [
        (0, "zero", None),
        (0, "shuffle", 6),
        (0, "shuffle", 7),
        (1, "zero", None),
        (1, "shuffle", 7),
    ]


def test_every_problem_of_a_plan_is_named() -> None:
    mask = np.zeros((1, 1), bool)
    selections = [Selection("none", 1, mask), Selection("a", 1, mask, seed=9), Selection("a", 1, mask, seed=9)]
    with pytest.raises(InputError) as caught:
        sweep_cells(["t", "t"], selections, {}, seeds=(0,))
    text = str(caught.value)
    for part in (
        "tasks ['t', 't']",
        "selections",
        "noises []",
        "stand for the unchanged model",
        "seed 9, which is not",
    ):
        assert part in text


def test_masks_are_checked_before_anything_runs(planted_opt, tasks) -> None:
    wrong = [Selection("a", 1, np.zeros((2, 3), bool))]
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        run_sweep(planted_opt(shared=True), tasks, wrong, {"zero": Zero()}, seeds=(0,))


def test_missing_cells_are_named() -> None:
    row = {"task": "a", "ranking": "a", "strength": 1.0, "noise": "zero", "seed": 0, "drop_accuracy": 0.1}
    with pytest.raises(DataError, match=r"1 cells are missing, such as \(seed, ranking, task\) = \(0, 'b', 'a'\)"):
        drop_array([row], noise="zero", strength=1, rankings=("a", "b"))
    with pytest.raises(DataError, match="all cells are missing"):
        drop_array([row], noise="shuffle", strength=1)
