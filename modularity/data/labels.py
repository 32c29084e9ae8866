"""Original labels by name, and the binary sub-functions made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modularity.data.files import open_file
from modularity.data.functions import FunctionConfig
from modularity.data.problems import RowError
from modularity.data.readers import read_json
from modularity.data.row_values import encodable, is_absent, shown
from modularity.errors import InputError

_BINARY = {"0": "0", "1": "1", "false": "0", "true": "1"}
Sides = tuple[frozenset[str], frozenset[str]]


@dataclass(frozen=True)
class LabelScheme:
    """Which original labels exist, and which of them each contrast calls positive and negative."""

    known: Mapping[str, str] | None
    """Raw value, as text, to the name of the label; None = every value is a label of its own."""
    contrasts: Mapping[str, Sides] | None
    """Name of each contrast ("" = the only one) to its positive and negative labels; None = each against the rest, or
    the two of a sub-function."""
    two: bool = False
    """Every sub-function has two labels, of which the later is positive."""

    def uses(self, label: str) -> bool:
        """Whether a label is on a side of any contrast."""
        return self.contrasts is None or any(label in side for sides in self.contrasts.values() for side in sides)

    def read(self, value: Any, column: str) -> str:
        """Name of the original label of a row; RowError when there is none or it is not known."""
        if is_absent(value):
            raise RowError("no label", f"no label ({column}={value!r}); remove the row or fill it in")
        text = _label_text(value)
        if text is None:
            raise RowError(
                "bad label",
                f"label {column}={shown(value)} is {type(value).__name__}; expected text, an integer or a boolean",
            )
        if self.known is None:
            return encodable(text, column)
        name = self.known.get(text, self.known.get(text.lower()) if text.lower() in _BINARY else None)
        if name is None:
            raise RowError(
                "unknown label",
                f"unknown label {column}={shown(value)}; known: {', '.join(self.known)}. "
                "Declare it in labels or label_names",
            )
        return name


def _label_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() if isinstance(value, str | int) else None


def label_scheme(config: FunctionConfig) -> LabelScheme:
    """Labels of a function as its config declares them.

    Raises
    ------
    InputError
        The file of label names is unreadable, or a contrast names an unknown label.
    """
    known = _known(config)
    if config.labels == "one_vs_rest":
        return LabelScheme(known, None)
    if config.labels == "two":
        return LabelScheme(known, None, two=True)
    if config.labels == "binary":
        return LabelScheme(known or _BINARY, _binary_contrast(known))
    contrasts: dict[str, Sides] = {}
    declared: dict[str, str] = {}
    problems: list[str] = []
    for name, contrast in config.labels.items():
        sides = []
        for raw in (contrast.positive, contrast.negative):
            texts = [_label_text(label) or "" for label in raw]
            if known is not None:
                problems += [
                    f"labels.{name}: {text!r} is not among label_names ({', '.join(dict.fromkeys(known.values()))})"
                    for text in texts
                    if text not in known
                ]
                texts = [known.get(text, text) for text in texts]
            declared.update({text: text for text in texts})
            sides.append(frozenset(texts))
        contrasts[name] = (sides[0], sides[1])
    if problems:
        raise InputError(problems)
    return LabelScheme(known or declared, contrasts)


def _known(config: FunctionConfig) -> dict[str, str] | None:
    """Raw value to name from `label_names`: numbers (or declared keys) and the names themselves."""
    names: Any = config.label_names
    if names is None:
        return None
    if isinstance(names, str):
        names = read_json(open_file(names))
    if isinstance(names, Mapping):
        keyed = {str(key): str(name) for key, name in names.items()}
    elif isinstance(names, list | tuple):
        keyed = {str(number): str(name) for number, name in enumerate(names)}
    else:
        raise InputError(
            f"label_names={config.label_names!r} holds {type(names).__name__}, expected a list or a mapping"
        )
    listed = names.values() if isinstance(names, Mapping) else names
    if not all(isinstance(name, str | int) and str(name).strip() for name in listed):
        raise InputError(f"label_names={shown(names)}: expected a text or a number as the name of each label")
    clashes = [name for name in keyed.values() if keyed.get(name, name) != name]
    if clashes or len(set(keyed.values())) < len(keyed):
        raise InputError(f"label_names: the names {clashes or list(keyed.values())} stand for two labels at once")
    return keyed | {name: name for name in keyed.values()}


def _binary_contrast(known: Mapping[str, str] | None) -> dict[str, Sides]:
    if known is None:
        return {"": (frozenset({"1"}), frozenset({"0"}))}
    names = list(dict.fromkeys(known.values()))
    if len(names) != 2 or not {"0", "1"} <= set(known):
        raise InputError(
            f'labels="binary" with label_names {names}: expected names for 0 and 1; otherwise set labels to '
            '"one_vs_rest" or declare contrasts'
        )
    return {"": (frozenset({known["1"]}), frozenset({known["0"]}))}


def subfunction_labels(
    scheme: LabelScheme, labels: Sequence[str], values: Sequence[str | None], *, default: str
) -> tuple[tuple[str, ...], npt.NDArray[np.int8]]:
    """Binary labels of every sub-function: one for each value of the sub-function column and each contrast.

    Parameters
    ----------
    scheme : contrasts
    labels : original label of each of the E examples
    values : value of the sub-function column, None where there is no such column
    default : name when there is neither column nor contrast name

    Returns
    -------
    names : values sorted, contrasts in declared order; `value/contrast` where both exist
    labels_SE : int8, 1 positive, 0 negative, -1 no part

    Raises
    ------
    InputError
        Sub-functions have not the two labels that the scheme asks for; all are listed.
    """
    names: list[str] = []
    rows: list[npt.NDArray[np.int8]] = []
    labels_E = np.array(labels, dtype=object)
    values_E = np.array(values, dtype=object)
    _check_two(scheme, labels_E, values_E, default)
    for value in sorted(set(values), key=str):
        member_E = values_E == value
        for contrast, (positive, negative) in _contrasts(scheme, set(labels_E[member_E])).items():
            row_E = np.full(len(labels), -1, np.int8)
            row_E[member_E & np.isin(labels_E, list(negative))] = 0
            row_E[member_E & np.isin(labels_E, list(positive))] = 1
            names.append("/".join(part for part in (value, contrast) if part) or default)
            rows.append(row_E)
    return tuple(names), np.array(rows, np.int8).reshape(len(rows), len(labels))


def _contrasts(scheme: LabelScheme, seen: set[str]) -> Mapping[str, Sides]:
    if scheme.contrasts is not None:
        return scheme.contrasts
    order = (
        sorted(seen)
        if scheme.known is None
        else [name for name in dict.fromkeys(scheme.known.values()) if name in seen]
    )
    if scheme.two:
        return {"": (frozenset(order[1:]), frozenset(order[:1]))}
    return {name: (frozenset({name}), frozenset(seen - {name})) for name in order}


def _check_two(
    scheme: LabelScheme, labels_E: npt.NDArray[np.object_], values_E: npt.NDArray[np.object_], default: str
) -> None:
    if not scheme.two:
        return
    seen = {value: sorted(set(labels_E[values_E == value])) for value in sorted(set(values_E), key=str)}
    problems = [
        f"sub-function {value or default!r} has the labels {', '.join(found)}; expected two: leave others out with "
        "keep, or the sub-function out of subfunctions"
        for value, found in seen.items()
        if len(found) != 2
    ]
    if problems:
        raise InputError(problems)
