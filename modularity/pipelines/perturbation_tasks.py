"""The tasks of a perturbation: sub-functions of a finished run, asked of a model by label words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from modularity.data import FunctionConfig, FunctionData, load_functions
from modularity.errors import InputError
from modularity.interventions import LabelTask, label_task
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.perturbation_config import PerturbationConfig
from modularity.types import content_digest


@dataclass(frozen=True)
class TaskName:
    """A sub-function with label words."""

    name: str
    """In tables: the sub-function, with its function in front where two functions have one of this name."""
    function: str
    subfunction: str
    words: tuple[str, str]
    """Words for label 1 and label 0."""


def task_names(
    label_words: Mapping[str, tuple[str, str]], subfunctions: Sequence[tuple[str, str]]
) -> tuple[TaskName, ...]:
    """Sub-functions that the label words are for.

    Parameters
    ----------
    label_words : by sub-function, or by `function/sub-function`
    subfunctions : (function, sub-function) pairs of the run

    Raises
    ------
    InputError
        Names that the run does not have, or that two functions have; all are listed.
    """
    problems, found = [], []
    for key, words in label_words.items():
        places = [pair for pair in subfunctions if key in (pair[1], "/".join(pair))]
        if len(places) == 1:
            found.append((places[0], words))
        elif places:
            names = ", ".join(map("/".join, places))
            problems.append(f"label_words: {key!r} may be {names}; name the function too")
        else:
            known = ", ".join(map("/".join, subfunctions))
            problems.append(f"label_words: the run has no sub-function {key!r}; known are {known}")
    pairs = [pair for pair, _ in found]
    problems += [
        f"label_words: {'/'.join(pair)} is named twice" for pair in dict.fromkeys(pairs) if pairs.count(pair) > 1
    ]
    if problems:
        raise InputError(problems)
    every = [subfunction for _, subfunction in subfunctions]
    return tuple(
        TaskName("/".join(pair) if every.count(pair[1]) > 1 else pair[1], *pair, words) for pair, words in found
    )


def declared_words(functions: Sequence[FunctionConfig]) -> dict[str, tuple[str, str]]:
    """Label words that the functions of a run declare, by `function/sub-function`."""
    return {f"{each.name}/{name}": words for each in functions for name, words in each.label_words.items()}


def chosen_words(config: PerturbationConfig, declared: EmergentModularityConfig) -> dict[str, tuple[str, str]]:
    """Label words of the job, or else those that the functions of the run declare.

    Raises
    ------
    InputError
        There are words for fewer than two sub-functions.
    """
    if config.label_words is not None:
        return config.label_words
    words = declared_words(declared.functions)
    if len(words) < 2:
        raise InputError(
            f"label_words: none are given, and the functions of the run have them for {len(words)} sub-functions "
            f"({', '.join(words) or 'none'}); two tasks or more are needed: name their words, label 1 before label 0"
        )
    return words


class WithTemplates(Protocol):
    """A config that may have texts in which a model is asked."""

    @property
    def templates(self) -> dict[str, str]:
        """By function, or by `function/part`."""


def asked_functions(
    config: WithTemplates, declared: Sequence[FunctionConfig], functions: Sequence[FunctionData]
) -> dict[str, FunctionData]:
    """Functions with the texts in which the model is asked: those of the run, or with the template of the config.

    Examples, labels and halves stay those of the run. Without a template of the config, `asked_template` of the
    function or its parts is used.

    Parameters
    ----------
    config : its `templates` are used, named by function, or by `function/part`
    declared : configs of the run's functions that have a task
    functions : the same, as the run has read them

    Raises
    ------
    InputError
        A template is for no function with a task, does not fit its columns, or makes texts of examples equal.
    """
    known = {name for each in declared for name in _askable(each)}
    unknown = sorted(config.templates.keys() - known)
    problems = [
        f"templates: no task is from a function {name!r}; known are {', '.join(sorted(known))}" for name in unknown
    ]
    found = {function.name: function for function in functions}
    for each in declared:
        try:
            asked = _asked_config(each, config.templates)
            if asked is not None:
                found[each.name] = _with_texts(found[each.name], asked)
        except InputError as error:
            problems += [f"templates.{each.name}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    return found


def _askable(function: FunctionConfig) -> list[str]:
    return [f"{function.name}/{part}" for part in function.part_configs()] if function.parts else [function.name]


def _asked_config(function: FunctionConfig, templates: Mapping[str, str]) -> FunctionConfig | None:
    """The function with the templates in which a model is asked; None where they are those of the run."""
    if not function.parts:
        template = templates.get(function.name, function.asked_template)
        return None if template is None else function.replace(template=template, cap_per_label=None)
    parts = {}
    for name, part in function.parts.items():
        template = templates.get(f"{function.name}/{name}", part.asked_template)
        parts[name] = part.as_json() | ({} if template is None else {"template": template})
    asked = function.replace(parts=parts, cap_per_label=None)
    return None if asked.parts == function.parts else asked


def _with_texts(function: FunctionData, asked: FunctionConfig) -> FunctionData:
    """The examples of the run with the texts of another template."""
    (read,) = load_functions([asked])
    texts = {example.id: example for example in read.examples}
    missing = [example.source for example in function.examples if example.id not in texts]
    if missing:
        raise InputError(
            f"with this template {len(missing)} examples of the run are left out ({missing[0]} is the first), as texts "
            "of different examples become equal; use all columns that the run's template uses"
        )
    examples = tuple(texts[example.id] for example in function.examples)
    fingerprint = content_digest([function.fingerprint, [example.fingerprint for example in examples]])
    return replace(function, examples=examples, fingerprint=fingerprint)


def make_tasks(
    names: Sequence[TaskName],
    functions: Mapping[str, FunctionData],
    tokenizer: Any,
    *,
    max_tokens: int,
    first_token: bool,
    held_out: bool,
) -> tuple[LabelTask, ...]:
    """Tasks with tokens and label words.

    Parameters
    ----------
    names, functions : the tasks, and the functions that they are from, by name
    tokenizer : a Hugging Face tokenizer
    max_tokens : longer texts lose their end
    first_token : whether words of several tokens are read by their first one
    held_out : whether only examples of the evaluation half are measured

    Raises
    ------
    InputError
        A label word is several tokens, or does not tell the labels apart; all are listed.
    """
    problems, tasks = [], []
    for each in names:
        function = functions[each.function]
        problems += [] if first_token else _long_words(each, tokenizer)
        try:
            tasks.append(
                label_task(
                    function,
                    tokenizer,
                    each.words[::-1],
                    subfunction=each.subfunction,
                    max_tokens=max_tokens,
                    examples_E=~function.selection_E if held_out else None,
                    name=each.name,
                )
            )
        except InputError as error:
            problems += [f"task {each.name!r}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    return tuple(tasks)


def _long_words(task: TaskName, tokenizer: Any) -> list[str]:
    n_tokens = {word: len(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in task.words}
    return [
        f"task {task.name!r}: label word {word!r} is {n} tokens, expected one; choose another word, or set "
        "first_token=true to read the first of them"
        for word, n in n_tokens.items()
        if n > 1
    ]
