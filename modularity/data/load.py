"""Read and check functions: every problem of every function is reported before anything is computed."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from modularity.data.drafts import Draft, by_subfunction, in_part, read_drafts
from modularity.data.duplicates import without_duplicates
from modularity.data.functions import Example, FunctionConfig, FunctionData
from modularity.data.halves import capped, clusters, cut_clusters, split_halves
from modularity.data.labels import LabelScheme, label_scheme, subfunction_labels
from modularity.data.problems import Problems
from modularity.errors import InputError
from modularity.types import canonical_json


def load_functions(configs: Iterable[FunctionConfig]) -> tuple[FunctionData, ...]:
    """Read, check, cap and split functions.

    Parameters
    ----------
    configs : the functions, with different names

    Returns
    -------
    functions : in the order of the configs

    Raises
    ------
    InputError
        Everything that is wrong with any of them: files, columns, rows (`file:line`), duplicates, labels, halves. Up to
        20 messages of each kind are shown, the others are counted.
    """
    configs = tuple(configs)
    problems = Problems()
    if not configs:
        raise InputError("no function is named; expected at least one")
    for name, count in Counter(config.name for config in configs).items():
        if count > 1:
            problems.add(name, "name", f"{count} functions have this name; give each its own")
    functions = [_load(config, problems) for config in configs]
    problems.raise_any()
    return tuple(function for function in functions if function is not None)


def _load(config: FunctionConfig, problems: Problems) -> FunctionData | None:
    read = _read(config, problems)
    if read is None:
        return None
    drafts, schemes, left_out = read
    _check_ids(drafts, config, problems)
    _check_asked(drafts, config, problems)
    drafts = without_duplicates(drafts, config, problems, left_out)
    try:
        drafts, names, labels_SE = _with_labels(drafts, schemes, config, left_out)
    except InputError as error:
        for message in error.problems:
            problems.add(config.name, "labels of sub-functions", message)
        return None
    if not drafts and not problems.count(config.name):
        problems.add(config.name, "no examples", f"no example is left{_left_out_text(left_out)}")
    for value, (one, other) in cut_clusters(drafts).items():
        problems.add(
            config.name, "cut clusters", f"{other.source}: cluster {value!r} is in the other half too ({one.source})"
        )
    cluster_E = clusters(drafts)
    selection_E = split_halves(drafts, cluster_E, seed=config.seed)
    _check_counts(names, labels_SE, selection_E, config, problems, _left_out_text(left_out))
    is_whole = not problems.count(config.name)  # a source that was not read lacks its names
    for name in config.label_words:
        if is_whole and name not in names:
            problems.add(
                config.name, "label words", f"label_words: no sub-function {name!r}; known are {', '.join(names)}"
            )
    if problems.count(config.name):
        return None
    notes = tuple(f"{config.name}: {count} left out: {reason}" for reason, count in sorted(left_out.items()))
    return _function(config, drafts, names, labels_SE, selection_E, cluster_E, notes)


def _read(
    config: FunctionConfig, problems: Problems
) -> tuple[list[Draft], dict[str, LabelScheme], Counter[str]] | None:
    """Rows of all parts, the labels of each part, and how many rows were left out why; None without known labels."""
    parts = config.part_configs()
    schemes: dict[str, LabelScheme] = {}
    for part, each in parts.items():
        try:
            schemes[part] = label_scheme(each)
        except InputError as error:
            for message in error.problems:
                problems.add(config.name, "labels", f"parts.{part}: {message}" if part else message)
    if len(schemes) < len(parts):
        return None
    drafts: list[Draft] = []
    left_out: Counter[str] = Counter()
    for part, each in parts.items():
        rows, reasons = read_drafts(each, schemes[part], problems)
        drafts += [in_part(row, part) for row in rows]
        left_out.update({f"{part}: {reason}" if part else reason: count for reason, count in reasons.items()})
    halves = {draft.part: draft.half is not None for draft in drafts}
    if len(set(halves.values())) > 1:
        problems.add(
            config.name,
            "halves",
            f"parts {sorted(part for part, declared in halves.items() if declared)} declare halves and the others do "
            "not; declare them in all parts or in none",
        )
    return drafts, schemes, left_out


def _check_ids(drafts: Sequence[Draft], config: FunctionConfig, problems: Problems) -> None:
    first: dict[str, str] = {}
    for draft in drafts:
        other = first.setdefault(draft.id, draft.source)
        if other != draft.source:
            problems.add(
                config.name, "repeated ids", f"{draft.source}: id {draft.id!r} is taken by {other}; ids must differ"
            )


def _check_asked(drafts: Sequence[Draft], config: FunctionConfig, problems: Problems) -> None:
    seen = {draft.part or draft.subfunction for draft in drafts}
    for name in config.subfunctions or ():
        if name not in seen:
            problems.add(
                config.name, "sub-function not found", f"no row of sub-function {name!r}, which subfunctions asks for"
            )


def _with_labels(
    drafts: list[Draft], schemes: Mapping[str, LabelScheme], config: FunctionConfig, left_out: Counter[str]
) -> tuple[list[Draft], tuple[str, ...], npt.NDArray[np.int8]]:
    """Examples that take part in a sub-function, capped, and their binary labels."""
    without = [draft for draft in drafts if not schemes[draft.part].uses(draft.label)]
    left_out.update(
        f"label {draft.label!r} {f'of {draft.part} ' if draft.part else ''}is in no sub-function" for draft in without
    )
    drafts = [draft for draft in drafts if schemes[draft.part].uses(draft.label)]
    kept = capped(drafts, config.cap_per_label, seed=config.seed)
    if len(kept) < len(drafts):
        stays = {draft.id for draft in kept}
        cut = [draft for draft in drafts if draft.id not in stays]
        left_out[f"cap of {config.cap_per_label} per label{by_subfunction(cut)}"] += len(cut)
    names: list[str] = []
    labels_SE = np.zeros((0, len(kept)), np.int8)
    for part, scheme in schemes.items():
        members = [index for index, draft in enumerate(kept) if draft.part == part]
        labels, values = [kept[index].label for index in members], [kept[index].subfunction for index in members]
        found, labels_SM = subfunction_labels(scheme, labels, values, default=config.name)
        rows_SE = np.full((len(found), len(kept)), -1, np.int8)
        rows_SE[:, members] = labels_SM
        names += found
        labels_SE = np.concatenate([labels_SE, rows_SE])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            [
                f"two sub-functions are named {name!r}, put together as value/contrast or part/contrast; rename a "
                "value, part or contrast"
                for name in twice
            ]
        )
    return kept, tuple(names), labels_SE


def _left_out_text(left_out: Counter[str]) -> str:
    """What the config left out, for the end of a message about what is missing then."""
    if not left_out:
        return ""
    return "; left out were " + ", ".join(f"{count} ({reason})" for reason, count in sorted(left_out.items()))


def _check_counts(
    names: Sequence[str],
    labels_SE: npt.NDArray[np.int8],
    selection_E: npt.NDArray[np.bool_],
    config: FunctionConfig,
    problems: Problems,
    left_out: str,
) -> None:
    """Both labels in both halves; `left_out` says what the config took away."""
    for name, labels_E in zip(names, labels_SE):
        counts = {label: int((labels_E == label).sum()) for label in (0, 1)}
        if not all(counts.values()):
            problems.add(
                config.name,
                "single class",
                f"sub-function {name!r} has a single class: {counts[1]} positive and {counts[0]} negative examples; "
                f"expected both{left_out}",
            )
            continue
        for half, in_half_E in (("selection", selection_E), ("evaluation", ~selection_E)):
            for label, word in ((1, "positive"), (0, "negative")):
                count = int(((labels_E == label) & in_half_E).sum())
                if count < config.min_per_label:
                    problems.add(
                        config.name,
                        "too few examples",
                        f"sub-function {name!r} has {count} {word} examples in the {half} half, expected at least "
                        f"{config.min_per_label}; add examples, leave it out of subfunctions, or lower "
                        f"min_per_label{left_out}",
                    )


def _function(
    config: FunctionConfig,
    drafts: Sequence[Draft],
    names: tuple[str, ...],
    labels_SE: npt.NDArray[np.int8],
    selection_E: npt.NDArray[np.bool_],
    cluster_E: npt.NDArray[np.int32],
    notes: tuple[str, ...],
) -> FunctionData:
    examples = tuple(_example(draft) for draft in drafts)
    digest = hashlib.sha256()
    parts = [[e.id, e.fingerprint, e.target, e.position] for e in examples]
    digest.update(canonical_json([names, config.pooling.as_json(), parts]).encode())
    for array in (labels_SE, selection_E, cluster_E):
        digest.update(array.tobytes())
    return FunctionData(
        name=config.name,
        kind=config.kind,
        subfunctions=names,
        examples=examples,
        labels_SE=labels_SE,
        selection_E=selection_E,
        cluster_E=cluster_E,
        fingerprint=digest.hexdigest()[:16],
        pooling=config.pooling,
        notes=notes,
    )


def _example(draft: Draft) -> Example:
    fingerprint = hashlib.sha256(canonical_json(draft.text_key).encode()).hexdigest()[:16]
    return Example(draft.id, draft.text, draft.text_pair, draft.target, draft.position, draft.source, fingerprint)
