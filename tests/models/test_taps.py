"""What a tap takes from arguments and outputs, and what it refuses."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from modularity.errors import SiteError
from modularity.models import Tap, firing_order
from modularity.models.taps import linear_weight
from modularity.types import Site


def tap(module: nn.Module, side: str = "input", **changes: object) -> Tap:
    site = Site("decoder", "ffn.neurons" if side == "input" else "residual")
    fields = {
        "layer": 2,
        "path": "layers.2.out",
        "width": 3,
        "unit_shape": (3,),
        "dtype": torch.float32,
        "order": (0, 2, 3),
    }
    return Tap(site=site, module=module, side=side, **{**fields, **changes})  # type: ignore[arg-type]


def test_input_by_position_or_by_name() -> None:
    value, mask = torch.zeros(2, 4, 3), torch.zeros(2, 4)
    block = tap(nn.Identity())
    assert block.from_input((value, mask), {}) is value
    assert block.from_input((), {"attention_mask": mask, "hidden_states": value}) is value


def test_output_as_tensor_or_tuple() -> None:
    value = torch.zeros(2, 4, 3)
    block = tap(nn.Identity(), "output")
    assert block.from_output(value) is value
    assert block.from_output((value, None)) is value


def test_anything_else_is_refused() -> None:
    block = tap(nn.Identity(), "output")
    expected = (
        r"decoder/residual of layer 2: module 'layers.2.out' was called with an output of type {}, shape {}; expected"
    )
    for output, kind, shape in (
        ((), "tuple", "None"),
        (None, "NoneType", "None"),
        (torch.zeros(2, 5), "Tensor", r"\[2, 5\]"),
        (torch.tensor(1.0), "Tensor", r"\[\]"),
    ):
        with pytest.raises(SiteError, match=expected.format(kind, shape)):
            block.from_output(output)
    with pytest.raises(SiteError, match=r"arguments 0 positional and \['attention_mask'\] by name, shape None"):
        tap(nn.Identity()).from_input((), {"attention_mask": torch.zeros(2)})


@pytest.mark.parametrize("bias", [True, False])
def test_project_is_the_module_without_its_hooks(bias: bool) -> None:
    module = nn.Linear(3, 5, bias=bias)
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    value = torch.randn(4, 3)
    assert torch.equal(
        tap(module, check="linear").project(value), nn.functional.linear(value, module.weight, module.bias)
    )
    assert calls == []


def test_project_with_transposed_weights() -> None:
    module = Conv1D(5, 3)
    value = torch.randn(2, 4, 3)
    torch.testing.assert_close(tap(module, check="linear").project(value), module(value))


def test_project_needs_a_linear_check() -> None:
    with pytest.raises(SiteError, match="decoder/residual of layer 2 is not the input of an out-projection"):
        tap(nn.Identity(), "output").project(torch.zeros(1, 3))


def test_attached_hooks_return_none_and_can_be_removed() -> None:
    module = nn.Linear(3, 3)
    seen: list[torch.Tensor] = []
    handles = [tap(module).attach(seen.append), tap(module, "output").attach(seen.append)]
    value = torch.randn(1, 3)
    expected = nn.functional.linear(value, module.weight, module.bias)
    assert torch.equal(module(value), expected)
    assert torch.equal(seen[0], value)
    assert torch.equal(seen[1], expected)
    for handle in handles:
        handle.remove()
    module(value)
    assert len(seen) == 2


def test_a_receiver_that_returns_something_changes_nothing() -> None:
    module = nn.Linear(3, 3)
    tap(module).attach(lambda value: value * 0)  # type: ignore[arg-type,return-value]
    value = torch.randn(1, 3)
    assert torch.equal(module(value), nn.functional.linear(value, module.weight, module.bias))


def test_firing_order_sorts_over_sites() -> None:
    module = nn.Identity()
    taps = [tap(module, order=order) for order in ((1, 0, 0), (0, 1, 3), (0, 0, 5), (0, 1, 1))]
    assert [each.order for each in firing_order(taps)] == [(0, 0, 5), (0, 1, 1), (0, 1, 3), (1, 0, 0)]


def test_weights_of_what_is_not_a_plain_projection() -> None:
    quantised = nn.Linear(2, 2)
    del quantised.weight
    quantised.weight = torch.zeros(2, 2, dtype=torch.int8)  # type: ignore[assignment]
    for module, kind in ((nn.LayerNorm(2), "LayerNorm"), (quantised, "Linear")):
        with pytest.raises(SiteError, match=rf"'x.y' is a {kind}, expected a linear projection .*quantised"):
            linear_weight(module, "x.y")
