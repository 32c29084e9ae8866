"""The config of the job: what does not fit together is refused before any I/O, and what identifies results."""

from typing import Any

import pytest

from modularity.config import validate_config
from modularity.errors import InputError
from modularity.pipelines import EmergentModularityConfig

CORPUS = {"name": "pile", "source": "pile.jsonl"}
FUNCTION = {"name": "words", "source": "words.jsonl"}


def config(**changes: Any) -> EmergentModularityConfig:
    return validate_config(EmergentModularityConfig, {"model": {"name": "bert"}, "functions": [FUNCTION], **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"functions": [FUNCTION, FUNCTION]}, "functions named twice: words; give each its own name"),
        ({"functions": [], "analyses": []}, r"functions=\[\]: expected at least one function, or a corpus"),
        (
            {"functions": [], "reductions": {"kinds": ["moments"], "corpora": [CORPUS]}},
            "there are corpora only; set anal",
        ),
        ({"reductions": {"kinds": ["per_label"], "corpora": [CORPUS]}}, "corpora have no labels.* besides per_label"),
        ({"reductions": {"corpora": [{**CORPUS, "name": "words"}]}}, "functions or corpora named twice: words"),
        ({"analyses": ["experts"]}, r"analyses=\['experts'\] lacks 'predictivity', which the others are computed from"),
        ({"capture": {"sites": ["residual"]}}, r"capture.sites=\['residual'\] lacks ffn.neurons"),
        (
            {"functions": [{**FUNCTION, "pooling": {"kind": "none"}}]},
            "function 'words' has pooling 'none', several rows per example; .* or analyses=\\[\\] to capture only",
        ),
        ({"experts": {"methods": ["random"]}}, r"methods=\['random'\] lacks 'balanced', the partition that"),
        ({"experts": {"methods": ["shuffled"]}}, "in a mixture model it may be 'native'"),
        ({"variant": "released"}, "variant='released': Input should be 'corrected' or 'paper'"),
        ({"predictivity": {"permutations": 5}}, "predictivity.permutations: unknown key"),
        ({"allowance": {"store_bytes": 0}}, "allowance.store_bytes=0"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**changes)


def test_several_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        config(experts={"n_experts": 1}, predictivity={"n_permutations": 3}, overlap={"top_fraction": 2})
    assert len(caught.value.problems) == 3


def test_capture_alone_takes_any_site_and_pooling() -> None:
    made = config(analyses=[], capture={"sites": ["residual"]}, functions=[{**FUNCTION, "pooling": {"kind": "none"}}])
    assert made.analyses == ()


def test_runtime_and_allowance_do_not_change_the_results() -> None:
    base = config()
    assert config(runtime={"workers": 7}, allowance={"hours": 1}).result_digest() == base.result_digest()
    words = [{**function.as_json(), "label_words": {"a": ["yes", "no"]}} for function in base.functions]
    assert config(functions=words).result_digest() == base.result_digest()
    assert config(experts={"seed": 1}).result_digest() != base.result_digest()
    assert config(variant="paper").result_digest() != base.result_digest()


def test_a_config_survives_json() -> None:
    made = config(variant="paper", experts={"sensitivity": [0.1]})
    assert EmergentModularityConfig.model_validate(made.as_json()) == made
