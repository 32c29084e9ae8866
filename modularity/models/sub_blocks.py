"""One attention or FFN of a live model, without residual, as a function of its input over all positions, in float64.

`record_sub_blocks` notes, during one forward of one text, what enters each sub-block, what leaves it, and with which
other arguments (masks, rotary angles, position biases) its attention is called. `SubBlock` then computes the same with
float64 copies of the modules for any input, and refuses to exist where it does not reproduce what the model computed.
"""

from dataclasses import dataclass

import torch
from torch import nn

from modularity.errors import InputError, SiteError
from modularity.models.float64 import float64_copy, keep_float64
from modularity.models.loading import LoadedModel
from modularity.models.norm_pieces import NormPieces, norm_pieces
from modularity.models.sub_block_parts import SubBlockParts
from modularity.models.sub_block_recording import Recorded
from modularity.models.taps import linear_weight

Tensor = torch.Tensor
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
"""Largest difference to what the model computed in its own dtype, as a share of its largest value. Softmax and norms of
many architectures are in float32 when the model is in float64, too."""


@dataclass(frozen=True, eq=False)
class FfnPieces:
    """A dense FFN at T inputs, taken apart: all that its Jacobian depends on, float64."""

    out_DF: Tensor
    in_FD: Tensor
    slope_TF: Tensor
    up_FD: Tensor | None
    gate_TF: Tensor | None
    before: NormPieces | None
    after: NormPieces | None


class SubBlock:
    """A sub-block in float64: a function from [T, D] to [T, D].

    Parameters
    ----------
    model : the model of the recording
    recorded : what this sub-block received and gave
    with_norm : with its norms, as a function of the residual stream; without, of what the norm gives
    shuffle_seed : permute the entries of every weight matrix of the sub-block: a control with the same weights in no
        order. Norms, biases and the input stay as they are

    Raises
    ------
    SiteError
        The copy does not reproduce what the model computed, within `TOLERANCE` of its dtype.
    """

    def __init__(
        self, model: LoadedModel, recorded: Recorded, *, with_norm: bool = True, shuffle_seed: int | None = None
    ) -> None:
        self.kind, self.layer = recorded.kind, recorded.layer
        live = SubBlockParts.of(model, recorded.kind, recorded.stack, recorded.layer)
        self._args, self._kwargs = recorded.args, recorded.kwargs
        self._before = None if live.before is None else float64_copy(live.before)
        self._after = None if live.after is None else float64_copy(live.after)
        inner = live.attention if live.attention is not None else live.gate
        assert inner is not None
        self._inner = float64_copy(inner)
        self._out = float64_copy(live.out) if live.attention is None or live.out_apart else None
        self._up = None if live.up is None else float64_copy(live.up)
        activation = live.activation
        self._activation = float64_copy(activation) if isinstance(activation, nn.Module) else activation
        self.error = self._check(recorded, live)
        self.inner_width = linear_weight(live.out, f"{live.place}.out").shape[1]
        if shuffle_seed is not None:
            self._shuffle(shuffle_seed)
        self.point_TD = recorded.input_TD
        if not with_norm:
            with keep_float64(), torch.no_grad():
                self.point_TD = recorded.input_TD if self._before is None else self._before(recorded.input_TD)
            self._before = self._after = None

    def __call__(self, input_TD: Tensor) -> Tensor:
        """Output for any input of the recorded length; differentiable."""
        with keep_float64():
            values_TD = input_TD if self._before is None else self._before(input_TD)
            values_TD = self._attend(values_TD) if self.kind == "attention" else self._ffn(values_TD)
            return values_TD if self._after is None else self._after(values_TD)

    @property
    def centring_norms(self) -> tuple[bool, bool]:
        """Whether a norm before, and one after, takes the mean away: each costs every token one direction."""
        with torch.no_grad():
            inner = self._without_after(self.point_TD)
            before = None if self._before is None else norm_pieces(self._before, self.point_TD)
            after = None if self._after is None else norm_pieces(self._after, inner)
        return before is not None and before.centred, after is not None and after.centred

    def ffn_pieces(self) -> FfnPieces:
        """The FFN at the recorded input, taken apart; InputError for attention."""
        if self.kind != "ffn" or self._out is None or self._activation is None:
            raise InputError("attention mixes positions, so its Jacobian has no blocks of single tokens; use products")
        with keep_float64():
            normed_TD = self.point_TD if self._before is None else self._before(self.point_TD)
            entry_TF = self._inner(normed_TD).detach().requires_grad_()
            with torch.enable_grad():
                active_TF = self._activation(entry_TF)
                (slope_TF,) = torch.autograd.grad(active_TF.sum(), entry_TF)
            active_TF = active_TF.detach()
            up_TF = None if self._up is None else self._up(normed_TD)
            output_TD = self._out(active_TF if up_TF is None else active_TF * up_TF)
        return FfnPieces(
            out_DF=linear_weight(self._out, "out-projection"),
            in_FD=linear_weight(self._inner, "in-projection"),
            slope_TF=slope_TF if up_TF is None else slope_TF * up_TF,
            up_FD=None if self._up is None else linear_weight(self._up, "linear projection"),
            gate_TF=None if self._up is None else active_TF,
            before=None if self._before is None else norm_pieces(self._before, self.point_TD),
            after=None if self._after is None else norm_pieces(self._after, output_TD),
        )

    def _without_after(self, input_TD: Tensor) -> Tensor:
        with keep_float64():
            values_TD = input_TD if self._before is None else self._before(input_TD)
            return self._attend(values_TD) if self.kind == "attention" else self._ffn(values_TD)

    def _attend(self, values_TD: Tensor) -> Tensor:
        found = self._inner(values_TD[None], *self._args, **self._kwargs)
        found = found[0] if isinstance(found, tuple) else found
        return (found if self._out is None else self._out(found))[0]

    def _ffn(self, values_TD: Tensor) -> Tensor:
        assert self._activation is not None
        assert self._out is not None
        hidden_TF = self._activation(self._inner(values_TD))
        out: Tensor = self._out(hidden_TF if self._up is None else hidden_TF * self._up(values_TD))
        return out

    def _check(self, recorded: Recorded, live: SubBlockParts) -> float:
        with torch.no_grad():
            found_TD = self(recorded.input_TD)
        size = float(recorded.output_TD.abs().max())
        error = float((found_TD - recorded.output_TD).abs().max()) / max(size, 1e-300)
        dtype = next(live.out.parameters()).dtype
        if not error <= TOLERANCE[dtype]:
            raise SiteError(
                f"{live.place}: the {self.kind} computed in float64 differs from what the model gave by {error:.1e} of "
                f"its largest value, allowed for {str(dtype).removeprefix('torch.')} is {TOLERANCE[dtype]:.0e}; the "
                "row of this architecture in modularity/models/sub_block_layouts.py does not fit this model"
            )
        return error

    def _shuffle(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for module in (self._inner, self._up, self._out):
            for parameter in () if module is None else module.parameters():
                if parameter.ndim >= 2:
                    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                    parameter.data = parameter.data.flatten()[order].reshape(parameter.shape)
