import pytest

from modularity.capture import CaptureConfig
from modularity.config import validate_config
from modularity.errors import InputError
from modularity.types import Site


def test_defaults_are_all_ffn_neurons_in_float32():
    config = CaptureConfig()
    assert config.resolved_sites("encoder") == (Site("encoder", "ffn.neurons"),)
    assert (config.dtype, config.layers, config.rows_per_item) == ("float32", None, None)


def test_all_problems_are_listed_at_once():
    values = {"sites": ["ffn.neuron"], "dtype": "int8", "rows_per_item": 100, "tokens_per_batch": 0, "layer": 1}
    with pytest.raises(InputError) as error:
        validate_config(CaptureConfig, values)
    text = "\n".join(error.value.problems)
    assert len(error.value.problems) == 5
    assert "sites=['ffn.neuron']: site 'ffn.neuron' is not known: expected one of ffn.neurons" in text
    assert "rows_per_item=100: Input should be a multiple of 128" in text
    assert "layer: unknown key" in text


@pytest.mark.parametrize("layers", [[], [2, 1], [1, 1], [-1, 0]])
def test_layers_must_ascend(layers):
    with pytest.raises(InputError, match="expected at least one, from 0 up, ascending"):
        validate_config(CaptureConfig, {"layers": layers})


def test_the_same_site_twice_is_refused():
    with pytest.raises(InputError, match="expected each site only once"):
        validate_config(CaptureConfig, {"sites": ["residual", "residual"]})
    config = CaptureConfig(sites=("ffn.neurons", "decoder/ffn.neurons"))
    with pytest.raises(InputError, match="two names mean the same site"):
        config.resolved_sites("decoder")
    assert len(config.resolved_sites("encoder")) == 2


def test_config_survives_json():
    config = CaptureConfig(sites=("residual",), layers=(0, 2), dtype="bfloat16")
    assert validate_config(CaptureConfig, config.as_json()) == config


def test_variant_of_expert_neurons():
    assert CaptureConfig().expert_variant == "corrected"
    assert CaptureConfig(expert_variant="released").expert_variant == "released"
    with pytest.raises(InputError, match="'corrected' or 'released'"):
        validate_config(CaptureConfig, {"expert_variant": "paper"})
