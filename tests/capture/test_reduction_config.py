"""Config of reductions, and their planned memory against the memory that they take."""

import pytest

from modularity.capture import ReductionConfig, reduction_bytes
from modularity.capture.reduction_config import REDUCTION_NAMES
from modularity.config import validate_config
from modularity.errors import InputError


def test_the_state_is_planned_to_the_byte() -> None:
    config = ReductionConfig(kinds=REDUCTION_NAMES, n_top=3, n_bins=4)
    planned = reduction_bytes(config, [48, 20], n_subfunctions=2)
    for name in REDUCTION_NAMES:
        real = sum(config.empty(name, width, n_subfunctions=2).nbytes for width in (48, 20))
        assert planned.by_kind[name] == real, name
    assert planned.state_bytes == sum(planned.by_kind.values())
    assert reduction_bytes(ReductionConfig(), [48]).state_bytes == 0


def test_kinds_come_in_one_order_and_once() -> None:
    assert ReductionConfig(kinds=("histogram", "moments")).kinds == ("moments", "histogram")
    with pytest.raises(InputError, match="expected each kind only once"):
        validate_config(ReductionConfig, {"kinds": ["moments", "moments"]})
    with pytest.raises(InputError, match="expected smallest below largest"):
        validate_config(ReductionConfig, {"smallest": 2.0, "largest": 1.0})


def test_co_activation_of_a_wide_layer_is_what_takes_memory() -> None:
    config = ReductionConfig(kinds=("moments", "co_activation"))
    planned = reduction_bytes(config, [10240] * 32)
    assert planned.by_kind["moments"] == 32 * 10240 * 40
    assert planned.by_kind["co_activation"] == 32 * (8 * 10240**2 + 8)
