"""Configs: what is refused, and how it is said."""

from pathlib import Path
from typing import Self

import pytest
from pydantic import Field, model_validator

from modularity.config import Config, apply_overrides, read_config_file, validate_config
from modularity.errors import InputError


class Inner(Config):
    n_permutations: int = Field(default=200, ge=1)


class Outer(Config):
    name: str
    inner: Inner = Inner()
    sizes: tuple[int, ...] = ()
    parts: tuple[Inner, ...] = Field(default=(Inner(),), min_length=1)
    odd: Inner | None = None


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("inner:\n  n_permutations: 0\n  n_perm: 3\nsizes: [1, x]\n")
    values, lines = read_config_file(path)
    with pytest.raises(InputError) as caught:
        validate_config(Outer, values, lines)
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "name: required and missing" in text
    assert "job.yaml:2: inner.n_permutations=0: Input should be greater than or equal to 1" in text
    assert "job.yaml:3: inner.n_perm: unknown key; did you mean 'n_permutations'?" in text
    assert "job.yaml:4: sizes.1='x'" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"xyz": 1}, "xyz: unknown key; remove it, known are name, inner, sizes, parts, odd"),
        ({"parts": [{}, {"n_permutation": 1}]}, "parts.1.n_permutation: unknown key; did you mean 'n_permutations'?"),
        ({"odd": {"seed": 1}}, "odd.seed: unknown key; remove it, known are n_permutations"),
        ({"parts": [{"n_permutations": "x"}]}, "parts.0.n_permutations='x': Input should be a valid integer"),
        ({"parts": []}, "parts=[]: Tuple should have at least 1 item"),
    ],
)
def test_one_problem_is_said_once_with_the_keys_that_exist(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        validate_config(Outer, {"name": "a", **values})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(message)


class Pair(Config):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}")
        return self


class Pairs(Config):
    pairs: tuple[Pair, ...] = ()
    named: dict[str, Pair] = Field(default_factory=dict)


def test_an_unknown_key_does_not_hide_what_does_not_fit_together() -> None:
    wrong = {"low": 3, "hgh": 2}
    with pytest.raises(InputError) as caught:
        validate_config(Pairs, {"pairs": [{}, wrong], "named": {"a": wrong}, "par": 1})
    assert len(caught.value.problems) == 5
    text = str(caught.value)
    for message in (
        "pairs.1.hgh: unknown key; did you mean 'high'?",
        "named.a.hgh: unknown key",
        "par: unknown key; did you mean 'pairs'?",
        "pairs.1={'low': 3}: low=3 is above high=1",
        "named.a={'low': 3}: low=3 is above high=1",
    ):
        assert message in text


def test_texts_that_cannot_be_encoded_are_named() -> None:
    with pytest.raises(InputError) as caught:
        validate_config(Outer, {"name": "a\ud800", "odd": {"\udfff": 1}}, {("name",): "job.yaml:1"})
    assert caught.value.problems == (
        "job.yaml:1: name holds half of a surrogate pair, which no file can take; repair the encoding",
        "odd.\\udfff holds half of a surrogate pair, which no file can take; repair the encoding",
    )
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "neither JSON nor YAML"), ("- 1\n", "holds list, expected a mapping"), (None, "cannot be read")],
)
def test_unreadable_files(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "job.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_config_file(path)


def test_overrides_reach_into_mappings_and_lists() -> None:
    values = {"model": {"name": "a"}, "functions": [{"name": "x"}, {"name": "y"}]}
    changed = apply_overrides(values, ["model.dtype=bfloat16", "functions.1.seed=3", "new.deep=[1, 2]", "flag=true"])
    assert changed == {
        "model": {"name": "a", "dtype": "bfloat16"},
        "functions": [{"name": "x"}, {"name": "y", "seed": 3}],
        "new": {"deep": [1, 2]},
        "flag": True,
    }
    assert values == {"model": {"name": "a"}, "functions": [{"name": "x"}, {"name": "y"}]}


def test_bad_overrides_are_all_listed() -> None:
    with pytest.raises(InputError) as caught:
        apply_overrides({"a": {"b": 1}, "c": [1]}, ["a", "a.b.c=1", "c.5=2"])
    assert len(caught.value.problems) == 3
    assert "expected key=value" in caught.value.problems[0]
    assert "not a mapping" in caught.value.problems[1]
    assert "not an index of a list of 1" in caught.value.problems[2]


def test_digest_depends_on_content_only() -> None:
    first = Outer(name="a", sizes=(1, 2))
    assert first.digest() == validate_config(Outer, {"sizes": [1, 2], "name": "a"}).digest()
    assert first.digest() != first.replace(name="b").digest()


def test_configs_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        Outer(name="a").name = "b"  # type: ignore[misc]
