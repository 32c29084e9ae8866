"""Statistics over examples on the device of the values: the top examples of each neuron, and sums by label."""

from dataclasses import replace

import numpy as np
import torch

from modularity.capture.device_sums import to_host
from modularity.capture.token_parts import TokenPart, example_maxima, largest_values
from modularity.stats import LabelSums, TopExamples

_ID_BITS = 32
_LARGEST_ID = 2**_ID_BITS - 1
_NONE = -(2**63)


class DeviceTopExamples:
    """Twin of `TopExamples`.

    Value and example are one integer: the upper 32 bits order the values, the lower ones let the lower example win.
    Such keys are unique, so that the largest k of them are the same on every device and in every order.
    """

    def __init__(self, n_neurons: int, k: int, device: torch.device) -> None:
        self._key_FK = torch.full((n_neurons, k), _NONE, dtype=torch.int64, device=device)
        self._position_FK = torch.full((n_neurons, k), -1, dtype=torch.int32, device=device)

    def add(self, part: TokenPart, example_B: torch.Tensor) -> None:
        """Add the largest values of the examples of a part; `example_B` are their ids, below 2**32."""
        columns: slice | torch.Tensor = part.columns
        if part.values_MF.device.type == "cpu":
            # Of many examples few enter a list: positions are sought only where one does.
            best_F = make_example_keys(largest_values(part), example_B).amax(0)
            entered = (best_F > self._key_FK[columns, -1]).nonzero()[:, 0]
            if len(entered) == 0:
                return
            columns = part.first + entered
            if len(entered) < part.values_MF.shape[1]:
                part = replace(part, values_MF=part.values_MF[:, entered])
        value_BF, position_BF = example_maxima(part)
        key_FX = torch.cat([self._key_FK[columns], make_example_keys(value_BF, example_B).T], dim=1)
        position_FX = torch.cat([self._position_FK[columns], position_BF.T], dim=1)
        key_FK, place_FK = key_FX.topk(self._key_FK.shape[1], dim=1)
        self._key_FK[columns] = key_FK
        self._position_FK[columns] = position_FX.gather(1, place_FK)

    def finish(self) -> TopExamples:
        """The state as a NumPy accumulator."""
        value_FK, example_FK = read_keys(self._key_FK)
        present_FK = self._key_FK != _NONE
        return TopExamples(
            to_host(torch.where(present_FK, value_FK, -torch.inf)),
            to_host(torch.where(present_FK, example_FK, -1)),
            to_host(torch.where(present_FK, self._position_FK, -1)),
        )


def make_example_keys(value_BF: torch.Tensor, example_B: torch.Tensor) -> torch.Tensor:
    """Keys of the values of some examples; the lowest key of all where a value is -inf: no token."""
    return torch.where(torch.isneginf(value_BF), _NONE, make_keys(value_BF, example_B[:, None]))


def make_keys(values: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
    """int64 keys that ascend with the value as float32 and, for equal values, descend with the example."""
    # Bits of positive floats ascend with them as integers; those of negative floats descend. -0 + 0 is 0.
    bits = (values.float() + 0.0).view(torch.int32)
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)
    return (ordered.long() << _ID_BITS) | (_LARGEST_ID - examples)


def read_keys(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values, float32, and examples of keys."""
    ordered = (keys >> _ID_BITS).to(torch.int32)
    bits = torch.where(ordered >= 0, ordered, ordered ^ 0x7FFFFFFF)
    return bits.view(torch.float32), _LARGEST_ID - (keys & _LARGEST_ID)


class DeviceLabelSums:
    """Twin of `LabelSums`, in float64."""

    def __init__(self, n_subfunctions: int, n_neurons: int, device: torch.device) -> None:
        shape = (2 * n_subfunctions, n_neurons)
        self._count_X = np.zeros(2 * n_subfunctions, np.int64)
        self._mean_XF = torch.zeros(shape, dtype=torch.float64, device=device)
        self._squares_XF = torch.zeros_like(self._mean_XF)

    def add(self, rows_BF: torch.Tensor, weights_XB: torch.Tensor, count_X: np.ndarray) -> None:
        """Add one row for each example.

        Parameters
        ----------
        rows_BF : pooled values
        weights_XB : float64, X = 2 S: 1 where an example has label 0, or label 1, of a sub-function, else 0
        count_X : int64, on the host: its row sums
        """
        rows_BF = rows_BF.double()
        centre_F = rows_BF.mean(0)
        rows_BF = rows_BF - centre_F
        # As float64: torch divides integers in float32.
        count_X1 = torch.from_numpy(count_X[:, None]).to(rows_BF.device).double()
        divisor_X1 = count_X1.clamp(min=1)
        shift_XF = weights_XB @ rows_BF / divisor_X1
        squares_XF = (weights_XB @ rows_BF.square() - divisor_X1 * shift_XF.square()).clamp_(min=0)
        # Chan's merge; a label without rows in this batch has share 0 and changes nothing.
        before_X1 = torch.from_numpy(self._count_X[:, None]).to(rows_BF.device).double()
        share_X1 = count_X1 / (before_X1 + count_X1).clamp(min=1)
        difference_XF = shift_XF + centre_F - self._mean_XF
        self._squares_XF += squares_XF + difference_XF.square() * (before_X1 * share_X1)
        self._mean_XF += difference_XF * share_X1
        self._count_X = self._count_X + count_X

    def finish(self) -> LabelSums:
        """The state as a NumPy accumulator."""
        n_subfunctions = len(self._count_X) // 2
        mean, squares = (to_host(each).reshape(n_subfunctions, 2, -1) for each in (self._mean_XF, self._squares_XF))
        return LabelSums(self._count_X.reshape(n_subfunctions, 2), mean, squares)
