import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_demo import NEURONS, create_demo, values

from modularity.store.lazy import lazy_variable

index = st.one_of(
    st.integers(-50, 49),
    # xarray itself fails on empty slices that run backwards.
    st.slices(50).filter(lambda part: len(range(50)[part]) > 0 or (part.step or 1) > 0),
    st.lists(st.integers(-50, 49), max_size=4),
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    run = create_demo(tmp_path_factory.mktemp("lazy") / "run")
    for start in (0, 96, 192):
        run.write_activations("demo", NEURONS, start, values()[start : start + 96])
    array = run._activations.array("demo", NEURONS)
    return lazy_variable(array, storage_dtype="float32")[70:120, 1, 80:130], values()[70:120, 1, 80:130]


@given(rows=index, units=index)
@settings(max_examples=40, deadline=None)
def test_any_index_equals_numpy(pair, rows, units):
    lazy, expected = pair
    if isinstance(rows, list) and isinstance(units, list):
        expected = expected[np.ix_(np.array(rows, int), np.array(units, int))]
    else:
        expected = expected[rows if not isinstance(rows, list) else np.array(rows, int)][
            ..., units if not isinstance(units, list) else np.array(units, int)
        ]
    picked = lazy[
        np.array(rows, int) if isinstance(rows, list) else rows,
        np.array(units, int) if isinstance(units, list) else units,
    ]
    np.testing.assert_array_equal(picked.values, expected)
