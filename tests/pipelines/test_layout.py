"""Dense results: names, dtypes, blocks, and what stands beyond the width of a narrow layer."""

import numpy as np
import pytest

from modularity.errors import StoreError
from modularity.pipelines import EmergentModularityConfig
from modularity.pipelines.config import ExpertsConfig, OverlapConfig
from modularity.pipelines.layout import (
    PREDICTIVITY_ARRAYS,
    create_partition,
    listed_neurons,
    partition_bytes,
    predictivity_bytes,
)
from modularity.pipelines.prepare import prepare
from modularity.store import Run
from modularity.types import PARTITION, Site, SiteShape


def test_arrays_have_the_dtypes_and_meanings_of_the_layout(finished: Run) -> None:
    results = finished.results("words")
    assert set(results.data_vars) == {*PREDICTIVITY_ARRAYS, "q_value", "null_max", "null_top", "null_top_value"}
    for name, (dtype, meaning) in PREDICTIVITY_ARRAYS.items():
        assert (results[name].dims, str(results[name].dtype)) == (("subfunction", "layer", "neuron"), dtype)
        assert results[name].attrs["long_name"] == meaning
    assert results["null_max"].dims == ("subfunction", "layer", "block", "permutation")


def test_bytes_are_those_of_the_arrays(finished: Run, config: EmergentModularityConfig) -> None:
    shape = prepare(config).analysed
    assert shape is not None
    stored = sum(values.nbytes for values in finished.results("topics").data_vars.values())
    n_listed = listed_neurons(shape, config.experts)
    assert n_listed == 20
    assert predictivity_bytes(2, shape, config.predictivity, n_listed=n_listed) == stored
    without = predictivity_bytes(2, shape, config.predictivity)
    assert stored - without == sum(finished.results("topics")[name].nbytes for name in ("null_top", "null_top_value"))
    assert partition_bytes(shape, config.experts) == finished.results(PARTITION)["expert"].nbytes


def test_narrow_layers_end_in_nan(uneven: Run) -> None:
    results = uneven.results("words")
    assert (results["layer"].values.tolist(), results["width"].values.tolist()) == ([0, 2], [160, 60])
    for name in (*PREDICTIVITY_ARRAYS, "q_value"):
        values_SLF = results[name].values
        if name == "polarity":
            assert (values_SLF[:, 1, 60:] == 0).all()
            assert (values_SLF[:, 1, :60] != 0).all()
        else:
            assert np.isnan(values_SLF[:, 1, 60:]).all(), name
            assert np.isfinite(values_SLF[:, 1, :60]).all(), name
        assert np.isfinite(values_SLF[:, 0]).all(), name
    assert np.isneginf(results["null_max"].values[:, 1, 1:]).all()
    assert (uneven.results(PARTITION)["expert"].values[0, 1, 60:] == -1).all()


def test_allocating_again_changes_nothing_and_another_shape_is_refused(
    finished: Run, config: EmergentModularityConfig
) -> None:
    shape = prepare(config).analysed
    assert shape is not None
    before = finished.content_hash()
    create_partition(finished, shape, config.experts)
    assert finished.content_hash() == before
    with pytest.raises(StoreError, match="partition"):
        create_partition(finished, shape, config.experts.replace(n_experts=4))


def test_lists_are_as_long_as_the_longer_of_experts_and_overlap() -> None:
    shape = SiteShape(Site("encoder", "ffn.neurons"), (0, 1), (100, 60), ("neuron",), (100,))
    experts = ExpertsConfig(top_fraction=0.05)
    found = [listed_neurons(shape, experts, OverlapConfig(top_fraction=fraction)) for fraction in (0.02, 0.05, 0.2)]
    assert found == [5, 5, 20]
    assert listed_neurons(shape, experts) == 5
