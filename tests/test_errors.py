"""Errors: one base, problems listed in one message, and pickled on the way back from a worker."""

import inspect
import pickle

import pytest

from modularity import errors
from modularity.errors import IdentityError, InputError, ModularityError, SiteError, StoreError

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, ModularityError)]


def test_every_error_has_one_base_and_says_when_it_is_raised() -> None:
    assert len(CLASSES) == 11
    for each in CLASSES:
        assert each.__doc__
        assert each.__module__ == errors.__name__
    assert issubclass(IdentityError, StoreError)
    assert issubclass(SiteError, errors.ModelError)
    assert not issubclass(ModularityError, (ValueError, RuntimeError))


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.__name__)
def test_errors_keep_class_and_message_when_pickled(each: type[ModularityError]) -> None:
    copy = pickle.loads(pickle.dumps(each("layer 3: expected 16")))
    assert type(copy) is each
    assert str(copy) == "layer 3: expected 16"


def test_rows_of_a_numeric_error_survive_pickling() -> None:
    copy = pickle.loads(pickle.dumps(errors.NumericError("NaN", [3, 5])))
    assert (str(copy), copy.rows) == ("NaN", (3, 5))


def test_one_problem_is_the_message_itself() -> None:
    for error in (InputError("only one"), InputError(["only one"])):
        assert error.problems == ("only one",)
        assert str(error) == "only one"


def test_input_error_lists_and_survives_pickling() -> None:
    error = InputError(text for text in ("first", "second"))
    assert error.problems == ("first", "second")
    assert str(error) == "2 problems:\n  1. first\n  2. second"
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert str(copy) == str(error)
