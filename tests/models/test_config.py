"""Bad model configs, and what is said about them."""

import subprocess
import sys
from typing import Any

import pytest

from modularity.config import validate_config
from modularity.errors import InputError
from modularity.models import ModelConfig


def test_defaults_force_nothing() -> None:
    config = ModelConfig(name="gpt2")
    assert (config.dtype, config.attention, config.device_map, config.matmul) == ("auto", None, None, "auto")
    assert (config.allow_pickle, config.trust_remote_code, config.weights) == (False, False, "pretrained")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "name: required and missing"),
        ({"name": ""}, "name='': .*at least 1 character"),
        ({"name": "m", "dtype": "int8"}, "dtype='int8': .*'auto', 'float32', 'bfloat16' or 'float16'"),
        ({"name": "m", "device": "gpu"}, "device='gpu': "),
        ({"name": "m", "device": "cuda:x"}, "device='cuda:x': "),
        (
            {"name": "m", "device": "cuda:1", "device_map": "auto"},
            "device='cuda:1' and device_map='auto' exclude each other",
        ),
        ({"name": "m", "seed": -1}, "seed=-1: "),
        ({"name": "m", "weights": "pickled"}, "weights='pickled': .*'pretrained' or 'random'"),
        ({"name": "m", "matmul": "mkl"}, "matmul='mkl': .*'auto', 'highest' or 'onednn'"),
        ({"name": "m", "fp16": True}, "fp16: unknown key; remove it"),
    ],
)
def test_problems(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate_config(ModelConfig, values)


def test_configs_need_no_torch() -> None:
    code = "import sys; from modularity.models import ModelConfig as M; M(name='m'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_in_the_package() -> None:
    import modularity.models as models

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = models.nothing
    assert all(getattr(models, name) is not None for name in models.__all__)
