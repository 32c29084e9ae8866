import pytest

from modularity.data.template import T5_TEMPLATES, fill_template, template_fields
from modularity.errors import InputError


def test_filled_text_and_the_starts_of_its_fields() -> None:
    text, starts = fill_template("mnli hypothesis: {b} premise: {a} ({{x}})", {"a": "A cat.", "b": "A pet."})
    assert text == "mnli hypothesis: A pet. premise: A cat. ({x})"
    assert text[starts["a"] :].startswith("A cat.")
    assert text[starts["b"] :].startswith("A pet.")


def test_braces_in_the_text_are_text() -> None:
    assert fill_template("cola sentence: {text}", {"text": "{text} {"})[0] == "cola sentence: {text} {"


@pytest.mark.parametrize("template", ["{", "}", "{}", "{a!r}", "{a:>5}", "{ }"])
def test_bad_templates_are_named(template: str) -> None:
    with pytest.raises(InputError) as caught:
        template_fields(template)
    assert f"template={template!r}" in str(caught.value)


def test_the_eight_task_strings() -> None:
    assert len(T5_TEMPLATES) == 8
    pairs = {name for name, template in T5_TEMPLATES.items() if "text_pair" in template_fields(template)}
    assert pairs == {"mnli", "mnli_swapped", "mrpc", "qnli", "qqp", "rte"}
    assert all("text" in template_fields(template) for template in T5_TEMPLATES.values())
    values = {"text": "P", "text_pair": "H"}
    assert fill_template(T5_TEMPLATES["mnli"], values)[0] == "mnli hypothesis: H premise: P"
    assert fill_template(T5_TEMPLATES["mnli_swapped"], values)[0] == "mnli hypothesis: P premise: H"
