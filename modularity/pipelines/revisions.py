"""Which checkpoints a scan has: hub revisions by list or pattern, several folders, or a training directory.

A pattern `FIRST:LAST:N` asks for N revisions at even distances, `FIRST:LAST:logN` at even ratios; of the revisions that
exist between both ends the nearest are taken. Lists, separated by commas, may hold names, patterns and `STEP=NAME`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modularity.errors import InputError
from modularity.models import ModelConfig

_SPACING = re.compile(r"([^:]+):([^:]+):(log)?(\d+)")
_TRAINING_FOLDER = re.compile(r"(?:global[-_]?step|step|checkpoint|ckpt|iter)?[-_]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Checkpoint:
    """One step of a training run."""

    name: str
    """Name of its folder in the scan, such as `step1000`."""
    step: int
    model: str
    """Hub id or local folder."""
    revision: str | None
    """Revision of the hub id; None for a folder."""

    def model_config(self, model: ModelConfig) -> ModelConfig:
        """The settings of `model` for this checkpoint."""
        return model.replace(name=self.model, revision=self.revision)


@dataclass(frozen=True)
class Selection:
    """The checkpoints of a scan in the order of their steps, and what to know about the choice."""

    checkpoints: tuple[Checkpoint, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pattern:
    text: str
    prefix: str
    first: int
    last: int
    n: int
    is_log: bool

    def choose(self, available: Mapping[int, str]) -> list[int]:
        """Steps among the available ones that are nearest to the wanted places."""
        steps = np.array(sorted(step for step in available if self.first <= step <= self.last), dtype=np.float64)
        if not len(steps):
            return []
        space, scale = (np.geomspace, np.log) if self.is_log else (np.linspace, np.asarray)
        wanted = scale(space(float(self.first), float(self.last), self.n))
        nearest = np.abs(scale(steps)[None, :] - np.asarray(wanted)[:, None]).argmin(axis=1)
        return [int(steps[index]) for index in dict.fromkeys(nearest.tolist())]


def find_checkpoints(
    model: ModelConfig,
    revisions: str | None,
    folders: Sequence[str] = (),
    *,
    list_revisions: Callable[[ModelConfig], Sequence[str]] | None = None,
) -> Selection:
    """The checkpoints that a scan is asked for.

    Parameters
    ----------
    model : a hub id, or a training directory, whose sub-folders are named like `step00000100`
    revisions : list or pattern; of a training directory it chooses sub-folders, None takes all
    folders : several checkpoint folders instead, each a path or `STEP=PATH`
    list_revisions : names of the revisions of a hub id; None = `modularity.models.hub_revisions`

    Raises
    ------
    InputError
        With everything that is wrong with the patterns, names and folders.
    ModelError
        A pattern needs the list of revisions, and neither hub nor cache has it.
    """
    problems: list[str] = []
    if model.revision is not None:
        problems.append(f"model.revision={model.revision!r}: a scan takes several; name them with --revisions")
    notes: tuple[str, ...] = ()
    found: list[Checkpoint] = []
    directory = Path(model.name).expanduser()
    if folders:
        if revisions is not None:
            problems.append(f"--revisions {revisions!r} with {len(folders)} folders: give either of them")
        found = [_folder_checkpoint(text, problems) for text in folders]
    elif directory.is_dir() or model.name.startswith((".", "/", "~")):
        available = _training_folders(directory, problems)
        names, notes = list(available), _left_out(directory, available)
        if revisions is not None:
            names, notes = _resolved(revisions, lambda _: available, problems) if available else ([], ())
            names = [_folder_name(name, directory, available, problems) for name in names]
        found = [_checkpoint(name, problems, folder=directory) for name in names]
    elif revisions is None:
        problems.append(
            f"--revisions is missing: which revisions of {model.name!r}? A list (step1000,step2000) or a pattern "
            "(step1000:step143000:8, step1:step143000:log12)"
        )
    else:
        from modularity.models import hub_revisions  # takes a moment, which folders skip

        listed = (list_revisions or hub_revisions) if not problems else (lambda _: ())
        names, notes = _resolved(revisions, lambda _: listed(model), problems)
        found = [_checkpoint(name, problems, hub=model.name) for name in names]
    problems += _clashes(found)
    if problems:
        raise InputError(problems)
    if len(found) < 2:
        raise InputError(f"a scan compares checkpoints, but only {len(found)} is there; name at least two")
    return Selection(tuple(sorted(found, key=lambda checkpoint: checkpoint.step)), notes)


def step_of(name: str) -> int | None:
    """Step number in a name: the number after `step`, else the only number; None where there is none or several."""
    after = re.findall(r"step[-_]?(\d+)", name, re.IGNORECASE)
    numbers = after or re.findall(r"\d+", name)
    return int(numbers[0]) if len(numbers) == 1 else None


def _checkpoint(name: str, problems: list[str], *, hub: str | None = None, folder: Path | None = None) -> Checkpoint:
    """Checkpoint of one entry of a list, `NAME` or `STEP=NAME`."""
    given, equals, rest = name.partition("=")
    name = rest if equals else name
    step = (int(given) if given.isdecimal() else None) if equals else step_of(name)
    if step is None:
        problems.append(f"{name!r}: expected one step number in the name; write it before: 1000={name}")
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-") or f"step{step}"
    return Checkpoint(safe, -1 if step is None else step, hub or str((folder or Path()) / name), name if hub else None)


def _folder_checkpoint(text: str, problems: list[str]) -> Checkpoint:
    given, equals, rest = text.partition("=")
    path = Path(rest if equals and given.isdecimal() else text).expanduser()
    if not path.is_dir():
        problems.append(f"folder {str(path)!r} does not exist; give folders with config.json and model.safetensors")
    name = path.absolute().name
    found = _checkpoint(f"{given}={name}" if equals and given.isdecimal() else name, problems)
    return Checkpoint(found.name, found.step, str(path), None)


def _training_folders(directory: Path, problems: list[str]) -> dict[str, int]:
    """Sub-folders that are named like checkpoints, with their steps, in the order of these."""
    names = [path.name for path in directory.iterdir() if path.is_dir()] if directory.is_dir() else []
    steps = {name: _last(name) for name in sorted(names) if _TRAINING_FOLDER.fullmatch(name)}
    if not steps:
        what = "holds no sub-folders" if directory.is_dir() else "does not exist; expected a folder with sub-folders"
        problems.append(f"training directory {str(directory)!r} {what} named like step00000100 or checkpoint-100")
    return dict(sorted(steps.items(), key=lambda item: item[1]))


def _left_out(directory: Path, taken: Mapping[str, int]) -> tuple[str, ...]:
    """A note that names the models in a training directory whose names are no step."""
    found = sorted(path.parent.name for path in directory.glob("*/config.json") if path.parent.name not in taken)
    return (f"not named like steps, so left out: {_some(found)}; name them with --revisions",) if found else ()


def _folder_name(entry: str, directory: Path, available: Mapping[str, int], problems: list[str]) -> str:
    """The sub-folder of an entry of a list, by name or by its step (`step100` finds `step00000100`)."""
    name = entry.rpartition("=")[2]
    if (directory / name).is_dir():
        return entry
    step = step_of(name)
    same = [folder for folder, its in available.items() if its == step]
    if len(same) != 1:
        what = f"is the step of {len(same)} sub-folders, {', '.join(same)}; name one of them" if same else ""
        problems.append(f"{entry!r} {what or f'is no sub-folder; there are {_some(list(available))}'}")
        return entry
    given, equals, _ = entry.rpartition("=")
    return f"{given}{equals}{same[0]}"


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:6]) or "none") + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _last(name: str) -> int:
    step = step_of(name)
    return -1 if step is None else step


def _resolved(
    text: str, available: Callable[[None], Iterable[str]], problems: list[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Names that a list asks for; the revisions are listed only where a pattern needs them."""
    parsed = [_parsed(part.strip(), problems) for part in text.split(",")]
    patterns = [part for part in parsed if isinstance(part, _Pattern)]
    known = tuple(available(None)) if patterns and not problems else ()
    names: list[str] = []
    notes = []
    for part in parsed:
        if isinstance(part, str):
            names.append(part)
        elif part is not None and not problems:
            by_step = _by_step(part.prefix, known)
            chosen = part.choose(by_step)
            names += [by_step[step] for step in chosen]
            if not chosen:
                problems.append(_nothing_there(part, known))
            elif len(chosen) < part.n:
                notes.append(f"{part.text}: {part.n} revisions asked for, {len(chosen)} different ones are nearest")
    return list(dict.fromkeys(names)), tuple(notes)


def _parsed(part: str, problems: list[str]) -> _Pattern | str | None:
    if not part:
        problems.append("--revisions has an empty entry; separate names by single commas")
        return None
    if ":" not in part:
        return part
    found = _SPACING.fullmatch(part)
    if found is None:
        problems.append(f"{part!r}: expected FIRST:LAST:N (even steps) or FIRST:LAST:logN, e.g. step1:step143000:log12")
        return None
    ends = [re.fullmatch(r"(.*?)(\d+)", end) for end in found.groups()[:2]]
    for end, text in zip(ends, found.groups()):
        if end is None:
            problems.append(f"{part!r}: {text!r} does not end in a step number, e.g. step1000")
    if ends[0] is None or ends[1] is None:
        return None
    prefixes, (first, last), n = (ends[0][1], ends[1][1]), (int(ends[0][2]), int(ends[1][2])), int(found[4])
    before = len(problems)
    if prefixes[0] != prefixes[1]:
        problems.append(f"{part!r}: one end is {prefixes[0]!r} and a number, the other {prefixes[1]!r} and a number")
    if first >= last:
        problems.append(f"{part!r}: the first step, {first}, must lie before the last, {last}")
    if n < 2:
        problems.append(f"{part!r}: {n} revisions between two ends; expected at least 2")
    if found[3] and first < 1:
        problems.append(f"{part!r}: log spacing begins at step 1 or later; list {prefixes[0]}{first} before a comma")
    return _Pattern(part, prefixes[0], first, last, n, bool(found[3])) if len(problems) == before else None


def _by_step(prefix: str, names: Iterable[str]) -> dict[int, str]:
    """Names that begin with the prefix and a number, by number; more may follow it (`step1000-tokens4B`)."""
    shape = re.compile(re.escape(prefix) + r"(\d+)(?:[-_.].*)?")
    found: dict[int, str] = {}
    for name in sorted(names, key=len, reverse=True):  # the shortest of one step wins
        match = shape.fullmatch(name)
        if match is not None:
            found[int(match[1])] = name
    return found


def _nothing_there(pattern: _Pattern, known: Sequence[str]) -> str:
    return f"{pattern.text!r}: no revision {pattern.prefix}N lies between both ends; there are {_some(known)}"


def _clashes(found: Sequence[Checkpoint]) -> list[str]:
    problems = []
    for attribute in ("step", "name"):
        by_value: dict[object, list[Checkpoint]] = {}
        for checkpoint in found:
            by_value.setdefault(getattr(checkpoint, attribute), []).append(checkpoint)
        problems += [
            f"{attribute} {value} is named {len(same)} times: {', '.join(c.revision or c.model for c in same)}; "
            "keep one, or give another step by STEP=NAME"
            for value, same in by_value.items()
            if len(same) > 1 and value != -1
        ]
    return list(dict.fromkeys(problems))
