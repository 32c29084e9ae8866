"""Numbers that cannot be stored are refused with site, layer, rows and remedy, on the host and through the ring."""

import numpy as np
import pytest
import torch

from modularity.errors import NumericError
from modularity.store import bfloat16_from_bits


def test_nan_is_refused_with_the_rows_that_hold_it(tiny, batch_of, run, n_hooks):
    model = tiny("opt")
    batch = batch_of([4, 4, 4], first_row=100)
    batch.input_ids_BT[1, 2] = 96
    batch.input_ids_BT[batch.input_ids_BT == 96] = 50
    batch.input_ids_BT[1, 2] = 96
    model.module.decoder.embed_tokens.weight.data[96] = torch.nan
    with pytest.raises(NumericError, match=r"layer 0: .* values are NaN or infinite; 1 rows \(101\), first at unit 0;"):
        run(model, [batch], n_rows=3, row_start=100, layers=[0])
    assert n_hooks(model) == 0


@pytest.mark.parametrize("pooled", [True, False])
def test_float16_overflow_is_an_error_with_value_rows_and_remedy(tiny, batch_of, pooled, run, neurons):
    model = tiny("opt")
    model.module.decoder.layers[1].fc1.bias.data[5] = 70000.0
    batch = batch_of([4, 4], first_row=10, pooled=pooled)
    n_rows = 2 if pooled else 8
    rows = r"2 rows \(10, 11\)" if pooled else r"8 rows \(10, 11, 12, 13, 14 …\)"
    message = (
        rf"decoder/ffn.neurons layer 1: 7000\d(\.\d)? does not fit float16.*{rows}, first at unit 5; store as bfloat16"
    )
    arguments = {"n_rows": n_rows, "row_start": 10, "reduction": "max" if pooled else None}
    with pytest.raises(NumericError, match=message):
        run(model, [batch], dtype="float16", **arguments)
    out, _ = run(model, [batch], dtype="bfloat16", **arguments)
    assert np.isfinite(bfloat16_from_bits(out[neurons(model)])).all()
