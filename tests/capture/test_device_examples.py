"""Keys order values and examples as one number; label sums are those of NumPy."""

import numpy as np
import torch

from modularity.capture.device_examples import DeviceLabelSums, DeviceTopExamples, make_keys, read_keys
from modularity.capture.token_parts import TokenPart
from modularity.stats import LabelSums


def test_keys_order_by_value_and_then_by_the_lower_example() -> None:
    values = torch.tensor([-3e38, -2.0, -1e-40, -0.0, 0.0, 1e-40, 5.0, 5.0, 3e38])
    examples = torch.tensor([0, 1, 2, 9, 3, 4, 2**32 - 1, 7, 8])
    keys = make_keys(values, examples)
    order = sorted(range(9), key=lambda i: (values[i].item(), -examples[i].item()))
    assert torch.argsort(keys).tolist() == order
    found, ids = read_keys(keys)
    assert torch.equal(found, values + 0.0)
    assert ids.tolist() == examples.tolist()


def test_lists_keep_examples_of_later_batches_and_lower_ids() -> None:
    top = DeviceTopExamples(1, 2, torch.device("cpu"))
    for ids, values in (([8, 3], [1.0, 2.0]), ([5, 1], [2.0, 1.0])):
        part = TokenPart(torch.tensor(values)[:, None], 0, torch.arange(2), torch.tensor([4, 6]), 2)
        top.add(part, torch.tensor(ids))
    found = top.finish()
    assert found.example.tolist() == [[3, 5]]
    assert found.position.tolist() == [[6, 4]]
    assert found.value.tolist() == [[2.0, 2.0]]


def test_label_sums_are_those_of_numpy_to_float64() -> None:
    generator = np.random.default_rng(0)
    device, wanted = DeviceLabelSums(2, 3, torch.device("cpu")), LabelSums.empty(2, 3)
    for n_rows in (1, 4, 9):
        rows = generator.standard_normal((n_rows, 3)) + 1e4
        labels = generator.integers(-1, 2, (2, n_rows))
        weights = np.stack([labels == 0, labels == 1], axis=1).reshape(4, n_rows)
        device.add(torch.from_numpy(rows), torch.from_numpy(weights.astype(float)), weights.sum(1))
        wanted.update(rows, labels)
    for name, array in wanted.arrays().items():
        np.testing.assert_allclose(device.finish().arrays()[name], array, rtol=1e-12, atol=1e-12)
