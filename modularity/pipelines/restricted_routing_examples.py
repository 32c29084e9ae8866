"""The examples of the restricted-routing study: what is trained on, what chooses the checkpoint, what is reported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.data import FunctionData
from modularity.errors import InputError
from modularity.interventions import LabelTask, label_task
from modularity.models import load_tokenizer
from modularity.pipelines.finished_run import longest_text
from modularity.pipelines.perturbation_tasks import TaskName, asked_functions, long_words
from modularity.pipelines.prepare import PreparedJob
from modularity.pipelines.restricted_routing_config import RestrictedRoutingConfig

PARTS = ("training", "validation", "test")


@dataclass(frozen=True, eq=False)
class TaskExamples:
    """One task: what is trained on, and what is not."""

    name: TaskName
    training: LabelTask
    """The selection half; each seed draws from it."""
    validation: LabelTask
    """By which checkpoints are chosen."""
    test: LabelTask
    """What is reported; under `paper` and `released` the validation examples themselves."""

    def drawn(self, n_examples: int, seed: int) -> np.ndarray:
        """Training examples of one seed, ascending int64."""
        every = self.training.tokens.n_examples
        generator = np.random.default_rng(np.random.SeedSequence((seed, every)))
        return np.sort(generator.permutation(every)[:n_examples])


def by_part(task: TaskExamples) -> Mapping[str, int]:
    """Number of examples of each part."""
    return {part: getattr(task, part).tokens.n_examples for part in PARTS}


def task_examples(
    config: RestrictedRoutingConfig, job: PreparedJob, names: Sequence[TaskName]
) -> tuple[TaskExamples, ...]:
    """The examples of every task; InputError with all problems of all tasks."""
    functions = asked_functions(config.templates, job.config.functions, job.functions)
    tokenizer, problems, tasks = load_tokenizer(job.config.model), [], []
    for each in names:
        problems += [] if config.first_token else long_words(each, tokenizer)
        try:
            tasks.append(_task(config, each, functions[each.function], tokenizer, longest_text(job)))
        except InputError as error:
            problems += [f"task {each.name!r}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    return tuple(tasks)


def _task(
    config: RestrictedRoutingConfig, name: TaskName, function: FunctionData, tokenizer: Any, max_tokens: int
) -> TaskExamples:
    labels_E = function.labels_SE[function.subfunctions.index(name.subfunction)]
    training_E = function.selection_E & (labels_E >= 0)
    validation_E, test_E = split_evaluation(config, function, labels_E)
    problems = []
    if training_E.sum() < config.n_examples:
        problems.append(
            f"{int(training_E.sum())} examples of the selection half have a label, n_examples={config.n_examples} are "
            "asked for; lower it"
        )
    for part, chosen_E in (("validation", validation_E), ("test", test_E)):
        n_one, n = int((labels_E[chosen_E] == 1).sum()), int(chosen_E.sum())
        if not 0 < n_one < n:
            problems.append(f"{n} {part} examples, {n_one} with label 1: expected both labels; give more examples")
    if problems:
        raise InputError(problems)

    def asked(examples_E: np.ndarray) -> LabelTask:
        return label_task(
            function, tokenizer, name.words[::-1], subfunction=name.subfunction, max_tokens=max_tokens,
            examples_E=examples_E, name=name.name,
        )  # fmt: skip

    return TaskExamples(name, asked(training_E), asked(validation_E), asked(test_E))


def split_evaluation(
    config: RestrictedRoutingConfig, function: FunctionData, labels_E: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Validation and test examples, bool (E,): of the evaluation half, with a label, no cluster in both.

    Clusters are drawn by the label of their first example, so that both parts have both labels where they can. Under
    `paper` and `released` both are the same examples.
    """
    every = np.flatnonzero(~function.selection_E & (labels_E >= 0))
    generator = np.random.default_rng(config.split_seed)
    shuffled = generator.permutation(np.unique(function.cluster_E[every])).tolist()
    members: dict[int, list[int]] = {cluster: [] for cluster in shuffled}
    for example in every.tolist():
        members[int(function.cluster_E[example])].append(example)
    limit = config.max_evaluation
    if config.variant != "corrected":
        chosen_E = _mask([example for cluster in shuffled for example in members[cluster]][:limit], function)
        return chosen_E, chosen_E
    validation: set[int] = set()
    for label in (0, 1):
        of_label = [cluster for cluster in shuffled if labels_E[members[cluster][0]] == label]
        validation.update(of_label[: round(config.validation_share * len(of_label))])
    parts = [
        [example for cluster in shuffled if (cluster in validation) == wanted for example in members[cluster]]
        for wanted in (True, False)
    ]
    return _mask(parts[0][:limit], function), _mask(parts[1][:limit], function)


def _mask(chosen: Sequence[int], function: FunctionData) -> np.ndarray:
    mask_E = np.zeros(function.n_examples, dtype=bool)
    mask_E[list(chosen)] = True
    return mask_E
