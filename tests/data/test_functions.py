import pytest

from modularity.config import validate_config
from modularity.data import Columns, Contrast, FunctionConfig, Pooling, SourceHalves
from modularity.errors import InputError


@pytest.mark.parametrize(
    "values",
    [
        {"source": "a.jsonl"},
        {"source": ["a.jsonl", "b.csv"], "labels": "one_vs_rest", "label_names": ["a", "b"]},
        {"source": {"selection": "a.jsonl", "evaluation": ["b.jsonl"]}, "label_names": {"0": "a", "1": "b"}},
        {
            "source": "sample:topic",
            "labels": {"x": {"positive": [1, "b", True], "negative": ["c"]}},
            "label_names": "n.json",
        },
        {"source": "a.jsonl", "pooling": {"kind": "positions", "positions": [0, -1]}},
    ],
)
def test_a_recorded_config_reads_back_the_same(values: dict[str, object]) -> None:
    config = validate_config(FunctionConfig, {"name": "demo", **values})
    again = validate_config(FunctionConfig, config.as_json())
    assert again == config
    assert again.digest() == config.digest()


def test_configs_from_python() -> None:
    config = FunctionConfig(
        name="demo",
        source=SourceHalves(selection="a.jsonl", evaluation=("b.jsonl", "c.jsonl")),
        columns=Columns(text="sentence", target_start="start", target_end="end"),
        labels={"taste": Contrast(positive=("good",), negative=("bad",))},
        pooling=Pooling(kind="span"),
    )
    assert config.columns.declared() == {
        "text": "sentence",
        "label": "label",
        "target_start": "start",
        "target_end": "end",
    }
    assert config.as_json()["source"] == {"selection": "a.jsonl", "evaluation": ["b.jsonl", "c.jsonl"]}
    assert Pooling().kind == "max"


def test_several_problems_of_a_config_come_together() -> None:
    with pytest.raises(InputError) as caught:
        validate_config(FunctionConfig, {"name": "", "source": [], "labels": {}, "seed": -1, "duplicates": "keep"})
    assert len(caught.value.problems) == 5
