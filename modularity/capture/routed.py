"""Rows from the neurons of experts: reductions over the tokens that an expert processes, without the values in between.

A neuron of an expert has a value for a token only if the expert processes it. Maximum and mean run over these tokens of
an example; an example without any gets 0, and so does a single token. That is what the neuron adds to the residual
stream then, but not a measurement: `router.choices`, selected in the same way, is 0 exactly there.

Values come expert by expert (`RoutedNeurons.parts`) and are reduced at once: for 4,096 tokens of OLMoE the neurons of
all experts would take 1 GiB per layer in float32.
"""

from typing import Literal

import torch

from modularity.models import RoutedNeurons

ReductionKind = Literal["max", "mean"]


def pool_routed(values: RoutedNeurons, counted_BT: torch.Tensor, *, kind: ReductionKind) -> torch.Tensor:
    """Maximum or mean of every neuron over the tokens that count and that its expert processes, 0 without any.

    Parameters
    ----------
    values : neurons of B examples with T positions
    counted_BT : bool, positions that count, on the device of the values

    Returns
    -------
    pooled_BU : in the dtype of the values for a maximum, float32 (float64 for float64 values) for a mean
    """
    n_examples, n_positions, n_units = values.shape
    dtype = values.dtype
    if kind == "mean" and dtype != torch.float64:
        dtype = torch.float32
    shape = (n_examples, values.experts.n_experts, values.experts.width)
    out_BEF = torch.zeros(shape, dtype=dtype, device=values.device)
    for expert, token_M, values_MF in values.parts(counted_BT.reshape(-1)):
        example_M = token_M // n_positions
        if kind == "max":
            pooled_BF = _maximum(values_MF, example_M, n_examples)
        else:
            pooled_BF = _mean(values_MF.to(dtype), token_M, n_examples, n_positions)
        out_BEF[:, expert] = pooled_BF
    return out_BEF.view(n_examples, n_units)


def _maximum(values_MF: torch.Tensor, example_M: torch.Tensor, n_examples: int) -> torch.Tensor:
    index_MF = example_M[:, None].expand_as(values_MF)
    out_BF = values_MF.new_zeros((n_examples, values_MF.shape[1]))
    # Without `include_self` the zeros stay only where no token is.
    return out_BF.scatter_reduce_(0, index_MF, values_MF, "amax", include_self=False)


def _mean(values_MF: torch.Tensor, token_M: torch.Tensor, n_examples: int, n_positions: int) -> torch.Tensor:
    # Sums of scattered values would be formed in a varying order on CUDA; sums over an axis are not.
    spread_NF = values_MF.new_zeros((n_examples * n_positions, values_MF.shape[1]))
    spread_NF[token_M] = values_MF
    count_B = torch.zeros(n_examples * n_positions, dtype=values_MF.dtype, device=values_MF.device)
    count_B[token_M] = 1
    total_BF = spread_NF.view(n_examples, n_positions, -1).sum(1)
    return total_BF / count_B.view(n_examples, n_positions).sum(1, keepdim=True).clamp(min=1)


def gather_routed(values: RoutedNeurons, flat_G: torch.Tensor) -> torch.Tensor:
    """Neurons at tokens (example * T + position), (G, U), in the dtype of the values; 0 where an expert has none."""
    return values.tokens(flat_G).dense()[0]
