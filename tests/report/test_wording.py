import math

import pytest

from modularity.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.005, "p = 0.005"),
        (0.0149, "p = 0.015"),
        (0.0996, "p = 0.10"),
        (0.41, "p = 0.41"),
        (1.0, "p = 1.00"),
        (0.0004, "p < 0.001"),
        (0.001, "p = 0.001"),
        (None, "no p-value"),
        (math.nan, "no p-value"),
    ],
)
def test_p_values_in_words(value, text):
    assert wording.p_value(value) == text


def test_numbers_have_a_minus_sign_thousands_and_a_dash_where_they_are_missing():
    assert wording.number(-0.126) == "−0.13"
    assert wording.number(-0.001) == "0.00"
    assert wording.number(12345.6, 1) == "12,345.6"
    assert wording.number(math.nan) == wording.number(None) == wording.number(math.inf) == "–"
    assert wording.percent(0.125) == "12.5 %"
    assert wording.percent(None) == "–"


def test_significant_digits_do_not_depend_on_magnitude():
    assert wording.significant(0.010416) == "0.0104"
    assert wording.significant(1234.5) == "1,234"
    assert wording.significant(0) == "0"
    assert wording.significant(3.2e-7) == "3.20e−07"


def test_intervals_vanish_when_an_end_is_missing():
    assert wording.with_interval(0.62, 0.55, 0.69) == "0.62 [0.55, 0.69]"
    assert wording.with_interval(0.62, math.nan, 0.69) == "0.62"
    assert wording.interval(None, 1.0) == ""


def test_words_are_joined_and_clipped():
    assert [wording.joined(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert wording.clipped("functional", 5) == "func…"
    assert wording.clipped("short", 5) == "short"
    assert wording.plural(1, "layer") == "1 layer"
    assert wording.plural(9216, "neuron") == "9,216 neurons"
