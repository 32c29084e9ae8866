"""From the config of the restricted-routing study to what its workers need: functional experts, work items, settings.

Nothing is trained and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.errors import InputError
from modularity.experts import functional_experts
from modularity.interventions import FineTuning, LabelTask
from modularity.neurons import top_neurons
from modularity.neurons.rankings import average_scores
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.finished_run import (
    analysed_ffn,
    collect,
    finished_run,
    ranking_problems,
    source_job,
    subfunctions_of,
)
from modularity.pipelines.perturbation_tasks import TaskName, chosen_words, task_names
from modularity.pipelines.prepare import PreparedJob
from modularity.pipelines.restricted_routing_config import RestrictedRoutingConfig
from modularity.pipelines.restricted_routing_examples import PARTS, TaskExamples, task_examples
from modularity.pipelines.restrictions import (
    FUNCTIONAL,
    NO_DRAW,
    OTHERS,
    Restriction,
    restriction_notes,
    restriction_of,
    router_problems,
)
from modularity.stats import ranking_scores
from modularity.store import Run
from modularity.types import PARTITION, Site, WorkItem, content_digest

ORIGINAL, RANDOM = "original", "random"
STRATEGIES = (ORIGINAL, OTHERS, FUNCTIONAL, RANDOM)
_NEURONS_AT_ONCE = 4096


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
            FUNCTIONAL: each.functional,
            OTHERS: lambda: each.others(seed, split_seed),
            RANDOM: lambda: each.any_experts(item.integer("draw"), (split_seed, seed)),
        }
        return choices[item.text("strategy")]()

    def settings(self, task: str, seed: int) -> FineTuning:
        """How a task is trained."""
        config = self.config
        return FineTuning(
            n_epochs=_epochs(config, self.task(task).name),
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            evaluate_every=config.evaluate_every,
            evaluates_first=config.variant == "released",
            loss="vocabulary" if config.variant == "released" else "words",
            dropout=config.dropout,
            seed=seed,
        )

    def data_identity(self) -> dict[str, str]:
        """What the results depend on besides model, config and the finished run."""
        found = {}
        for each in self.tasks:
            for part in PARTS:
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
                strategies += [(OTHERS, NO_DRAW), (FUNCTIONAL, NO_DRAW)]
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
    source = finished_run(config.source)
    declared = EmergentModularityConfig.model_validate(source.manifest.config)
    problems = [
        *ranking_problems(source),
        *_source_problems(source),
        *router_problems(source, "make the run with such a model"),
    ]
    words = collect(lambda: chosen_words(config.label_words, declared, n_least=1), problems)
    names = None if words is None else collect(lambda: task_names(words, subfunctions_of(source)), problems)
    job = None if names is None else collect(lambda: source_job(config.model, source, declared, names), problems)
    site = analysed_ffn(source)
    problems += _epoch_problems(config, names or ())
    places = None if job is None else collect(lambda: _places(config, source, job, site), problems)
    tasks = None if job is None or names is None else collect(lambda: task_examples(config, job, names), problems)
    if problems or names is None or job is None or places is None or tasks is None:
        raise InputError(problems)
    first_layer, layers = places
    restrictions = tuple(_restriction(config, source, declared, each, site, layers) for each in names)
    resolved = config.replace(label_words=words)
    return PreparedRouting(resolved, source, job, site, first_layer, layers, tasks, restrictions)


def _source_problems(source: Run) -> list[str]:
    """What a finished run lacks whose native experts are looked for."""
    config, problems = source.manifest.config, []
    if "native" not in config["experts"]["methods"] or PARTITION not in source.result_names():
        problems.append(
            f"source: {source.uri} has no native experts; make it with a mixture model and experts.methods=[native]"
        )
    if config["variant"] != "corrected":
        problems.append(
            f"source: {source.uri} is of variant {config['variant']!r}, which ranks neurons on all examples; expected "
            "'corrected', so that experts are chosen on other examples than tasks are measured on"
        )
    return problems


def _epochs(config: RestrictedRoutingConfig, task: TaskName) -> int:
    """Passes over the examples of a task, which `task_epochs` may name by its sub-function or with the function."""
    found = [config.task_epochs[name] for name in _known_as(task) if name in config.task_epochs]
    return found[0] if found else config.epochs


def _known_as(task: TaskName) -> tuple[str, ...]:
    return task.name, f"{task.function}/{task.subfunction}"


def _epoch_problems(config: RestrictedRoutingConfig, names: Sequence[TaskName]) -> list[str]:
    known = {name for task in names for name in _known_as(task)}
    return [
        f"task_epochs names {name!r}, which is no task; tasks are {', '.join(task.name for task in names)}"
        for name in sorted(config.task_epochs.keys() - known)
        if names
    ]


def _places(config: RestrictedRoutingConfig, source: Run, job: PreparedJob, site: Site) -> tuple[int, tuple[int, ...]]:
    """The first trained layer, and the layers that may be restricted."""
    if PARTITION not in source.result_names():
        return 0, ()  # which `_source_problems` has told
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


def _restriction(
    config: RestrictedRoutingConfig,
    source: Run,
    declared: EmergentModularityConfig,
    task: TaskName,
    site: Site,
    layers: Sequence[int],
) -> Restriction:
    """Functional experts of a task: those in which the best neurons gather, by the exact hypergeometric test."""
    results, partition = source.results(task.function), source.results(PARTITION)
    names, ranked = results["subfunction"].values.tolist(), results["layer"].values.tolist()
    chosen = [names.index(name) for name in ranked_by(config, declared, task, names)]
    native = partition["expert"].values[partition["partition"].values.tolist().index("native")]
    functional: dict[int, Sequence[int]] = {}
    for layer in layers:
        place = ranked.index(layer)
        width = int(results["width"].values[place])
        labels_F = native[partition["layer"].values.tolist().index(layer), :width]
        if config.variant == "corrected":
            scores_SF = results["score"].values[chosen, place, :width]
        else:
            scores_SF = larger_precision(source, task.function, site, layer, chosen)
        score_F = average_scores(scores_SF[:, None])[0]
        top = top_neurons(score_F, max(1, int(config.top_fraction * width)))
        found = functional_experts(top, labels_F, alpha=config.alpha)
        functional[layer] = np.flatnonzero(found.functional_E).tolist()
    return restriction_of(task.name, site.stack, functional, int(source.manifest.config["experts"]["n_experts"]))


def larger_precision(run: Run, function: str, site: Site, layer: int, subfunctions: Sequence[int]) -> np.ndarray:
    """The paper's predictivity on selection examples, float64 (S, F): the larger average precision of both labels.

    The run has the average precision of the polarity that stands out more, which where labels are unequal may be that
    of the rare label: such values are of different scales, and no average of them ranks neurons.
    """
    coordinates, width = run.coordinates(function), _width(run, function, layer)
    larger_SF = np.empty((len(subfunctions), width))
    for start in range(0, width, _NEURONS_AT_ONCE):
        units = slice(start, min(start + _NEURONS_AT_ONCE, width))
        activations_RF = run.read_activations(function, site, layer=layer, units=units)
        for row, index in enumerate(subfunctions):
            labels_R = coordinates["label"][index]
            rows_R = np.flatnonzero((labels_R >= 0) & coordinates["selection"].astype(bool))
            found = ranking_scores(activations_RF, labels_R[None, rows_R] == 1, rows_R=rows_R)
            larger_SF[row, units] = found.predictivity_SF[0]
    return larger_SF


def _width(run: Run, function: str, layer: int) -> int:
    """Neurons of a layer."""
    results = run.results(function)
    return int(results["width"].values[results["layer"].values.tolist().index(layer)])


def ranked_by(
    config: RestrictedRoutingConfig, declared: EmergentModularityConfig, task: TaskName, names: Sequence[str]
) -> list[str]:
    """Sub-functions, of those of the run in `names`, whose scores are averaged to rank neurons for a task."""
    if config.ranking == "own":
        return [task.subfunction]
    (function,) = (each for each in declared.functions if each.name == task.function)
    parts = [part for part in function.parts if task.subfunction == part or task.subfunction.startswith(f"{part}/")]
    if config.ranking == "function" or not parts:
        return list(names)
    part = max(parts, key=len)
    return [name for name in names if name == part or name.startswith(f"{part}/")]


def plan_notes(prepared: PreparedRouting) -> list[str]:
    """What is trained and restricted, and what the config lets no result say."""
    config, stack = prepared.config, prepared.site.stack
    notes = [
        f"trained: FFN output matrices and routers of the {stack}, from layer {prepared.first_layer} up",
        *restriction_notes(prepared.restrictions),
    ]
    for each in prepared.restrictions:
        if not each.experts:
            notes.append(f"task {each.task}: only the original routing is trained")
            continue
        unchanged = sorted(set(prepared.layers) - {layer for layer, _ in each.experts} - set(each.left_out))
        if unchanged:
            notes.append(f"task {each.task}: layers {unchanged} have no functional expert and stay unrestricted")
    if config.variant != "corrected":
        notes.append(
            f"variant {config.variant}: checkpoints are chosen on the examples that are reported, so accuracies are "
            "too high"
        )
    smallest = 2 / 2 ** len(config.seeds)
    if smallest > 0.05:
        notes.append(f"with {len(config.seeds)} seeds no p can be below {smallest:.2g}")
    return notes
