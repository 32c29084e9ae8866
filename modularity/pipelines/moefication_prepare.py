"""From the config of a MoEfication to what its workers need: model, layers, texts, tasks and work items.

Nothing is computed and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from modularity.data import FunctionData, load_functions, load_halved_texts
from modularity.errors import InputError, ModelError
from modularity.interventions import LabelTask
from modularity.models import ModelConfig, ModelDescription, describe_model, load_tokenizer
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.finished_run import analysed_ffn, finished_run
from modularity.pipelines.moefication_config import CONTROL, PAPER_EXPERT, MoeficationConfig
from modularity.pipelines.moefication_texts import TextHalves, choose_texts
from modularity.pipelines.perturbation_tasks import TaskName, asked_functions, declared_words, make_tasks, task_names
from modularity.pipelines.prepare import UNLIMITED_MODEL_TOKENS
from modularity.store import Run
from modularity.types import PARTITION, Site, StackName, WorkItem, content_digest

Result = TypeVar("Result")
NO_SEED = -1
"""Seed of a row in which nothing depends on it."""


@dataclass(frozen=True, eq=False)
class PreparedMoefication:
    """Everything known before the first work item runs."""

    config: MoeficationConfig
    source: Run | None
    model: ModelConfig
    description: ModelDescription
    stack: StackName
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    """Neurons of each of them."""
    n_experts: int
    texts: TextHalves
    names: tuple[TaskName, ...]
    tasks: tuple[LabelTask, ...]
    task_clusters: tuple[np.ndarray, ...]
    """Cluster of each example of each task."""

    @property
    def head_kind(self) -> str:
        """`seq2seq`, `masked` or `causal`, as `HeadModel.kind`."""
        return kind_of(self.description)

    def is_from_run(self, partition: str) -> bool:
        """Whether a partition is taken from the finished run."""
        return self.source is not None and partition != CONTROL

    def seeds_of(self, partition: str, router: str) -> tuple[int, ...]:
        """Seeds for which the two together differ; only `NO_SEED` where they never do."""
        fixed = self.is_from_run(partition) and router in ("oracle", "parameter")
        return (NO_SEED,) if fixed else self.config.seeds

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest text or example."""
        texts = [table for half in (self.texts.training, self.texts.evaluation) for table in half.tables.values()]
        tables = [*texts, *(task.tokens for task in self.tasks)]
        return max(int(table.lengths_E.max(initial=1)) for table in tables)

    def data_identity(self) -> dict[str, str]:
        """What the results depend on besides model, config and the finished run."""
        found: dict[str, str] = {}
        for half, texts in (("training", self.texts.training), ("evaluation", self.texts.evaluation)):
            found |= {f"{half} {name}": table.fingerprint for name, table in texts.tables.items()}
            found[f"{half} clusters"] = content_digest(texts.cluster_N.tolist())
        found |= {f"task {task.name}": task.tokens.fingerprint for task in self.tasks}
        return found | {f"labels {task.name}": content_digest(task.gold_E.tolist()) for task in self.tasks}

    def partition_items(self) -> list[WorkItem]:
        """One item for each partition and layer, for all seeds."""
        return [
            WorkItem.of("partition", partition=partition, layer=layer)
            for partition in self.config.partitions
            for layer in self.layers
        ]

    def route_items(self) -> list[WorkItem]:
        """One item for each partition, seed and layer: its MLP router, and the mass that every router keeps."""
        return [
            WorkItem.of("route", partition=partition, seed=seed, layer=layer)
            for partition in self.config.partitions
            for seed in self.config.seeds
            for layer in self.layers
        ]

    def unchanged_items(self) -> list[WorkItem]:
        """The tasks on the whole model."""
        return [WorkItem.of("unchanged")] if self.tasks else []

    def evaluate_items(self) -> list[WorkItem]:
        """One item for each partition, router, share and seed."""
        config = self.config
        return [
            WorkItem.of("evaluate", partition=partition, router=router, share=share, seed=seed)
            for partition in config.partitions
            for router in config.routers
            for share in config.shares
            for seed in self.seeds_of(partition, router)
        ]

    def last_items(self) -> list[WorkItem]:
        """What brings the measurements together, and the export."""
        export = [] if self.config.export is None else [WorkItem.of("export")]
        return [WorkItem.of("selection_tables"), *export]

    def items(self) -> list[WorkItem]:
        """All items, in the order of the steps."""
        return [
            *self.partition_items(),
            *self.route_items(),
            *self.unchanged_items(),
            *self.evaluate_items(),
            *self.last_items(),
        ]


def kind_of(description: ModelDescription) -> str:
    """Kind of LM head that goes with the stacks of a model."""
    if len(description.stacks) == 2:
        return "seq2seq"
    return "causal" if description.has_decoder else "masked"


def prepare_moefication(config: MoeficationConfig) -> PreparedMoefication:
    """Read and check everything that a job needs, without loading weights.

    Raises
    ------
    InputError
        With every problem found in the finished run, model, layers, texts, tasks and place of the export.
    """
    problems: list[str] = []
    source = None if config.source is None else _attempt(lambda: _source(config), problems)
    if config.source is not None and source is None:
        raise InputError(problems)
    declared = None if source is None else EmergentModularityConfig.model_validate(source.manifest.config)
    model = config.model or (declared.model if declared is not None else None)
    configs = config.functions or (declared.functions if declared is not None and not config.texts else ())
    assert model is not None  # the config has checked it
    description = _attempt(lambda: describe_model(model), problems)
    tokenizer = None if description is None else _attempt(lambda: load_tokenizer(model), problems)
    labelled = _attempt(lambda: load_functions(configs) if configs else (), problems)
    plain = _attempt(lambda: load_halved_texts(config.texts), problems)
    place = None if description is None else _attempt(lambda: _layers(config, description), problems)
    n_experts = None if place is None else _attempt(lambda: _n_experts(config, source, place[1:]), problems)
    if source is not None and place is not None:
        problems += _source_problems(config, source, *place)
    problems += _tool_problems(config, source) + _export_problems(config)
    texts = measured = None
    if labelled is not None and plain is not None and tokenizer is not None and description is not None:
        functions = (*labelled, *plain)
        limits = (config.max_tokens, description.max_positions)
        max_tokens = min((limit for limit in limits if limit is not None), default=UNLIMITED_MODEL_TOKENS)
        texts = _attempt(lambda: _texts(config, functions, tokenizer, max_tokens, kind_of(description)), problems)
        measured = _attempt(lambda: _tasks(config, configs, labelled, tokenizer, max_tokens), problems)
    if problems or description is None or place is None or n_experts is None or texts is None or measured is None:
        raise InputError(problems)
    return PreparedMoefication(config, source, model, description, *place, n_experts, texts, *measured)


def _texts(
    config: MoeficationConfig, functions: tuple[FunctionData, ...], tokenizer: Any, max_tokens: int, kind: str
) -> TextHalves:
    return choose_texts(
        functions,
        tokenizer,
        max_tokens=max_tokens,
        training_tokens=config.training.tokens,
        evaluation_tokens=config.evaluation_tokens,
        least_tokens=2 if kind == "causal" else 1,
    )


def _source(config: MoeficationConfig) -> Run:
    """The finished run; InputError with what it lacks."""
    assert config.source is not None
    source = finished_run(config.source)
    wanted = [name for name in config.partitions if name != CONTROL]
    if not wanted:
        return source
    analysed_ffn(source, "decoder")
    if PARTITION not in source.result_names():
        raise InputError(
            f"source: {source.uri} has no experts; run it with analyses=[predictivity, experts], or leave source away "
            "and name model and functions"
        )
    known = source.results(PARTITION)["partition"].values.tolist()
    lacking = [name for name in wanted if name not in known]
    if lacking:
        raise InputError(
            f"partitions: {source.uri} has no {', '.join(lacking)}, it has {', '.join(known)}; choose among these and "
            "random, or name model and functions instead of source"
        )
    return source


def _source_problems(
    config: MoeficationConfig, source: Run, stack: StackName, layers: tuple[int, ...], widths: tuple[int, ...]
) -> list[str]:
    """Why the partitions of the run do not fit the layers."""
    if all(name == CONTROL for name in config.partitions):
        return []
    site = analysed_ffn(source, "decoder")
    if site.stack != stack:
        return [f"stack={stack!r}: the partitions of {source.uri} are of {site}; set stack={site.stack}"]
    partition = source.results(PARTITION)
    known = dict(zip(partition["layer"].values.tolist(), partition["width"].values.tolist()))
    absent = [layer for layer in layers if layer not in known]
    if absent:
        return [f"layers {absent}: {source.uri} has experts in {', '.join(map(str, known))}; set layers"]
    wrong = [layer for layer, width in zip(layers, widths) if known[layer] != width]
    return [f"layers {wrong} have other numbers of neurons than in {source.uri}; give its checkpoint"] if wrong else []


def _layers(
    config: MoeficationConfig, description: ModelDescription
) -> tuple[StackName, tuple[int, ...], tuple[int, ...]]:
    """Stack, layers and their widths."""
    stack = config.stack or description.stacks[0]
    if stack not in description.stacks:
        raise InputError(f"stack={stack!r}: the model has {', '.join(description.stacks)}")
    shape = description.shapes[Site(stack, "ffn.neurons")]
    wanted = shape.layers if config.layers is None else tuple(sorted(config.layers))
    absent = [layer for layer in wanted if layer not in shape.layers]
    if absent:
        raise InputError(f"layers {absent} are not among the layers 0..{shape.layers[-1]} of the {stack}")
    native = [layer for layer in wanted if layer in description.native_experts[stack]]
    if native:
        dense = [layer for layer in shape.layers if layer not in native]
        raise InputError(
            f"layers {native} of the {stack} have experts of their own, only dense ones can be divided"
            + (f"; set layers={dense}" if dense else "")
        )
    return stack, wanted, tuple(shape.widths[shape.layers.index(layer)] for layer in wanted)


def _n_experts(config: MoeficationConfig, source: Run | None, place: tuple[Any, ...]) -> int:
    layers, widths = place
    from_run = None if source is None else int(source.manifest.config["experts"]["n_experts"])
    own = any(name != CONTROL for name in config.partitions)
    if from_run is not None and own and config.n_experts not in (None, from_run):
        raise InputError(f"n_experts={config.n_experts}: the run has {from_run} experts in each layer; leave it away")
    n_experts = config.n_experts or from_run or max(2, widths[0] // PAPER_EXPERT)
    wrong = {layer: width for layer, width in zip(layers, widths) if width % n_experts}
    if wrong:
        layer, width = next(iter(wrong.items()))
        divisors = sorted((n for n in range(2, width) if width % n == 0), key=lambda n: abs(n - n_experts))[:4]
        raise InputError(
            f"n_experts={n_experts} does not divide the {width} neurons of layer {layer}; the nearest numbers that do "
            f"are {', '.join(map(str, sorted(divisors)))}"
        )
    return n_experts


def _tool_problems(config: MoeficationConfig, source: Run | None) -> list[str]:
    if source is None and "coactivation" in config.partitions and find_spec("pymetis") is None:
        return [
            "partitions has 'coactivation', which needs the graph partitioner pymetis, and it is not installed: "
            "pip install 'modularity[graph]', or pip install pymetis, or leave it out of partitions"
        ]
    return []


def _export_problems(config: MoeficationConfig) -> list[str]:
    if config.export is None:
        return []
    folder = Path(config.export.folder)
    if folder.exists() and not folder.is_dir():
        return [f"export.folder={str(folder)!r} is a file; name a new folder"]
    return []


def _tasks(
    config: MoeficationConfig,
    declared: Any,
    functions: tuple[FunctionData, ...],
    tokenizer: Any,
    max_tokens: int,
) -> tuple[tuple[TaskName, ...], tuple[LabelTask, ...], tuple[np.ndarray, ...]]:
    """Tasks of the evaluation half; none where no function has label words."""
    words = declared_words(declared) if config.label_words is None else config.label_words
    if not words:
        return (), (), ()
    names = task_names(words, [(f.name, name) for f in functions for name in f.subfunctions])
    used = {name.function for name in names}
    chosen = [function for function in functions if function.name in used]
    asked = asked_functions(config.templates, [each for each in declared if each.name in used], chosen)
    tasks = make_tasks(names, asked, tokenizer, max_tokens=max_tokens, first_token=config.first_token, held_out=True)
    return names, tasks, tuple(_clusters(asked[name.function], task) for name, task in zip(names, tasks))


def _clusters(function: FunctionData, task: LabelTask) -> np.ndarray:
    by_id: Mapping[str, int] = {e.id: int(cluster) for e, cluster in zip(function.examples, function.cluster_E)}
    return np.array([by_id[name] for name in task.example_ids], dtype=np.int64)


def _attempt(action: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return action()
    except InputError as error:
        problems.extend(error.problems)
    except ModelError as error:
        problems.append(str(error))
    return None


def partitions_note(prepared: PreparedMoefication) -> list[str]:
    """Which partitions have seen the texts on which they are measured."""
    seen = [p for p in prepared.config.partitions if prepared.is_from_run(p) and p in ("coactivation", "profile")]
    if not seen or prepared.config.functions is not None:
        return []
    return [
        f"{' and '.join(seen)} of the run were made from activations on both halves of its texts, also those that are "
        "measured here"
    ]
