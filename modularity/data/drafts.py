"""Rows of the source to examples with an original label: roles, templates, spans, and the checks of single rows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from modularity.data.files import id_prefixes, source_files
from modularity.data.functions import FunctionConfig, Half
from modularity.data.labels import LabelScheme
from modularity.data.problems import Problems, RowError
from modularity.data.readers import Rows, read_rows
from modularity.data.row_values import Row, field_value, integer_value, is_absent, name_value, target_span, text_value
from modularity.data.template import fill_template, template_fields
from modularity.data.triples import with_statements
from modularity.errors import InputError


@dataclass(frozen=True, slots=True)
class Draft:
    """One row that passed the checks of single rows."""

    id: str
    text: str
    """First segment, template filled in."""
    text_pair: str | None
    label: str
    """Original label, by name where names are declared."""
    subfunction: str | None
    """Value of the sub-function column."""
    target: tuple[int, int] | None
    position: int | None
    half: Half | None
    """Declared half."""
    cluster: str | None
    """Value of the cluster column."""
    source: str
    """`file:line`."""
    part: str = ""
    """Part of the function that the row is from; "" where it has none."""

    @property
    def text_key(self) -> tuple[str, str | None]:
        """What makes two examples the same text."""
        return self.text, self.text_pair


class LeftOut(Exception):  # noqa: N818 - not an error: the config leaves this row out on purpose
    """The config leaves a row out; the argument is the reason."""


def read_drafts(config: FunctionConfig, scheme: LabelScheme, problems: Problems) -> tuple[list[Draft], Counter[str]]:
    """All usable rows of a function, in the order of the source.

    Parameters
    ----------
    config : the function
    scheme : its original labels
    problems : receives everything that is wrong

    Returns
    -------
    drafts : the usable rows
    left_out : number of rows that the config leaves out on purpose, by reason
    """
    drafts: list[Draft] = []
    left_out: Counter[str] = Counter()
    files = [file for file in _read_files(config, problems) if _has_columns(file.rows, config, problems)]
    if config.triples is not None and config.columns.cluster is None:
        config = config.model_copy(
            update={"columns": config.columns.model_copy(update={"cluster": config.triples.subject})}
        )
    kept = [_kept(file.rows, config, left_out) for file in files]
    for file, rows in zip(files, with_statements(kept, config, problems, left_out)):
        for values, place in zip(rows.values, rows.places):
            try:
                default_id = file.prefix + place[len(rows.place) :]
                drafts.append(_draft(values, place, default_id, config, scheme, file.half))
            except LeftOut as reason:
                left_out[str(reason)] += 1
            except RowError as error:
                problems.add(config.name, error.kind, f"{place}: {error}")
    return drafts, left_out


@dataclass(frozen=True)
class _ReadFile:
    rows: Rows
    half: Half | None
    prefix: str
    """What default ids begin with."""


def _read_files(config: FunctionConfig, problems: Problems) -> list[_ReadFile]:
    """Files of a function; what cannot be read is a problem."""
    files = list(source_files(config))
    prefixes = id_prefixes([file.place for file in files if not isinstance(file, InputError)])
    read = []
    for file in files:
        try:
            if isinstance(file, InputError):
                raise file  # a name that leads nowhere is a problem like an unreadable file
            rows = read_rows(file, config.format, wanted=_needed_columns(config), header=config.header)
        except InputError as error:
            problems.add(config.name, "file", str(error))
            continue
        for message in rows.problems:
            problems.add(config.name, "unreadable row", message)
        read.append(_ReadFile(rows, file.half, prefixes[file.place]))
    return read


def _kept(rows: Rows, config: FunctionConfig, left_out: Counter[str]) -> Rows:
    """Rows with the values that `keep` asks for."""
    kept = Rows(rows.place, columns=rows.columns)
    for values, place in zip(rows.values, rows.places):
        column = next((name for name, wanted in config.keep.items() if str(values.get(name)) not in wanted), None)
        if column is None:
            kept.values.append(values)
            kept.places.append(place)
        else:
            left_out[f"rows with another {column} than {', '.join(config.keep[column])}"] += 1
    return kept


def _needed_columns(config: FunctionConfig) -> dict[str, str]:
    """Columns that the rows must have, and what for."""
    roles = config.columns.declared()
    needed = {column: f"role {role}" for role, column in roles.items()}
    for name in template_fields(config.template) if config.template is not None else ():
        needed.setdefault(roles.get(name, name), "a field of the template")
    for name in config.keep:
        needed.setdefault(name, "asked for in keep")
    if config.triples is None:
        return needed
    made = {config.columns.text, config.columns.label}
    ends = {config.triples.subject: "subject of triples", config.triples.object: "object of triples"}
    return {column: why for column, why in needed.items() if column not in made} | ends


def in_part(draft: Draft, part: str) -> Draft:
    """The row as one of a part: sub-function, id and cluster begin with the name of the part."""
    if not part:
        return draft
    return replace(
        draft,
        part=part,
        id=f"{part}/{draft.id}",
        subfunction=part if draft.subfunction is None else f"{part}/{draft.subfunction}",
        cluster=None if draft.cluster is None else f"{part}/{draft.cluster}",
    )


def by_subfunction(drafts: Iterable[Draft]) -> str:
    """How many of these examples belong to each value of the sub-function column, in brackets; empty without one."""
    counts = Counter(draft.subfunction for draft in drafts if draft.subfunction is not None)
    return f" ({', '.join(f'{name} {count}' for name, count in sorted(counts.items()))})" if counts else ""


def _has_columns(rows: Rows, config: FunctionConfig, problems: Problems) -> bool:
    needed = _needed_columns(config)
    missing = [(column, why) for column, why in needed.items() if column not in rows.columns and rows.values]
    for column, why in missing:
        problems.add(
            config.name,
            "missing column",
            f"{rows.place}: no column {column!r} ({why}); it has {', '.join(map(repr, rows.columns))}: "
            "declare the right one in columns",
        )
    return not missing


def _draft(
    values: Row, place: str, default_id: str, config: FunctionConfig, scheme: LabelScheme, half: Half | None
) -> Draft:
    columns = config.columns
    if columns.split is not None:
        half = _half(values, columns.split, config)
    subfunction = None if columns.subfunction is None else name_value(values, columns.subfunction, "sub-function")
    if config.subfunctions is not None and subfunction not in config.subfunctions:
        raise LeftOut("rows of sub-functions that were not asked for")
    text, pair, target = _input(values, config)
    cluster = None if columns.cluster is None else values.get(columns.cluster)
    return Draft(
        id=default_id if columns.id is None else name_value(values, columns.id, "id"),
        text=text,
        text_pair=pair,
        label=scheme.read(values.get(columns.label), columns.label),
        subfunction=subfunction,
        target=target,
        position=None if columns.position is None else integer_value(values, columns.position, "position"),
        half=half,
        cluster=None if is_absent(cluster) else str(cluster),
        source=place,
    )


def _half(values: Row, column: str, config: FunctionConfig) -> Half:
    value = name_value(values, column, "split")
    meanings = config.splits or {"selection": "selection", "evaluation": "evaluation"}
    meaning = meanings.get(value)
    if meaning == "ignore":
        raise LeftOut(f"rows of split {value!r}, which is ignored")
    if meaning is None:
        raise RowError(
            "unknown split",
            f"{column}={value!r} has no meaning; known: {', '.join(meanings)}. Name it in splits, "
            f'e.g. {{"{value}": "evaluation"}}',
        )
    return "selection" if meaning == "selection" else "evaluation"


def _input(values: Row, config: FunctionConfig) -> tuple[str, str | None, tuple[int, int] | None]:
    """Text, second segment and target span of a row, through the template where there is one."""
    columns = config.columns
    text = text_value(values, columns.text)
    pair = None if columns.text_pair is None else text_value(values, columns.text_pair)
    target = None
    if columns.target_start is not None and columns.target_end is not None:
        start = integer_value(values, columns.target_start, "target start")
        target = target_span(start, integer_value(values, columns.target_end, "target end"), text)
    if config.template is None:
        return text, pair, target
    roles = columns.declared()
    fields = {name: field_value(values, roles.get(name, name)) for name in template_fields(config.template)}
    filled, starts = fill_template(config.template, fields)
    shift = starts.get("text", starts.get(columns.text, 0))
    return filled, None, None if target is None else (target[0] + shift, target[1] + shift)
