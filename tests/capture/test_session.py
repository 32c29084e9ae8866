"""Deliberately broken site tables: each fault is named, and no hook stays behind."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from modularity.capture import Capturer
from modularity.errors import SiteError


class BrokenTable:
    """A site table with one tap changed."""

    def __init__(self, table, layer, **changes):
        self._table, self._layer, self._changes = table, layer, changes
        self.stacks = table.stacks

    def shape(self, site, layers=None):
        return self._table.shape(site, layers)

    def taps(self, site, layers=None):
        return tuple(
            dataclasses.replace(tap, **self._changes) if tap.layer == self._layer else tap
            for tap in self._table.taps(site, layers)
        )


def broken(model, layer, **changes):
    return dataclasses.replace(model, sites=BrokenTable(model.sites, layer, **changes))


class Scaled(nn.Linear):
    def forward(self, values):
        return 1.5 * super().forward(values)


def test_self_check_names_a_wrong_width(tiny, batch_of, run, n_hooks):
    model = tiny("opt")
    with pytest.raises(SiteError, match=r"decoder/ffn.neurons of layer 1: .*shape \[4, 48\]; expected .* last axis 47"):
        run(broken(model, 1, width=47), [batch_of([4])], n_rows=1)
    assert n_hooks(model) == 0


def test_self_check_names_a_wrong_dtype(tiny, batch_of, run):
    model = tiny("gpt2")
    message = (
        r"decoder/ffn.neurons layer 0 \(input of h.0.mlp.c_proj\): expected dtype torch.float16, seen torch.float32"
    )
    with pytest.raises(SiteError, match=message):
        run(broken(model, 0, dtype=torch.float16), [batch_of([4])], n_rows=1)


def test_self_check_names_a_shape_that_is_not_a_batch(tiny, batch_of, run):
    model = tiny("opt")
    with pytest.raises(SiteError, match=r"layer 2 .*expected shape \(2, positions, 48\), seen \(8, 48\)"):
        run(broken(model, 2, flattened=False), [batch_of([4, 4])], n_rows=2)


def test_silent_module_is_named(tiny, batch_of, run, n_hooks):
    model = tiny("opt")
    message = r"1 of 3 hooked modules did not fire .*: decoder/ffn.neurons layer 1 \(input of .*\): 0 of 4 positions"
    with pytest.raises(SiteError, match=message):
        run(broken(model, 1, module=nn.Linear(48, 32)), [batch_of([4])], n_rows=1)
    assert n_hooks(model) == 0


def test_module_that_falls_silent_after_the_first_batch_is_named(tiny, batch_of, run):
    model = tiny("opt")

    def batches():
        yield batch_of([4])
        model.module.decoder.layers[1].forward = lambda hidden_states, **_: hidden_states
        yield batch_of([4], first_row=1)

    with pytest.raises(SiteError, match=r"decoder/ffn.neurons layer 1 .*: 0 of 4 positions"):
        run(model, batches(), n_rows=2)


def test_module_that_fires_too_often_is_named(tiny, batch_of, run):
    model = tiny("opt")
    layers = model.module.decoder.layers
    layers[1].fc2 = layers[0].fc2
    with pytest.raises(SiteError, match=r"layer 0 .* fired for 8 positions, expected 4: the module runs more often"):
        run(model, [batch_of([4])], layers=[0, 2], n_rows=1)


def test_projection_that_does_not_reproduce_the_output_is_named(tiny, batch_of, run, n_hooks):
    model = tiny("opt")
    block = model.module.decoder.layers[2]
    scaled = Scaled(48, 32)
    scaled.load_state_dict(block.fc2.state_dict())
    block.fc2 = scaled
    wrong = dataclasses.replace(model, sites=type(model.sites)(model.module, model.sites.architecture))
    with pytest.raises(
        SiteError, match=r"decoder/ffn.neurons layer 2: the out-projection .* differs .* by .*, expected"
    ):
        run(wrong, [batch_of([4])], n_rows=1)
    assert n_hooks(model) == 0


def test_input_changed_by_a_later_hook_is_noticed(tiny, batch_of, neurons):
    model = tiny("gpt2")
    capturer = Capturer(model, [neurons(model)])
    late = []

    def batches():
        target = model.module.h[1].mlp.c_proj
        late.append(target.register_forward_pre_hook(lambda _, args: (args[0] * 0,)))
        yield batch_of([4])

    with pytest.raises(SiteError, match=r"layer 1: the out-projection"):
        capturer.capture(batches(), {neurons(model): np.zeros((1, 3, 48), np.float32)}, reduction="max")
    late[0].remove()
