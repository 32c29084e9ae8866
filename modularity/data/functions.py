"""What a function is: how it is declared (`FunctionConfig`), and what reading it gives (`FunctionData`).

A function is a set of binary sub-functions over labelled examples (Zhang Z. et al. 2023, arXiv 2305.18390, section 3):
ambiguous words in two senses, relations true or false, classification tasks. Sub-functions may share examples.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from modularity.config import Config
from modularity.data.template import template_fields
from modularity.errors import InputError

FunctionKind = Literal["semantic", "knowledge", "task", "other"]
Format = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow"]
PoolingKind = Literal["max", "mean", "first", "last", "span", "position", "mask", "positions", "none"]
Half = Literal["selection", "evaluation"]


class Pooling(Config):
    """Which token positions of an example become rows, and whether they are reduced to one."""

    kind: PoolingKind = "max"
    """`max`/`mean` over the tokens, `first`, `last`, the mean or max over the target `span`, the declared `position` of
    each example, its `mask` token, a list of `positions`, or `none`: every token is a row."""
    positions: tuple[int, ...] = ()
    """Token positions for `positions`, special tokens counted; negative ones count from the end."""
    span_reduction: Literal["max", "mean"] = "max"
    """How the tokens of a target span become one row."""
    skip_special: bool = False
    """Leave out the special tokens that the tokenizer adds, in `max`, `mean`, `first`, `last` and `none`."""
    drop_final_eos: bool = False
    """Delete a final end-of-sequence token, as for T5 checkpoints trained without it."""

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        if (self.kind == "positions") != bool(self.positions):
            raise ValueError(
                f"positions={list(self.positions)} with kind={self.kind!r}: a list of positions belongs to "
                'kind="positions" and to no other'
            )
        if len(set(self.positions)) < len(self.positions):
            raise ValueError(f"positions={list(self.positions)} names a position twice")
        return self


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
    Annotated[Literal["binary", "one_vs_rest"], Tag("text")] | Annotated[dict[str, Contrast], Tag("mapping")],
    Discriminator(_form),
]
_LabelNames = Annotated[
    Annotated[str, Tag("text")] | Annotated[tuple[str, ...], Tag("list")] | Annotated[dict[str, str], Tag("mapping")],
    Discriminator(_form),
]
_SOURCE_FORMS = 'a path, a glob, a URI, "sample:<name>", a list of these, or {"selection": …, "evaluation": …}'
_LABELS_FORMS = '"binary", "one_vs_rest" or {"sub-function": {"positive": […], "negative": […]}}'


class FunctionConfig(Config):
    """One function: where its examples are, and how they become binary sub-functions, halves and rows."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name of the function in the store and in all tables."""
    kind: FunctionKind = "other"
    """Which of the three kinds of the Emergent Modularity work it is."""
    source: _Source
    """Path, glob, fsspec URI (`hf://datasets/…`, `s3://…`), `sample:<name>` for shipped data, a list of these, or one
    entry for each half."""
    format: Format | None = None
    """Format of the files; None = from the ending of each name."""
    columns: Columns = Columns()
    """Mapping of roles to columns."""
    template: str | None = None
    """Text with `{role}` or `{column}` fields, which becomes the whole input, e.g. `"sst2 sentence: {text}"`."""
    label_names: _LabelNames | None = None
    """Names of integer labels: a list, a mapping, or the path of a JSON file with either."""
    labels: _Labels = "binary"
    """How original labels become sub-functions: they are 0/1 already, each against the rest, or declared contrasts."""
    subfunctions: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Values of the sub-function column to use; None = all. Other rows are left out and counted."""
    splits: dict[str, Literal["selection", "evaluation", "ignore"]] = Field(default_factory=dict)
    """Meaning of the values of the split column; empty = they are `selection` and `evaluation`."""
    duplicates: Literal["error", "drop"] = "error"
    """What to do with repeated examples: refuse, or drop and count. Contradictory copies are dropped altogether."""
    cap_per_label: int | None = Field(default=None, ge=1)
    """At most this many examples of each original label (of each value of the sub-function column)."""
    min_per_label: int = Field(default=2, ge=1)
    """Fewer examples of a label than this in a half of a sub-function are an error."""
    seed: int = Field(default=0, ge=0)
    """Seed of caps and halves."""
    pooling: Pooling = Pooling()
    """Which token positions become rows."""

    @field_validator("source", mode="before")
    @classmethod
    def _check_source(cls, source: Any) -> Any:
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
        known = labels in ("binary", "one_vs_rest") if isinstance(labels, str) else isinstance(labels, dict) and labels
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

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        problems = [*self._role_problems(), *self._template_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _role_problems(self) -> list[str]:
        columns, problems = self.columns, []
        if (columns.target_start is None) != (columns.target_end is None):
            problems.append("columns: target_start and target_end belong together, declare both or neither")
        if self.pooling.kind == "span" and columns.target_start is None:
            problems.append('pooling kind "span" needs the columns target_start and target_end')
        if self.pooling.kind == "position" and columns.position is None:
            problems.append('pooling kind "position" needs the column position')
        if columns.split is not None and isinstance(self.source, SourceHalves):
            problems.append("halves are declared twice, by source and by columns.split; remove one")
        if self.splits and columns.split is None:
            problems.append("splits gives a meaning to values of a split column, but columns.split is not declared")
        if self.subfunctions is not None and columns.subfunction is None:
            problems.append("subfunctions selects values of a column, but columns.subfunction is not declared")
        return problems

    def _template_problems(self) -> list[str]:
        if self.template is None:
            return []
        try:
            fields = template_fields(self.template)
        except InputError as error:
            return list(error.problems)
        problems = []
        if not {"text", self.columns.text} & set(fields):
            problems.append(f"template={self.template!r} does not use {{text}}")
        if self.columns.text_pair is not None and not {"text_pair", self.columns.text_pair} & set(fields):
            problems.append(f"template={self.template!r} does not use {{text_pair}}, which columns declares")
        if self.columns.target_start and sum(name in ("text", self.columns.text) for name in fields) > 1:
            problems.append(f"template={self.template!r} uses {{text}} more than once: the target span is ambiguous")
        return problems


@dataclass(frozen=True)
class Example:
    """One text with what belongs to it, as the tokenizer will see it (template filled in)."""

    id: str
    """Unique within the function."""
    text: str
    """The input, or its first segment."""
    text_pair: str | None
    """The second segment."""
    target: tuple[int, int] | None
    """Characters [start, end) of `text` that span pooling looks at."""
    position: int | None
    """Token position that position pooling looks at."""
    source: str
    """`file:line` where the example stands."""
    fingerprint: str
    """16 hexadecimal digits of the SHA-256 of `text` and `text_pair`."""


@dataclass(frozen=True)
class FunctionData:
    """A function, read and checked: examples, labels of every sub-function, and the two halves."""

    name: str
    kind: FunctionKind
    subfunctions: tuple[str, ...]
    """Names of the S sub-functions, in the order of `labels_SE`."""
    examples: tuple[Example, ...]
    """The E examples, in the order of the source."""
    labels_SE: npt.NDArray[np.int8]
    """1, 0, or -1 where an example takes no part in a sub-function."""
    selection_E: npt.NDArray[np.bool_]
    """True in the selection half, False in the evaluation half."""
    cluster_E: npt.NDArray[np.int32]
    """Examples with equal numbers belong together: a declared cluster or the same text. Numbered from 0."""
    fingerprint: str
    """16 hexadecimal digits over everything that results depend on; the place of the source is not part of it."""
    pooling: Pooling
    notes: tuple[str, ...] = ()
    """What was left out, with counts: caps, dropped duplicates, labels outside all contrasts, ignored splits."""

    @property
    def n_examples(self) -> int:
        """Number of examples (E)."""
        return len(self.examples)
