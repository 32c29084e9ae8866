"""The task function of the Emergent Modularity work: GLUE in eight sub-functions, declared for the user's own files.

Source: Zhang Z. et al. 2023, arXiv 2305.18390, section 3, and its released code: validation sets, the task strings of
T5, at most 1,000 examples of each original label drawn with seed 42, MNLI as two questions. Departures: the draw is by
hash and does not depend on the order of rows, so it is not the authors' sample; repeated examples are dropped.
"""

from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from modularity.config import Config, validate_config
from modularity.data.function_part import Columns, Contrast, FunctionPart
from modularity.data.functions import FunctionConfig, Pooling
from modularity.data.template import T5_TEMPLATES
from modularity.errors import InputError

GlueTask = Literal["cola", "mrpc", "qnli", "qqp", "rte", "sst2", "mnli"]
GlueVariant = Literal["corrected", "released"]
TASK_FIELD = "{task}"

_LABELS: dict[GlueTask, tuple[str, ...]] = {
    "cola": ("unacceptable", "acceptable"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qnli": ("entailment", "not_entailment"),
    "qqp": ("not_duplicate", "duplicate"),
    "rte": ("entailment", "not_entailment"),
    "sst2": ("negative", "positive"),
    "mnli": ("entailment", "neutral", "contradiction"),
}
"""Names of the labels 0, 1, … of the GLUE files; they are the words by which T5 answers."""
_COLUMNS: dict[GlueTask, tuple[str, ...]] = {
    "cola": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "rte": ("sentence1", "sentence2"),
    "sst2": ("sentence",),
    "mnli": ("premise", "hypothesis"),
}
_MNLI = {
    "neutral": Contrast(positive=("neutral",), negative=("entailment", "contradiction")),
    "entailment": Contrast(positive=("entailment",), negative=("contradiction",)),
}


class GlueConfig(Config):
    """Where the GLUE files are, and which of the two readings of MNLI is wanted."""

    source: str = Field(min_length=1)
    """Folder or URI with a folder for each task, as on the hub (`hf://datasets/nyu-mll/glue`): the files
    `TASK/validation*`, of MNLI `mnli/validation_matched*`. Or a pattern in which `{task}` stands for the task, e.g.
    `glue/{task}/dev.jsonl`."""
    name: str = "task"
    """Name of the function."""
    tasks: tuple[GlueTask, ...] = Field(default=get_args(GlueTask), min_length=1)
    """Tasks to read; MNLI has two sub-functions."""
    variant: GlueVariant = "corrected"
    """`released` exchanges premise and hypothesis of MNLI, as the predictivity inputs of the released code do; a model
    that is asked for the label gets them in their places."""
    text_columns: tuple[str, str] | None = None
    """Names of the first and second text column, where they are not those of GLUE."""
    cap_per_label: int | None = Field(default=1000, ge=1)
    """At most this many examples of each original label of each task."""
    seed: int = Field(default=42, ge=0)
    """Seed of the cap and the halves."""
    drop_final_eos: bool = False
    """Delete the final end-of-sequence token, for checkpoints that were trained without it."""

    @field_validator("tasks")
    @classmethod
    def _check_tasks(cls, tasks: tuple[GlueTask, ...]) -> tuple[GlueTask, ...]:
        if len(set(tasks)) < len(tasks):
            raise ValueError("names a task twice; name each once")
        return tasks


def glue_function(
    source: str,
    *,
    variant: GlueVariant = "corrected",
    tasks: tuple[GlueTask, ...] = get_args(GlueTask),
    text_columns: tuple[str, str] | None = None,
    cap_per_label: int | None = 1000,
    drop_final_eos: bool = False,
) -> FunctionConfig:
    """The eight task sub-functions of Zhang Z. et al. 2023 (arXiv 2305.18390), ready to be read by `load_functions`.

    The sub-functions are `cola`, `mrpc`, `qnli`, `qqp`, `rte`, `sst2`, `mnli/neutral` (against entailment and
    contradiction) and `mnli/entailment` (against contradiction). Label 1 is the label 1 of the GLUE files.

    Parameters
    ----------
    source : folder or URI of the files, or a pattern with `{task}`; see `GlueConfig.source`
    variant : `corrected`, or `released` for MNLI with premise and hypothesis exchanged
    tasks : the tasks to read
    text_columns : names of the two text columns where they are not those of GLUE
    cap_per_label : at most this many examples of each original label, None for all
    drop_final_eos : delete the final end-of-sequence token

    Raises
    ------
    InputError
        A value is none of the known ones, or the source has a field other than `{task}`.
    """
    values: dict[str, Any] = {
        "source": source,
        "variant": variant,
        "tasks": tasks,
        "text_columns": text_columns,
        "cap_per_label": cap_per_label,
        "drop_final_eos": drop_final_eos,
    }
    return declared_glue(validate_config(GlueConfig, values))


def declared_glue(config: GlueConfig) -> FunctionConfig:
    """The function that a `GlueConfig` stands for."""
    words = {task: (_LABELS[task][1], _LABELS[task][0]) for task in config.tasks if task != "mnli"}
    if "mnli" in config.tasks:
        words["mnli/entailment"] = ("entailment", "contradiction")  # type: ignore[index]  # a sub-function of mnli
    return FunctionConfig(
        name=config.name,
        kind="task",
        parts={task: _part(config, task) for task in config.tasks},
        label_words={str(name): pair for name, pair in words.items()},
        duplicates="drop",
        cap_per_label=config.cap_per_label,
        seed=config.seed,
        pooling=Pooling(drop_final_eos=config.drop_final_eos),
    )


def declared_function(function: Any) -> Any:
    """A declared function as it is, or the function that a mapping with the one key `glue` stands for.

    Raises
    ------
    ValueError
        With what is wrong below `glue`.
    """
    if not isinstance(function, dict) or set(function) != {"glue"}:
        return function
    values = function["glue"]
    try:
        return declared_glue(validate_config(GlueConfig, {"source": values} if isinstance(values, str) else values))
    except InputError as error:
        raise ValueError("; ".join(f"glue.{problem}" for problem in error.problems)) from None


def _part(config: GlueConfig, task: GlueTask) -> FunctionPart:
    names = _COLUMNS[task] if config.text_columns is None else config.text_columns[: len(_COLUMNS[task])]
    released = task == "mnli" and config.variant == "released"
    return FunctionPart(
        source=_files(config.source, task),
        columns=Columns(text=names[0], text_pair=names[1] if len(names) > 1 else None),
        template=T5_TEMPLATES["mnli_swapped" if released else task],
        asked_template=T5_TEMPLATES[task] if released else None,
        label_names=_LABELS[task],
        labels=_MNLI if task == "mnli" else "binary",
    )


def _files(source: str, task: GlueTask) -> str:
    if TASK_FIELD in source:
        return source.replace(TASK_FIELD, task)
    return f"{source.rstrip('/')}/{task}/validation{'_matched' if task == 'mnli' else ''}*"
