"""From the config of the restricted-routing study to what its workers need: experts, training and held-out examples.

Nothing is trained and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from modularity.data import FunctionData
from modularity.errors import InputError, ModelError, StoreError
from modularity.experts import functional_experts
from modularity.interventions import FineTuning, LabelTask, label_task
from modularity.models import load_tokenizer
from modularity.neurons import top_neurons
from modularity.neurons.rankings import average_scores
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.perturbation_prepare import longest_text, source_job
from modularity.pipelines.perturbation_tasks import TaskName, asked_functions, long_words, task_names
from modularity.pipelines.prepare import PreparedJob
from modularity.pipelines.restricted_routing_config import RestrictedRoutingConfig
from modularity.pipelines.restrictions import NO_DRAW, Restriction, restriction_of
from modularity.store import Run, open_run
from modularity.types import PARTITION, Site, WorkItem, content_digest

ORIGINAL, FUNCTION, NO_FUNCTION, RANDOM = "original", "function", "no_function", "random"
STRATEGIES = (ORIGINAL, NO_FUNCTION, FUNCTION, RANDOM)
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class TaskExamples:
    """One task: what is trained on, and what is not."""

    name: TaskName
    training: LabelTask
    """The selection half; each seed draws from it."""
    validation: LabelTask
    """By which checkpoints are chosen."""
    test: LabelTask
    """What is reported; under `released` the validation examples themselves."""

    def drawn(self, n_examples: int, seed: int) -> np.ndarray:
        """Training examples of one seed, ascending int64."""
        every = self.training.tokens.n_examples
        generator = np.random.default_rng(np.random.SeedSequence((seed, every)))
        return np.sort(generator.permutation(every)[:n_examples])


@dataclass(frozen=True, eq=False)
class PreparedRouting:
    """Everything known before the first work item runs."""

    config: RestrictedRoutingConfig
    source: Run
    """The finished run."""
    job: PreparedJob
    """The job of that run, with the functions that have a task only."""
    site: Site
    first_layer: int
    """The first trained layer."""
    layers: tuple[int, ...]
    """Layers that may be restricted."""
    tasks: tuple[TaskExamples, ...]
    restrictions: tuple[Restriction, ...]
    """Of each task."""

    def task(self, name: str) -> TaskExamples:
        """A task by name."""
        return next(each for each in self.tasks if each.name.name == name)

    def allowed(self, item: WorkItem) -> dict[Any, tuple[int, ...]]:
        """Experts that the routing of an item is restricted to, by stack and layer; empty for the original routing."""
        (each,) = (one for one in self.restrictions if one.task == item.text("task"))
        seed, split_seed = item.integer("seed"), self.config.split_seed
        choices: dict[str, Callable[[], dict[Any, tuple[int, ...]]]] = {
            ORIGINAL: dict,
            FUNCTION: each.functional,
            NO_FUNCTION: lambda: each.others(seed, split_seed),
            RANDOM: lambda: each.drawn(item.integer("draw"), (split_seed, seed)),
        }
        return choices[item.text("strategy")]()

    def settings(self, task: str, seed: int) -> FineTuning:
        """How a task is trained."""
        config = self.config
        return FineTuning(
            n_epochs=config.task_epochs.get(task, config.epochs),
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            evaluate_every=config.evaluate_every,
            dropout=config.dropout,
            seed=seed,
        )

    def data_identity(self) -> dict[str, str]:
        """What the results depend on besides model, config and the finished run."""
        found = {}
        for each in self.tasks:
            for part in ("training", "validation", "test"):
                task: LabelTask = getattr(each, part)
                name = f"{part} {each.name.name}"
                found[name] = content_digest([task.tokens.fingerprint, task.gold_E.tolist()])
        return found

    def items(self) -> list[WorkItem]:
        """A training for each task, strategy, draw and seed; original routing only where no expert is functional."""
        found = []
        for each in self.restrictions:
            strategies = [(ORIGINAL, NO_DRAW)]
            if each.experts:
                strategies += [(NO_FUNCTION, NO_DRAW), (FUNCTION, NO_DRAW)]
                strategies += [(RANDOM, draw) for draw in range(self.config.n_draws)]
            found += [
                WorkItem.of("tune", task=each.task, strategy=strategy, draw=draw, seed=seed)
                for strategy, draw in strategies
                for seed in self.config.seeds
            ]
        return found

    def last_items(self) -> list[WorkItem]:
        """What brings the trainings together."""
        return [WorkItem.of("compare")]


def prepare_restricted_routing(config: RestrictedRoutingConfig) -> PreparedRouting:
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
    job = None if names is None else _attempt(lambda: source_job(config.model, source, declared, names), problems)
    places = None if job is None else _attempt(lambda: _layers(config, source, job, site), problems)
    tasks = None if job is None or names is None else _attempt(lambda: _tasks(config, job, names), problems)
    if problems or names is None or job is None or places is None or tasks is None:
        raise InputError(problems)
    first_layer, layers = places
    restrictions = tuple(_restriction(config, source, each, site, layers) for each in names)
    return PreparedRouting(config, source, job, site, first_layer, layers, tasks, restrictions)


def _source(config: RestrictedRoutingConfig) -> Run:
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
    if "native" not in manifest.config["experts"]["methods"] or PARTITION not in source.result_names():
        problems.append(
            f"source: {source.uri} has no native experts; make it with a mixture model and experts.methods=[native]"
        )
    if manifest.config["variant"] != "corrected":
        problems.append(
            f"source: {source.uri} is of variant {manifest.config['variant']!r}, which ranks neurons on all examples; "
            "expected 'corrected', so that experts are chosen on other examples than tasks are measured on"
        )
    if problems:
        raise InputError(problems)
    return source


def _layers(config: RestrictedRoutingConfig, source: Run, job: PreparedJob, site: Site) -> tuple[int, tuple[int, ...]]:
    """The first trained layer, and the layers that may be restricted."""
    n_layers = len(job.description.shapes[site].layers)
    first = config.first_trained_layer
    first = n_layers - max(1, -(-n_layers // 3)) if first is None else first
    with_experts = [int(layer) for layer in source.results(PARTITION)["layer"].values]
    problems = [] if first < n_layers else [f"first_trained_layer={first}: the {site.stack} has {n_layers} layers"]
    trained = [layer for layer in with_experts if layer >= first]
    wanted = trained if config.layers is None else sorted(config.layers)
    outside = sorted(set(wanted) - set(with_experts))
    if outside or not wanted:
        problems.append(
            f"layers {outside or 'from ' + str(first)}: {source.uri} has experts of layers "
            f"{', '.join(map(str, with_experts))}; choose among them, or first_trained_layer <= {max(with_experts)}"
        )
    dtype = job.description.dtype
    if dtype != "float32":
        problems.append(f"the weights are {dtype}, and trained ones must be float32; set model with dtype float32")
    if problems:
        raise InputError(problems)
    return first, tuple(wanted)


def _tasks(config: RestrictedRoutingConfig, job: PreparedJob, names: Sequence[TaskName]) -> tuple[TaskExamples, ...]:
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

    Under `released` both are the same examples.
    """
    every = np.flatnonzero(~function.selection_E & (labels_E >= 0))
    generator = np.random.default_rng(config.split_seed)
    shuffled = generator.permutation(np.unique(function.cluster_E[every]))
    place = {int(cluster): number for number, cluster in enumerate(shuffled)}
    order = sorted(every.tolist(), key=lambda example: (place[int(function.cluster_E[example])], example))
    limit = config.max_evaluation
    if config.variant == "released":
        chosen_E = _mask(order[:limit], function.n_examples)
        return chosen_E, chosen_E
    cut = round(config.validation_share * len(order))
    while 0 < cut < len(order) and function.cluster_E[order[cut - 1]] == function.cluster_E[order[cut]]:
        cut += 1
    return _mask(order[:cut][:limit], function.n_examples), _mask(order[cut:][:limit], function.n_examples)


def _mask(chosen: Sequence[int], n_examples: int) -> np.ndarray:
    mask_E = np.zeros(n_examples, dtype=bool)
    mask_E[list(chosen)] = True
    return mask_E


def _restriction(
    config: RestrictedRoutingConfig, source: Run, task: TaskName, site: Site, layers: Sequence[int]
) -> Restriction:
    """Functional experts of a task: those in which the best neurons gather, by the exact hypergeometric test."""
    results, partition = source.results(task.function), source.results(PARTITION)
    names, ranked = results["subfunction"].values.tolist(), results["layer"].values.tolist()
    scores = results["score" if config.variant == "corrected" else "predictivity"].values
    chosen = list(range(len(names))) if config.ranking == "average" else [names.index(task.subfunction)]
    native = partition["expert"].values[partition["partition"].values.tolist().index("native")]
    functional: dict[int, Sequence[int]] = {}
    for layer in layers:
        place = ranked.index(layer)
        width = int(results["width"].values[place])
        labels_F = native[partition["layer"].values.tolist().index(layer), :width]
        score_F = average_scores(scores[chosen][:, [place], :width])[0]
        top = top_neurons(score_F, max(1, int(config.top_fraction * width)))
        found = functional_experts(top, labels_F, alpha=config.alpha)
        functional[layer] = np.flatnonzero(found.functional_E).tolist()
    return restriction_of(task.name, site.stack, functional, int(source.manifest.config["experts"]["n_experts"]))


def _attempt(action: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return action()
    except InputError as error:
        problems.extend(error.problems)
    except ModelError as error:
        problems.append(str(error))
    return None


def restriction_notes(prepared: PreparedRouting) -> list[str]:
    """What the restriction of each task is, and where there is none."""
    notes = []
    for each in prepared.restrictions:
        if not each.experts:
            notes.append(
                f"task {each.task}: no layer can be restricted, so that only the original routing is trained: "
                f"functional experts are {'none' if not each.left_out else 'more than half'}"
            )
            continue
        experts = "; ".join(f"layer {layer}: {' '.join(map(str, chosen))}" for layer, chosen in each.experts)
        notes.append(f"task {each.task}: functional experts of {each.n_experts} are {experts}")
        unchanged = sorted(set(prepared.layers) - {layer for layer, _ in each.experts} - set(each.left_out))
        if unchanged:
            notes.append(f"task {each.task}: layers {unchanged} have no functional expert and stay unrestricted")
        if each.left_out:
            notes.append(
                f"task {each.task}: more than half of the experts of layers {list(each.left_out)} are functional; "
                "they stay unrestricted, as there is no control of the same size"
            )
    return notes


def by_part(task: TaskExamples) -> Mapping[str, int]:
    """Number of examples of each part."""
    return {part: getattr(task, part).tokens.n_examples for part in ("training", "validation", "test")}
