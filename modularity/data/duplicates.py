"""Repeated and contradictory examples: found on the texts as the model sees them, refused or dropped with a count."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

from modularity.data.drafts import Draft, by_subfunction
from modularity.data.functions import FunctionConfig
from modularity.data.problems import Problems

_REMEDY = 'remove one or set duplicates to "drop"'
Finding = tuple[str, str]
"""Kind of a copy, and the message about it."""


def without_duplicates(
    drafts: Sequence[Draft], config: FunctionConfig, problems: Problems, left_out: Counter[str]
) -> list[Draft]:
    """Examples without copies; with `duplicates="error"` every copy is a problem instead.

    An example is its text, pair, value of the sub-function column, target span and position. Copies with different
    labels contradict each other: all of them go. Of copies with one label the first stays, or the first of the
    evaluation half. A text of one sub-function that is in both declared halves, whatever its span, stays in the
    evaluation half.

    Parameters
    ----------
    drafts : usable rows in source order
    config : gives the policy and the name of the function
    problems : receives the copies under `duplicates="error"`
    left_out : receives the counts under `duplicates="drop"`
    """
    found: dict[int, Finding] = {}
    for copies in _repeated(drafts, lambda draft: (draft.text_key, draft.subfunction, draft.target, draft.position)):
        found |= _copies(drafts, copies)
    for members in _repeated(drafts, lambda draft: (draft.text_key, draft.subfunction)):
        found |= _across_halves(drafts, [index for index in members if index not in found])
    if config.duplicates == "drop":
        for kind in sorted({kind for kind, _ in found.values()}):
            dropped = [drafts[index] for index, finding in found.items() if finding[0] == kind]
            left_out[f"{kind}{by_subfunction(dropped)}"] += len(dropped)
        return [draft for index, draft in enumerate(drafts) if index not in found]
    for index in sorted(found):
        kind, message = found[index]
        problems.add(config.name, kind, f"{drafts[index].source}: {message}; {_REMEDY}")
    return list(drafts)


def _repeated(drafts: Sequence[Draft], key: Callable[[Draft], Hashable]) -> Iterator[list[int]]:
    """Indices of the examples that share a key with another one."""
    groups: dict[Hashable, list[int]] = {}
    for index, draft in enumerate(drafts):
        groups.setdefault(key(draft), []).append(index)
    return (group for group in groups.values() if len(group) > 1)


def _copies(drafts: Sequence[Draft], copies: list[int]) -> dict[int, Finding]:
    labels = {drafts[index].label for index in copies}
    first = drafts[copies[0]]
    if len(labels) > 1:
        others = {index: drafts[copies[0] if index != copies[0] else copies[1]].source for index in copies}
        message = f"text {first.text[:40]!r} has the labels {', '.join(sorted(labels))}: it contradicts"
        return {index: ("contradictory copies", f"{message} {other}") for index, other in others.items()}
    kept = next((index for index in copies if drafts[index].half == "evaluation"), copies[0])
    return {index: _finding(drafts, index, kept) for index in copies if index != kept}


def _across_halves(drafts: Sequence[Draft], members: list[int]) -> dict[int, Finding]:
    kept = next((index for index in members if drafts[index].half == "evaluation"), None)
    if kept is None:
        return {}
    return {index: _finding(drafts, index, kept) for index in members if drafts[index].half == "selection"}


def _finding(drafts: Sequence[Draft], index: int, kept: int) -> Finding:
    text = repr(drafts[index].text[:40])
    if drafts[index].half != drafts[kept].half:
        message = f"text {text} of the selection half is in the evaluation half too ({drafts[kept].source})"
        return "copies across the halves", message
    return "repeated examples", f"text {text} repeats {drafts[kept].source}"
