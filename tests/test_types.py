"""Keys: written, read back, and equal for equal content."""

import pytest

from modularity.errors import InputError
from modularity.types import Site, WorkItem, canonical_json, content_digest


def test_site_is_read_with_and_without_its_stack() -> None:
    assert Site.parse("ffn.neurons", "encoder") == Site("encoder", "ffn.neurons")
    assert Site.parse("decoder/residual", "encoder") == Site("decoder", "residual")
    assert str(Site("decoder", "residual")) == "decoder/residual"


@pytest.mark.parametrize("text", ["ffn", "middle/ffn.neurons", "ffn.neuron", ""])
def test_unknown_site_names_what_is_known(text: str) -> None:
    with pytest.raises(InputError, match=r"is not known: expected one of ffn\.neurons, ffn\.output"):
        Site.parse(text, "encoder")


def test_work_items_are_named_by_content() -> None:
    item = WorkItem.of("capture", function="task", start=0, stop=512)
    assert item == WorkItem.of("capture", stop=512, start=0, function="task")
    assert item.id == WorkItem.of("capture", stop=512, start=0, function="task").id
    assert item.id != WorkItem.of("capture", stop=513, start=0, function="task").id
    assert item.id.startswith("capture-")
    assert len(item.id) == len("capture-") + 16
    assert item.integer("stop") == 512
    assert item.text("function") == "task"
    assert str(item) == "capture(function=task, start=0, stop=512)"
    with pytest.raises(TypeError, match="is not an integer"):
        item.integer("function")
    with pytest.raises(TypeError, match="is not a string"):
        item.text("start")


def test_canonical_json_sorts_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'
    assert content_digest({"b": 1, "a": 2}) == content_digest({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))
