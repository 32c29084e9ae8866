"""The tasks of a perturbation: sub-functions of a finished run, asked of a model by label words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.data import FunctionConfig, FunctionData, load_functions
from modularity.errors import InputError
from modularity.interventions import LabelTask, label_task


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


def asked_functions(
    templates: Mapping[str, str], declared: Sequence[FunctionConfig], functions: Sequence[FunctionData]
) -> dict[str, FunctionData]:
    """Functions with the texts in which the model is asked: those of the run, or with a template of their own.

    Parameters
    ----------
    templates : by function, the text in which the model is asked
    declared : configs of the run's functions that have a task
    functions : the same, as the run has read them

    Raises
    ------
    InputError
        A template is for no function with a task, does not fit its columns, or changes which examples there are.
    """
    unknown = sorted(templates.keys() - {each.name for each in declared})
    problems = [f"templates: no task is from a function {name!r}" for name in unknown]
    found = {function.name: function for function in functions}
    for each in declared:
        if each.name not in templates:
            continue
        try:
            (asked,) = load_functions([each.replace(template=templates[each.name])])
        except InputError as error:
            problems += [f"templates.{each.name}: {problem}" for problem in error.problems]
            continue
        if not _same_examples(asked, found[each.name]):
            problems.append(
                f"templates.{each.name}: with this template the function has other examples or halves than in the run, "
                "as texts of different examples become equal; use all columns that the run's template uses"
            )
        found[each.name] = asked
    if problems:
        raise InputError(problems)
    return found


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
        problems += [] if first_token else long_words(each, tokenizer)
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


def long_words(task: TaskName, tokenizer: Any) -> list[str]:
    """A problem for each label word of a task that is several tokens."""
    n_tokens = {word: len(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in task.words}
    return [
        f"task {task.name!r}: label word {word!r} is {n} tokens, expected one; choose another word, or set "
        "first_token=true to read the first of them"
        for word, n in n_tokens.items()
        if n > 1
    ]


def _same_examples(one: FunctionData, other: FunctionData) -> bool:
    return (
        [example.id for example in one.examples] == [example.id for example in other.examples]
        and np.array_equal(one.labels_SE, other.labels_SE)
        and np.array_equal(one.selection_E, other.selection_E)
    )
