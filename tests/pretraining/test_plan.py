"""The plan of a training: what it says is what is written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modularity.pretraining import PretrainConfig, plan_pretraining, pretrain


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_sizes_are_those_of_the_training(dtype: str, small: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    config = small(saved_dtype=dtype)
    plan, record = plan_pretraining(config), pretrain(config, tmp_path)
    assert plan.n_parameters == record.n_parameters
    assert plan.checkpoints == tuple(checkpoint.step for checkpoint in record.checkpoints)
    written = sum(path.stat().st_size for path in (tmp_path / "step00000012").iterdir())
    assert written == pytest.approx(plan.checkpoint_bytes, rel=0.25)
    assert plan.seconds > 0
    assert "4: 0, 2, 5, 12" in plan.text()
    assert f"{record.n_parameters:,} parameters" in plan.text()
