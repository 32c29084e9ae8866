"""Change the activations of chosen neurons while a model runs.

Source: Zhang et al. 2023, arXiv 2305.18390, Fig. 2. A hook before each FFN out-projection replaces the values of the
chosen neurons by what a `Noise` makes of them; everything after is computed by the model itself. Neurons that are not
chosen, and padding, keep their values (`Shuffle` as released changes padding too). In layers made of experts, whose
neurons are those of all experts one after the other, only the experts that process a token are changed for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.utils.hooks import RemovableHandle

from modularity.errors import InputError, SiteError
from modularity.interventions.context import BatchContent, BatchContext, digest
from modularity.interventions.noise import Noise, Place
from modularity.models import ExpertTap, LoadedModel, Tap
from modularity.types import Site, SiteShape

Masks = Mapping[Site, np.ndarray]


@contextmanager
def perturbed(model: LoadedModel, masks: Masks | ArrayLike, noise: Noise, *, seed: int = 0) -> Iterator[None]:
    """Within this context the chosen neurons of `model` are noisy, however the model is called.

    The model may be the base of one with a head: calls of the head model are changed too. It has to be called with
    `input_ids`, and with a two-dimensional `attention_mask` where there is padding. Hooks are gone afterwards, also
    after an error.

    Parameters
    ----------
    model : a loaded model
    masks : chosen neurons: for each site `ffn.neurons` a bool array of shape (n_layers, n_neurons) over all layers of
        its stack, in narrower layers False beyond the end; or one such array, for the first stack
    noise : what their values become
    seed : random state. With one seed the same batch gives the same values, whatever was computed before

    Raises
    ------
    InputError
        A mask or the noise does not fit the model, or the model is called without token ids.
    SiteError
        The model ran, and a hooked layer did not.
    """
    masks_of = checked_masks(model, masks)
    for site in masks_of:
        shape = model.sites.shape(site)
        noise.check(len(shape.layers), max(shape.widths))
    context = BatchContext(model)
    changes = [
        _change(tap, np.flatnonzero(mask_LF[tap.layer]), noise, context, seed)
        for site, mask_LF in masks_of.items()
        for tap in model.sites.taps(site)
        if mask_LF[tap.layer].any()
    ]
    with ExitStack() as handles:
        for handle in context.attach():
            handles.callback(handle.remove)
        for change in changes:
            handles.callback(change.attach().remove)
        yield
    for change in changes:
        change.refuse_silence()


def checked_masks(model: LoadedModel, masks: Masks | ArrayLike) -> dict[Site, np.ndarray]:
    """Masks by site, each checked against the model; InputError as for `perturbed`."""
    if not isinstance(masks, Mapping):
        masks = {Site(model.sites.stacks[0], "ffn.neurons"): np.asarray(masks)}
    for site, mask_LF in masks.items():
        if site.name != "ffn.neurons":
            raise InputError(f"site {str(site)!r}: expected ffn.neurons of a stack, other sites hold no neurons")
        _check_mask(model.sites.shape(site), np.asarray(mask_LF))
    return {site: np.asarray(mask_LF) for site, mask_LF in masks.items()}


def _check_mask(shape: SiteShape, mask_LF: np.ndarray) -> None:
    expected = (len(shape.layers), max(shape.widths))
    if mask_LF.shape != expected or mask_LF.dtype != np.bool_:
        raise InputError(
            f"mask for {shape.site} has shape {mask_LF.shape} and dtype {mask_LF.dtype}: expected bool of shape "
            f"{expected}, all layers of the stack"
        )
    beyond = [layer for layer, width in zip(shape.layers, shape.widths) if mask_LF[layer, width:].any()]
    if beyond:
        raise InputError(f"mask for {shape.site} chooses neurons that layers {beyond} do not have; see their widths")


class _Change(ABC):
    """The hook on one layer."""

    def __init__(self, tap: Tap, columns_M: np.ndarray, noise: Noise, context: BatchContext, seed: int) -> None:
        self._tap, self._columns_M, self._noise, self._context = tap, columns_M, noise, context
        self._site_seed = (seed, 0 if tap.site.stack == "encoder" else 1)
        self._n_fired = 0

    @abstractmethod
    def attach(self) -> RemovableHandle:
        """Put the hook on."""

    def refuse_silence(self) -> None:
        """SiteError if the stack ran and this layer did not."""
        if self._context.n_batches[self._tap.site.stack] and not self._n_fired:
            raise SiteError(
                f"{self._tap.site} of layer {self._tap.layer}: module {self._tap.path!r} did not run, so nothing was "
                f"changed there; check its row of the site table"
            )

    def _batch(self, n_positions: int) -> BatchContent:
        """The batch that is being computed, which this layer receives as `n_positions` positions."""
        self._n_fired += 1
        content = self._context.content(self._tap.site.stack)
        if n_positions != content.real_BT.size:
            raise SiteError(
                f"{self._tap.site} of layer {self._tap.layer}: {n_positions} positions, the batch has "
                f"{content.real_BT.size}; the module runs more often than once per forward"
            )
        return content

    def _noisy(
        self,
        flat_RF: torch.Tensor,
        content: BatchContent,
        rows_R: np.ndarray,
        columns_M: np.ndarray,
        *,
        expert: int = -1,
        first_column: int = 0,
    ) -> torch.Tensor:
        """Copy of `flat_RF`, whose rows are the positions `rows_R` of the batch, with noise in chosen columns."""
        place = _place(content, rows_R, self._tap.layer, self._site_seed, columns_M, expert, first_column)
        wanted = np.arange(len(rows_R)) if self._noise.includes_padding else np.flatnonzero(place.is_real_R)
        rows, columns = (torch.from_numpy(index).to(flat_RF.device) for index in (wanted, columns_M))
        new_RM = self._noise.replace(flat_RF[rows[:, None], columns].float(), place.at(wanted))
        copy_RF = flat_RF.clone()
        copy_RF[rows[:, None], columns] = new_RM.to(flat_RF.dtype)
        return copy_RF


class _DenseChange(_Change):
    """On the out-projection of a dense FFN: its input is replaced."""

    def attach(self) -> RemovableHandle:
        """See `_Change.attach`."""
        return self._tap.module.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = self._tap.from_input(args, kwargs)
        flat_RF = values.reshape(-1, values.shape[-1])
        content = self._batch(len(flat_RF))
        new = self._noisy(flat_RF, content, np.arange(len(flat_RF)), self._columns_M).reshape(values.shape)
        if args:
            return (new, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": new}


class _ExpertChange(_Change):
    """On the experts of a sparse FFN: what the changed neurons write is added to their output, the old is taken away.

    Values are exchanged within an expert only, and only those of tokens that the expert processes are changed.
    """

    def __init__(self, tap: ExpertTap, columns_M: np.ndarray, noise: Noise, context: BatchContext, seed: int) -> None:
        super().__init__(tap, columns_M, noise, context, seed)
        assert tap.experts is not None
        self._expert_tap, self._width = tap, tap.experts.width
        self._is_chosen_E = np.bincount(columns_M // self._width, minlength=tap.experts.n_experts) > 0

    def attach(self) -> RemovableHandle:
        """See `_Change.attach`."""
        return self._tap.module.register_forward_hook(self._after, with_kwargs=True)

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor) -> Any:
        routed = self._expert_tap.read(args, kwargs)
        content = self._batch(len(routed.hidden_ND))
        chosen_E = torch.from_numpy(self._is_chosen_E).to(routed.device)
        routed = replace(routed, choices_NE=routed.choices_NE & chosen_E)
        change_ND = torch.zeros_like(output, dtype=torch.float32)
        for expert, tokens_M, values_MF in routed.parts():
            first = expert * self._width
            columns = self._columns_M[self._columns_M // self._width == expert] - first
            rows = tokens_M.cpu().numpy()
            new_MF = self._noisy(values_MF, content, rows, columns, expert=expert, first_column=first)
            written_MD, before_MD = (routed.experts.project(expert, values).float() for values in (new_MF, values_MF))
            weight_M1 = routed.weights_NE[tokens_M, expert, None].float()
            change_ND[tokens_M] += ((written_MD - before_MD) * weight_M1).to(change_ND.device)
        return (output.float() + change_ND).to(output.dtype)


def _change(tap: Tap, columns_M: np.ndarray, noise: Noise, context: BatchContext, seed: int) -> _Change:
    if tap.chunk_tokens:
        raise InputError(
            f"chunk_size_feed_forward={tap.chunk_tokens}: the FFN sees a batch in slices, noise needs it whole; set it "
            f"to 0 in the model's config"
        )
    if isinstance(tap, ExpertTap):
        return _ExpertChange(tap, columns_M, noise, context, seed)
    return _DenseChange(tap, columns_M, noise, context, seed)


def _place(
    content: BatchContent,
    rows_R: np.ndarray,
    layer: int,
    site_seed: tuple[int, int],
    columns_M: np.ndarray,
    expert: int,
    first_column: int,
) -> Place:
    """Place of the positions `rows_R` (example * T + position) of a batch."""
    example_R, position_R = np.divmod(rows_R, content.real_BT.shape[1])
    ordinal_BT = np.maximum(content.real_BT.cumsum(axis=1) - 1, 0)
    return Place(
        content=content,
        example_R=example_R,
        ordinal_R=ordinal_BT[example_R, position_R],
        is_real_R=content.real_BT[example_R, position_R],
        layer=layer,
        expert=None if expert < 0 else expert,
        stream=digest((*site_seed, layer, expert)),
        shared_stream=digest(site_seed),
        columns_M=columns_M,
        first_column=first_column,
    )
