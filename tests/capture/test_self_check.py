import dataclasses

import pytest
import torch

from modularity.capture.self_check import check_projection
from modularity.errors import SiteError


@pytest.fixture
def tap(tiny, neurons):
    model = tiny("opt")
    return model.sites.taps(neurons(model))[1]


@torch.no_grad()
def test_the_right_projection_passes_and_a_wrong_one_is_named(tap):
    captured = torch.randn(2, 5, 48)
    output = tap.module(captured)
    check_projection(tap, captured, output)
    with pytest.raises(SiteError, match=r"decoder/ffn.neurons layer 1: .* differs from the output of .*fc2 by .*32"):
        check_projection(tap, captured, output * 1.001)
    with pytest.raises(SiteError, match=r"has shape \(2, 5, 32\), but .*fc2 returned \(2, 4, 32\)"):
        check_projection(tap, captured, output[:, :4])


@torch.no_grad()
def test_tolerance_follows_the_dtype(tap):
    tap.module.bfloat16()
    captured = torch.randn(2, 5, 48, dtype=torch.bfloat16)
    output = tap.module(captured)
    check_projection(tap, captured, output * 1.01)
    with pytest.raises(SiteError, match=r"bfloat16"):
        check_projection(tap, captured, output * 1.1)


@torch.no_grad()
def test_positions_that_are_not_finite_are_left_to_the_numeric_check(tap):
    captured = torch.randn(2, 5, 48)
    captured[0, 0] = torch.nan
    output = tap.module(captured)
    check_projection(tap, captured, output)
    with pytest.raises(SiteError, match="differs"):
        check_projection(tap, captured, output * 2)
    check_projection(tap, captured * torch.nan, output * torch.nan)


@torch.no_grad()
def test_weights_kept_elsewhere_are_reached_through_the_module(tap):
    captured = torch.randn(2, 5, 48)
    output = tap.module(captured)
    away = torch.nn.Linear(48, 32, device="meta")
    away.forward = lambda values: tap.module(values)
    check_projection(dataclasses.replace(tap, module=away), captured, output)
