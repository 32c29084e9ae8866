"""Where the examples of a function are, and how columns become texts and labels: what each part of one declares."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from modularity.config import Config
from modularity.data.template import template_fields
from modularity.errors import InputError

Format = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow"]


class Columns(Config):
    """Which column of the source plays which role; None = no column plays it."""

    text: str = "text"
    """The text, or its first segment."""
    text_pair: str | None = None
    """The second segment."""
    label: str = "label"
    """The original label."""
    subfunction: str | None = None
    """Sub-function that the row belongs to, e.g. the word or the relation."""
    id: str | None = None
    """Unique name of the example; without it `file:line`."""
    split: str | None = None
    """Which half or split the row belongs to, see `FunctionConfig.splits`."""
    cluster: str | None = None
    """Examples with equal values (a minimal pair, the fillings of one template) stay in one half."""
    target_start: str | None = None
    """First character of the target span in the text."""
    target_end: str | None = None
    """Character after the target span."""
    position: str | None = None
    """Token position for pooling at a declared position; negative ones count from the end."""

    def declared(self) -> dict[str, str]:
        """Roles that a column plays, role to column."""
        return {role: column for role, column in self if column is not None}


class Contrast(Config):
    """One sub-function as two sets of original labels; examples with other labels take no part in it."""

    positive: tuple[str | int | bool, ...] = Field(min_length=1)
    """Labels that become 1."""
    negative: tuple[str | int | bool, ...] = Field(min_length=1)
    """Labels that become 0."""

    @model_validator(mode="after")
    def _check_disjoint(self) -> Self:
        both = sorted({str(label) for label in self.positive} & {str(label) for label in self.negative})
        if both:
            raise ValueError(f"labels {both} are positive and negative at once; name each on one side")
        return self


class TriplesConfig(Config):
    """Rows that are facts (subject, object; the relation is the sub-function column) and become statements."""

    patterns: dict[str, str] | str
    """By relation, a text with `[X]` for the subject and `[Y]` for the object, e.g. `"[X] was born in [Y]."`; or the
    path of a JSON file with such texts, or lists of them, by relation; or that of a file of rows with the columns
    `relation` and `template`, such as the JSONL of LAMA."""
    subject: str = "subject"
    """Column of the subject. Statements about one subject stay in one half, unless `columns.cluster` says otherwise."""
    object: str = "object"
    """Column of the object."""
    pattern: int = Field(default=0, ge=0)
    """Which text of a relation's list is used."""


class SourceHalves(Config):
    """Sources declared by half, e.g. the train file for selection and the validation file for evaluation."""

    selection: str | tuple[str, ...]
    """File, glob, URI or list of them."""
    evaluation: str | tuple[str, ...]
    """File, glob, URI or list of them."""


def _form(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "mapping" if isinstance(value, dict | Config) else "list"


_Source = Annotated[
    Annotated[str, Tag("text")] | Annotated[tuple[str, ...], Tag("list")] | Annotated[SourceHalves, Tag("mapping")],
    Discriminator(_form),
]
_Labels = Annotated[
    Annotated[Literal["binary", "two", "one_vs_rest"], Tag("text")] | Annotated[dict[str, Contrast], Tag("mapping")],
    Discriminator(_form),
]
_LabelNames = Annotated[
    Annotated[str, Tag("text")] | Annotated[tuple[str, ...], Tag("list")] | Annotated[dict[str, str], Tag("mapping")],
    Discriminator(_form),
]
_SOURCE_FORMS = 'a path, a glob, a URI, "sample:<name>", a list of these, or {"selection": …, "evaluation": …}'
_LABELS_FORMS = '"binary", "two", "one_vs_rest" or {"sub-function": {"positive": […], "negative": […]}}'


class FunctionPart(Config):
    """Where examples are, and how their columns become texts and binary labels: a function, or a part of one."""

    source: _Source | None = None
    """Path, glob, fsspec URI (`hf://datasets/…`, `s3://…`), `sample:<name>` for shipped data, a list of these, or one
    entry for each half. Needed, except in a function with `parts`."""
    format: Format | None = None
    """Format of the files; None = from the ending of each name."""
    header: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names of the columns of CSV and TSV files that have no header line."""
    keep: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By column, the values (as text) of the rows to use; other rows are left out and counted."""
    columns: Columns = Columns()
    """Mapping of roles to columns."""
    template: str | None = None
    """Text with `{role}` or `{column}` fields, which becomes the whole input, e.g. `"sst2 sentence: {text}"`."""
    triples: TriplesConfig | None = None
    """Rows are facts: each becomes a true statement and a false one, which names another object of the relation."""
    asked_template: str | None = None
    """Text in which a model is asked for the label by words, where it is not `template`; activations do not use it."""
    label_names: _LabelNames | None = None
    """Names of integer labels: a list, a mapping, or the path of a JSON file with either."""
    labels: _Labels = "binary"
    """How original labels become sub-functions: they are 0/1 already, two in each sub-function of which the later in
    alphabetical order becomes 1, each against the rest, or declared contrasts."""
    splits: dict[str, Literal["selection", "evaluation", "ignore"]] = Field(default_factory=dict)
    """Meaning of the values of the split column; empty = they are `selection` and `evaluation`."""

    @field_validator("source", mode="before")
    @classmethod
    def _check_source(cls, source: Any) -> Any:
        if source is None:
            return source
        halves = (
            source.values()
            if isinstance(source, dict)
            else dict(source).values()
            if isinstance(source, Config)
            else [source]
        )
        for names in halves:
            listed = [names] if isinstance(names, str) else names
            if (
                not isinstance(listed, list | tuple)
                or not listed
                or not all(isinstance(n, str) and n.strip() for n in listed)
            ):
                raise ValueError(f"names no file; expected {_SOURCE_FORMS}")
        return source

    @field_validator("labels", mode="before")
    @classmethod
    def _check_labels(cls, labels: Any) -> Any:
        known = (
            labels in ("binary", "two", "one_vs_rest")
            if isinstance(labels, str)
            else isinstance(labels, dict) and labels
        )
        if not known or not all(str(name).strip() for name in labels):
            raise ValueError(f"expected {_LABELS_FORMS}")
        return labels

    @field_validator("label_names", mode="before")
    @classmethod
    def _check_label_names(cls, names: Any) -> Any:
        listed = list(names.values()) if isinstance(names, dict) else names
        if names is None or (isinstance(names, str) and names.strip()):
            return names
        if not isinstance(listed, list | tuple) or len(listed) < 2 or len(set(map(str, listed))) < len(listed):
            raise ValueError(
                "expected the names of two labels or more, each once, or the path of a JSON file with them"
            )
        return names

    def problems(self) -> list[str]:
        """What does not fit together, apart from what pooling needs."""
        return [
            *self._role_problems(),
            *self._template_problems("template", self.template),
            *self._template_problems("asked_template", self.asked_template),
        ]

    def _role_problems(self) -> list[str]:
        columns, problems = self.columns, []
        if (columns.target_start is None) != (columns.target_end is None):
            problems.append("columns: target_start and target_end belong together, declare both or neither")
        if columns.split is not None and isinstance(self.source, SourceHalves):
            problems.append("halves are declared twice, by source and by columns.split; remove one")
        if self.triples is not None and columns.subfunction is None:
            problems.append("triples need the relation as sub-function: declare its column in columns.subfunction")
        if self.triples is not None and (self.labels != "binary" or columns.target_start or columns.text_pair):
            problems.append(
                "triples make texts with the labels 0 and 1: labels, text_pair and target spans do not apply"
            )
        if self.header is not None and len(set(self.header)) < len(self.header):
            problems.append(f"header={list(self.header)} names a column twice")
        if self.splits and columns.split is None:
            problems.append("splits gives a meaning to values of a split column, but columns.split is not declared")
        return problems

    def _template_problems(self, key: str, template: str | None) -> list[str]:
        if template is None:
            return []
        try:
            fields = template_fields(template)
        except InputError as error:
            return list(error.problems)
        problems = []
        if not {"text", self.columns.text} & set(fields):
            problems.append(f"{key}={template!r} does not use {{text}}")
        if self.columns.text_pair is not None and not {"text_pair", self.columns.text_pair} & set(fields):
            problems.append(f"{key}={template!r} does not use {{text_pair}}, which columns declares")
        if self.columns.target_start and sum(name in ("text", self.columns.text) for name in fields) > 1:
            problems.append(f"{key}={template!r} uses {{text}} more than once: the target span is ambiguous")
        return problems
