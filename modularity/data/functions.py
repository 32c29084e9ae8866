"""What a function is: how it is declared (`FunctionConfig`), and what reading it gives (`FunctionData`).

A function is a set of binary sub-functions over labelled examples (Zhang Z. et al. 2023, arXiv 2305.18390, section 3):
ambiguous words in two senses, relations true or false, classification tasks. Sub-functions may share examples.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from modularity.config import Config
from modularity.data.function_part import FunctionPart

FunctionKind = Literal["semantic", "knowledge", "task", "other"]
PoolingKind = Literal["max", "mean", "first", "last", "span", "position", "mask", "positions", "none"]
Half = Literal["selection", "evaluation"]
Word = Annotated[str, Field(min_length=1)]


class Pooling(Config):
    """Which token positions of an example become rows, and whether they are reduced to one."""

    kind: PoolingKind = "max"
    """`max`/`mean` over the tokens, `first`, `last`, the mean or max over the target `span`, the declared `position` of
    each example, its `mask` token, a list of `positions`, or `none`: every token is a row."""
    positions: tuple[Annotated[int, Field(gt=-(2**31), lt=2**31)], ...] = ()
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


class FunctionConfig(FunctionPart):
    """One function: where its examples are, and how they become binary sub-functions, halves and rows."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    """Name of the function in the store and in all tables."""
    kind: FunctionKind = "other"
    """Which of the three kinds of the Emergent Modularity work it is."""
    parts: dict[str, FunctionPart] = Field(default_factory=dict)
    """Sub-functions with sources, columns, templates or labels of their own, such as the tasks of GLUE, by name. A part
    with several contrasts has the sub-functions `part/contrast`."""
    subfunctions: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Values of the sub-function column, or parts, to use; None = all. Other rows are left out and counted."""
    label_words: dict[str, tuple[Word, Word]] = Field(default_factory=dict)
    """By sub-function: the words by which a model answers label 1 and label 0, for the perturbation of a run. They
    change neither examples nor activations."""
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

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = self._part_problems() if self.parts else [*self.problems(), *self._whole_problems()]
        problems += [
            f"label_words of {name!r} are {words[0]!r} twice; labels need different words"
            for name, words in self.label_words.items()
            if words[0] == words[1]
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _whole_problems(self) -> list[str]:
        problems = []
        if self.source is None:
            problems.append("source is missing; name a file, a glob or a URI, or declare parts that have sources")
        if self.pooling.kind == "span" and self.columns.target_start is None:
            problems.append('pooling kind "span" needs the columns target_start and target_end')
        if self.pooling.kind == "position" and self.columns.position is None:
            problems.append('pooling kind "position" needs the column position')
        if self.subfunctions is not None and self.columns.subfunction is None:
            problems.append("subfunctions selects values of a column, but columns.subfunction is not declared")
        return problems

    def _part_problems(self) -> list[str]:
        own = [
            name
            for name, field in FunctionPart.model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        ]
        problems = [f"{name} is declared beside parts; move it into each part" for name in own]
        problems += ["parts: a name is empty; name each part" for name in self.parts if not name.strip()]
        unknown = sorted(set(self.subfunctions or ()) - set(self.parts))
        if unknown:
            problems.append(f"subfunctions {unknown} are no parts; known: {', '.join(self.parts)}")
        if own or unknown:
            return problems
        used = self.part_configs()
        for name, each in used.items():
            problems += [f"parts.{name}: {problem}" for problem in [*each.problems(), *each._whole_problems()]]
        pairs = {name for name, each in used.items() if each.template is None and each.columns.text_pair is not None}
        if 0 < len(pairs) < len(used):
            problems.append(
                f"parts {sorted(pairs)} have a second segment and the others have none; give each a template, which "
                "makes one text"
            )
        return problems

    def part_configs(self) -> dict[str, "FunctionConfig"]:
        """The parts in use, each as a function of its own, by name; a function without parts is its only one, ""."""
        if not self.parts:
            return {"": self}
        whole: dict[str, Any] = {"parts": {}, "subfunctions": None, "label_words": {}}
        return {
            name: FunctionConfig.model_construct(**dict(self) | whole | dict(part))
            for name, part in self.parts.items()
            if self.subfunctions is None or name in self.subfunctions
        }


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
