"""Templates that turn the columns of a row into one input text, in the style of T5 task strings.

Source of `T5_TEMPLATES`: Raffel et al. 2020, arXiv 1910.10683, appendix D: task name, field name, colon, text, the
fields in alphabetical order.
"""

import string
from collections.abc import Mapping

from modularity.errors import InputError

T5_TEMPLATES: Mapping[str, str] = {
    "cola": "cola sentence: {text}",
    "mnli": "mnli hypothesis: {text_pair} premise: {text}",
    "mnli_swapped": "mnli hypothesis: {text} premise: {text_pair}",
    "mrpc": "mrpc sentence1: {text} sentence2: {text_pair}",
    "qnli": "qnli question: {text} sentence: {text_pair}",
    "qqp": "qqp question1: {text} question2: {text_pair}",
    "rte": "rte sentence1: {text} sentence2: {text_pair}",
    "sst2": "sst2 sentence: {text}",
}
"""GLUE task strings of T5; `text` is the premise, question or first sentence, as in the GLUE files.

`mnli_swapped` has premise and hypothesis exchanged, as the predictivity inputs released with arXiv 2305.18390 have."""


def _parts(template: str) -> list[tuple[str, str | None]]:
    """Pairs of literal text and the field that follows it (None at the end)."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"template={template!r}: {error}; write a literal brace twice, {{{{ or }}}}") from None
    parts = []
    for literal, field, spec, conversion in parsed:
        if field is not None and (not field.strip() or spec or conversion):
            raise InputError(f"template={template!r}: a field is the plain name of a role or column, e.g. {{text}}")
        parts.append((literal, field))
    return parts


def template_fields(template: str) -> tuple[str, ...]:
    """Names of the fields of a template in order, repeats kept.

    Raises
    ------
    InputError
        Unbalanced braces, an empty field, or a format specification.
    """
    return tuple(field for _, field in _parts(template) if field is not None)


def fill_template(template: str, values: Mapping[str, str]) -> tuple[str, dict[str, int]]:
    """Text of a template with its fields filled in.

    Parameters
    ----------
    template : text with `{field}` places
    values : value of every field

    Returns
    -------
    text : the filled template
    starts : for each field the character at which its first occurrence begins, to move target spans by
    """
    pieces: list[str] = []
    starts: dict[str, int] = {}
    length = 0
    for literal, field in _parts(template):
        pieces.append(literal)
        length += len(literal)
        if field is not None:
            starts.setdefault(field, length)
            pieces.append(values[field])
            length += len(values[field])
    return "".join(pieces), starts
