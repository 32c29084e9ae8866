"""Configs: frozen, validated without I/O, unknown keys refused, all problems reported at once.

Every room keeps its config class beside what the config builds; this file holds what they share: the base class,
reading a JSON or YAML file with `file:line` in the messages, and `--set key=value` overrides.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from modularity.errors import InputError
from modularity.types import content_digest

Key = tuple[str | int, ...]
AnyConfig = TypeVar("AnyConfig", bound="Config")


class Config(BaseModel):
    """Base of all configs: immutable, unknown keys are errors, defaults never look at the machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values of all fields, defaults included: what a run records and `modularity run` reads again."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the resolved config."""
        return content_digest(self.as_json())

    def replace(self, **changes: Any) -> Self:
        """Copy with fields changed, validated again."""
        return validate_config(type(self), {**self.as_json(), **changes})


def validate_config(
    cls: type[AnyConfig], values: Mapping[str, Any], lines: Mapping[Key, str] | None = None
) -> AnyConfig:
    """Build a config, or raise one InputError with every problem.

    Parameters
    ----------
    cls : the config class
    values : plain values, as from JSON
    lines : where each key stands (`job.yaml:4`), for the messages
    """
    broken = [place for place, text in _texts(dict(values), ()) if not _is_encodable(text)]
    if broken:
        raise InputError([f"{_where(place, lines or {})}{_dotted(place)} {_BROKEN}" for place in broken])
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        details = error.errors()
    details += _hidden_by_unknown_keys(cls, values, details)
    places = [tuple(detail["loc"]) for detail in details]
    kept = [detail for detail in details if not _follows_from_another(detail, places)]
    raise InputError([_problem(detail, lines or {}, cls) for detail in kept])


def _hidden_by_unknown_keys(cls: type[Config], values: Mapping[str, Any], details: Sequence[Any]) -> list[Any]:
    """What is wrong besides: a config with an unknown key is not checked for what does not fit together."""
    unknown = [tuple(detail["loc"]) for detail in details if detail["type"] == "extra_forbidden"]
    if not unknown:
        return []
    known: Any = values
    for place in unknown:
        known = _without(known, place)
    try:
        cls.model_validate(dict(known))
    except ValidationError as error:
        before = [(detail["loc"], detail["type"]) for detail in details]
        return [detail for detail in error.errors() if (detail["loc"], detail["type"]) not in before]
    return []


def _without(node: Any, place: Key) -> Any:
    """Copy of nested values without one key; parts of the place that are no keys, the tags of unions, are passed."""
    head, rest = place[0], place[1:]
    if isinstance(node, Mapping) and head in node:
        if not rest:
            return {key: value for key, value in node.items() if key != head}
        return {**node, head: _without(node[head], rest)}
    if isinstance(node, list | tuple) and isinstance(head, int) and head < len(node) and rest:
        return [_without(child, rest) if index == head else child for index, child in enumerate(node)]
    return _without(node, rest) if rest else node


_BROKEN = "holds half of a surrogate pair, which no file can take; repair the encoding"


def _texts(node: Any, place: Key) -> Iterator[tuple[Key, str]]:
    """Texts in nested values, keys of mappings among them, with their places."""
    if isinstance(node, str):
        yield place, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            inner = (*place, key if isinstance(key, str | int) else str(key))
            yield from ((inner, key),) if isinstance(key, str) else ()
            yield from _texts(value, inner)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _texts(value, (*place, index))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _follows_from_another(detail: Any, places: Sequence[Key]) -> bool:
    """A list whose item is wrong is also reported as too short."""
    place = tuple(detail["loc"])
    return detail["type"] == "too_short" and any(other[: len(place)] == place != other for other in places)


def _problem(detail: Any, lines: Mapping[Key, str], cls: type["Config"]) -> str:
    place: Key = tuple(detail["loc"])
    name = _dotted(place) or "config"
    where = _where(place, lines)
    text = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = _keys_at(cls, place[:-1])
        nearest = get_close_matches(str(place[-1]), known, n=1)
        if nearest:
            return f"{where}{name}: unknown key; did you mean {nearest[0]!r}?"
        return f"{where}{name}: unknown key; remove it" + (f", known are {', '.join(known)}" if known else "")
    if detail["type"] == "missing":
        return f"{where}{name}: required and missing; add it"
    return f"{where}{name}={detail['input']!r}: {text}" if place else f"{where}{text}"


def _dotted(place: Key) -> str:
    return ".".join(str(part) for part in place).encode(errors="backslashreplace").decode()


def _where(place: Key, lines: Mapping[Key, str]) -> str:
    """File and line of a key, or of what it stands in; empty where the values are from no file."""
    return next((lines[place[:n]] + ": " for n in range(len(place), -1, -1) if place[:n] in lines), "")


def _keys_at(cls: Any, place: Key) -> list[str]:
    """Keys of the config that stands at `place` below `cls`; none where several kinds of config may stand."""
    for part in place:
        annotation = cls.model_fields[part].annotation if isinstance(part, str) and part in cls.model_fields else None
        found = _configs_in(annotation) if isinstance(part, str) else [cls]
        if len(found) != 1:
            return []
        cls = found[0]
    return list(cls.model_fields)


def _configs_in(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _configs_in(argument)]


def read_config_file(path: str | Path) -> tuple[dict[str, Any], dict[Key, str]]:
    """Values of a JSON or YAML file and the place (`file:line`) of each key; InputError if it cannot be parsed."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config file {str(path)!r} cannot be read ({error}); name a JSON or YAML file") from None
    try:
        values = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"config file {str(path)!r} is neither JSON nor YAML: {error}") from None
    if not isinstance(values, dict):
        raise InputError(
            f"config file {str(path)!r} holds {type(values).__name__}, expected a mapping of keys to values"
        )
    lines: dict[Key, str] = {}
    _collect_lines(root, (), path.name, lines)
    return values, lines


def _collect_lines(node: yaml.Node | None, key: Key, name: str, lines: dict[Key, str]) -> None:
    if node is None:
        return
    lines[key] = f"{name}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            _collect_lines(value_node, (*key, key_node.value), name, lines)
            lines[(*key, key_node.value)] = f"{name}:{key_node.start_mark.line + 1}"
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _collect_lines(child, (*key, index), name, lines)


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Copy of `values` with `a.b=c` overrides put in; the right side is read as YAML (`3`, `true`, `[1, 2]`, text)."""
    result: dict[str, Any] = dict(values)
    problems = []
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            problems.append(f"--set {override!r}: expected key=value, e.g. --set predictivity.n_permutations=500")
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        try:
            result = _with_value(result, name.strip().split("."), value)
        except KeyError as error:
            problems.append(f"--set {override!r}: {error.args[0]}")
    if problems:
        raise InputError(problems)
    return result


def _with_value(node: Any, names: Sequence[str], value: Any) -> Any:
    if not names:
        return value
    head, rest = names[0], names[1:]
    if isinstance(node, Mapping) or node is None:
        return {**(node or {}), head: _with_value((node or {}).get(head), rest, value)}
    if isinstance(node, Sequence) and not isinstance(node, str):
        if not head.isdigit() or int(head) >= len(node):
            raise KeyError(f"{head!r} is not an index of a list of {len(node)}")
        return [_with_value(child, rest, value) if index == int(head) else child for index, child in enumerate(node)]
    raise KeyError(f"{head!r} is set inside {node!r}, which is not a mapping")
