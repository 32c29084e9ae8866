"""From the config of a perturbation to what its workers need: the finished run, tasks, rankings, work items and plan.

Nothing is computed and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from modularity.data import FunctionData, Pooling, TokenTable, tokenise
from modularity.errors import InputError
from modularity.interventions import LabelTask
from modularity.models import load_tokenizer
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.finished_run import (
    analysed_ffn,
    collect,
    finished_run,
    longest_text,
    ranking_problems,
    source_job,
    subfunctions_of,
)
from modularity.pipelines.perturbation_config import RANDOM_NOISES, PerturbationConfig
from modularity.pipelines.perturbation_rankings import NO_SEED, Ranking, make_rankings
from modularity.pipelines.perturbation_tasks import TaskName, asked_functions, chosen_words, make_tasks, task_names
from modularity.pipelines.prepare import PreparedJob
from modularity.pipelines.restrictions import Restriction, find_restrictions, restriction_items, router_problems
from modularity.store import Run
from modularity.types import PARTITION, Site, WorkItem, content_digest


@dataclass(frozen=True, eq=False)
class PreparedPerturbation:
    """Everything known before the first work item runs."""

    config: PerturbationConfig
    source: Run
    """The finished run."""
    job: PreparedJob
    """The job of that run, with the functions that have a task only."""
    site: Site
    """The neurons that the run ranked."""
    layers: tuple[int, ...]
    """Layers in which neurons are changed."""
    names: tuple[TaskName, ...]
    tasks: tuple[LabelTask, ...]
    rankings: tuple[Ranking, ...]
    calibration: Mapping[str, TokenTable]
    """By function: examples from which means and deviations of neurons are taken."""
    restrictions: tuple[Restriction, ...] = ()
    """Experts that routing is restricted to; none where the config does not ask for it."""

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest example."""
        tables = [*(task.tokens for task in self.tasks), *self.calibration.values()]
        return max(int(table.lengths_E.max(initial=1)) for table in tables)

    def data_identity(self) -> dict[str, str]:
        """What the results depend on besides model, config and the finished run."""
        found = {f"task {task.name}": task.tokens.fingerprint for task in self.tasks}
        found |= {f"labels {task.name}": content_digest(task.gold_E.tolist()) for task in self.tasks}
        return found | {f"calibration {name}": table.fingerprint for name, table in self.calibration.items()}

    def first_items(self) -> list[WorkItem]:
        """What all others need: moments of neurons, and the unchanged model."""
        return [WorkItem.of("calibrate"), WorkItem.of("unchanged")]

    def select_items(self) -> list[WorkItem]:
        """One item for each ranking."""
        return [WorkItem.of("select", ranking=each.name) for each in self.rankings]

    def perturb_items(self) -> list[WorkItem]:
        """One item for each ranking, noise, strength and seed; without a seed where none changes the result."""
        return [
            WorkItem.of("perturb", ranking=each.name, noise=noise, strength=strength, seed=seed)
            for each in self.rankings
            for noise in self.config.noises
            for strength in self.config.strengths
            for seed in (self.config.seeds if each.is_random or noise in RANDOM_NOISES else (NO_SEED,))
        ]

    def routing_items(self) -> list[WorkItem]:
        """One item for each restriction: to the functional experts, and to each draw of others."""
        return [] if self.config.routing is None else restriction_items(self.restrictions, self.config.routing)

    def last_items(self) -> list[WorkItem]:
        """What brings the measurements together."""
        routing = [WorkItem.of("routing_tests")] if self.routing_items() else []
        return [WorkItem.of("dissociation"), *routing]

    def items(self) -> list[WorkItem]:
        """All items, in the order of the steps."""
        return [
            *self.first_items(), *self.select_items(), *self.perturb_items(), *self.routing_items(), *self.last_items()
        ]  # fmt: skip


def prepare_perturbation(config: PerturbationConfig) -> PreparedPerturbation:
    """Read and check everything that a job needs, without loading weights.

    Raises
    ------
    InputError
        With every problem found in the finished run, tasks, layers and model.
    """
    source = _source(config)
    declared = EmergentModularityConfig.model_validate(source.manifest.config)
    problems = [] if config.routing is None else router_problems(source, "leave the section routing out")
    words = collect(lambda: chosen_words(config.label_words, declared), problems)
    names = None if words is None else collect(lambda: task_names(words, subfunctions_of(source)), problems)
    site = analysed_ffn(source)
    layers = collect(lambda: _layers(config, source), problems)
    job = None if names is None else collect(lambda: source_job(config.model, source, declared, names), problems)
    rankings = None if names is None else collect(lambda: make_rankings(config, names), problems)
    restrictions: tuple[Restriction, ...] = ()
    if names is not None and layers is not None:
        restrictions = collect(lambda: find_restrictions(config, source, names, site, layers), problems) or ()
    measured = None if job is None or names is None else collect(lambda: _tasks(config, job, names), problems)
    if problems or names is None or layers is None or job is None or rankings is None or measured is None:
        raise InputError(problems)
    return PreparedPerturbation(
        config.replace(label_words=words),
        source,
        job,
        site,
        layers,
        names,
        measured[0],
        rankings,
        measured[1],
        restrictions,
    )


def _source(config: PerturbationConfig) -> Run:
    """The finished run; InputError with all that it lacks."""
    source = finished_run(config.source)
    manifest, problems = source.manifest, ranking_problems(source)
    if not problems and "experts" in config.rankings and PARTITION not in source.result_names():
        problems.append(
            f"source: {source.uri} has no experts, which the ranking 'experts' needs; run it with "
            "analyses=[predictivity, experts], or leave 'experts' out of rankings"
        )
    wanted = "corrected" if config.variant == "corrected" else "paper"
    if manifest.config["variant"] != wanted:
        problems.append(
            f"variant={config.variant!r} needs a run of variant {wanted!r}, {source.uri} is of variant "
            f"{manifest.config['variant']!r}"
        )
    if problems:
        raise InputError(problems)
    return source


def _layers(config: PerturbationConfig, source: Run) -> tuple[int, ...]:
    first = source.manifest.config["functions"][0]["name"]
    ranked = [int(layer) for layer in source.results(first)["layer"].values]
    if config.layers is None:
        return tuple(ranked[-max(1, -(-len(ranked) // 3)) :])
    outside = sorted(set(config.layers) - set(ranked))
    if outside:
        raise InputError(
            f"layers {outside}: neurons of these layers are not ranked in {source.uri}, which has "
            f"{', '.join(map(str, ranked))}"
        )
    return tuple(sorted(config.layers))


def _tasks(
    config: PerturbationConfig, job: PreparedJob, names: tuple[TaskName, ...]
) -> tuple[tuple[LabelTask, ...], dict[str, TokenTable]]:
    functions = asked_functions(config.templates, job.config.functions, job.functions)
    tokenizer, max_tokens = load_tokenizer(job.config.model), longest_text(job)
    held_out = config.variant == "corrected"
    tasks = make_tasks(
        names, functions, tokenizer, max_tokens=max_tokens, first_token=config.first_token, held_out=held_out
    )
    calibration = {}
    for name, function in functions.items():
        half_E = function.selection_E if held_out else np.ones(function.n_examples, dtype=bool)
        chosen = _some_examples(function, half_E, config.calibration_examples)
        calibration[name] = tokenise(chosen, tokenizer, max_tokens=max_tokens, pooling=Pooling(kind="max"))
    return tasks, calibration


def _some_examples(function: FunctionData, half_E: np.ndarray, n_examples: int) -> FunctionData:
    """Examples of one half, at most so many, drawn once and for all."""
    every = np.flatnonzero(half_E)
    kept = np.sort(np.random.default_rng(0).permutation(every)[:n_examples])
    return replace(
        function,
        examples=tuple(function.examples[index] for index in kept),
        labels_SE=function.labels_SE[:, kept],
        selection_E=function.selection_E[kept],
        cluster_E=function.cluster_E[kept],
    )
