"""From the config of a perturbation to what its workers need: the finished run, tasks, rankings, work items and plan.

Nothing is computed and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from modularity.data import FunctionData, Pooling, TokenTable, tokenise
from modularity.errors import InputError, ModelError, StoreError
from modularity.interventions import LabelTask
from modularity.models import ModelConfig, load_tokenizer
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.perturbation_config import RANDOM_NOISES, PerturbationConfig
from modularity.pipelines.perturbation_rankings import NO_SEED, Ranking, make_rankings
from modularity.pipelines.perturbation_tasks import TaskName, asked_functions, make_tasks, task_names
from modularity.pipelines.prepare import UNLIMITED_MODEL_TOKENS, PreparedJob, prepare
from modularity.pipelines.restrictions import Restriction, find_restrictions, restriction_items
from modularity.store import Run, open_run
from modularity.types import PARTITION, Site, WorkItem, content_digest

Result = TypeVar("Result")


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
    problems: list[str] = []
    subfunctions = [
        (function.name, name)
        for function in declared.functions
        for name in source.results(function.name)["subfunction"].values.tolist()
    ]
    names = _attempt(lambda: task_names(config.label_words, subfunctions), problems)
    site = Site.parse(str(source.manifest.notes["analysed"]), "encoder")
    layers = _attempt(lambda: _layers(config, source), problems)
    job = None if names is None else _attempt(lambda: source_job(config.model, source, declared, names), problems)
    rankings = None if names is None else _attempt(lambda: make_rankings(config, names), problems)
    restrictions: tuple[Restriction, ...] = ()
    if names is not None and layers is not None:
        restrictions = _attempt(lambda: find_restrictions(config, source, names, site, layers), problems) or ()
    measured = None if job is None or names is None else _attempt(lambda: _tasks(config, job, names), problems)
    if problems or names is None or layers is None or job is None or rankings is None or measured is None:
        raise InputError(problems)
    return PreparedPerturbation(
        config, source, job, site, layers, names, measured[0], rankings, measured[1], restrictions
    )


def _source(config: PerturbationConfig) -> Run:
    """The finished run; InputError with all that it lacks."""
    try:
        source = open_run(config.source)
    except StoreError as error:
        raise InputError(f"source: {error}") from None
    manifest = source.manifest
    if manifest.job != "emergent_modularity" or manifest.state != "finished":
        raise InputError(
            f"source: {source.uri} is a {manifest.state} run of {manifest.job}; expected a finished one of "
            "emergent_modularity"
        )
    problems = []
    if "predictivity" not in manifest.config["analyses"]:
        problems.append(f"source: {source.uri} ranks no neurons; run it with analyses=[predictivity, experts]")
    elif "experts" in config.rankings and PARTITION not in source.result_names():
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


def source_job(
    model: ModelConfig | None, source: Run, declared: EmergentModularityConfig, names: Sequence[TaskName]
) -> PreparedJob:
    """The job of the finished run, its data read again and compared with what the run has recorded.

    Parameters
    ----------
    model : how the checkpoint is loaded; None = as in the run
    source, declared : the finished run and its config
    names : tasks; functions without one are left out

    Raises
    ------
    InputError
        The data or the tokenizer have changed.
    """
    wanted = {each.function for each in names}
    functions = [function.as_json() for function in declared.functions if function.name in wanted]
    how = (model or declared.model).as_json()
    job = prepare(declared.replace(functions=functions, model=how))
    recorded = source.manifest.identity["data"]
    problems = [
        f"the data or tokenizer of function {name!r} are not those of the run: fingerprint {found}, recorded is "
        f"{recorded.get(name)}; give the run's data, or make the run anew"
        for name, found in job.data_identity().items()
        if recorded.get(name) != found
    ]
    if problems:
        raise InputError(problems)
    return job


def _tasks(
    config: PerturbationConfig, job: PreparedJob, names: tuple[TaskName, ...]
) -> tuple[tuple[LabelTask, ...], dict[str, TokenTable]]:
    functions = asked_functions(config.templates, job.config.functions, job.functions)
    tokenizer = load_tokenizer(job.config.model)
    max_tokens = longest_text(job)
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


def longest_text(job: PreparedJob) -> int:
    """Tokens from which on texts of a task lose their end."""
    limits = (job.config.capture.max_tokens, job.description.max_positions)
    return min((limit for limit in limits if limit is not None), default=UNLIMITED_MODEL_TOKENS)


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


def _attempt(action: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return action()
    except InputError as error:
        problems.extend(error.problems)
    except ModelError as error:
        problems.append(str(error))
    return None
