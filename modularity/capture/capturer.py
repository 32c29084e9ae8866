"""Live model to activation rows: exactly the wanted sites and layers, pooled or picked on the device, nothing kept.

Hooks are on the model only during `capture`, the forward ends after the last wanted tap, and no LM head runs. What is
captured equals a plain Hugging Face forward of the same batch; padding is never included. In models with experts the
tokens are counted that no expert processed because the chosen one was full.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from math import prod

import numpy as np
import torch

from modularity.capture.delivery import Deliver, RingDelivery, Target, deliver_on_host
from modularity.capture.forward import BatchForward
from modularity.capture.rows import RowLedger, select_rows
from modularity.capture.selection import ReductionKind, Selection, Values
from modularity.capture.session import TapSession
from modularity.capture.storage_dtype import tensor_view
from modularity.capture.transfer import CudaCopier, HostRing
from modularity.data import TokenBatch
from modularity.errors import DataError, InputError
from modularity.models import ExpertTap, ExpertVariant, LoadedModel, RoutedNeurons, Tap, firing_order
from modularity.types import Site, SiteShape, StackName, StorageDtype


@dataclass(frozen=True)
class CaptureStats:
    """What one call of `Capturer.capture` did."""

    n_examples: int
    n_rows: int
    n_tokens: int
    """Real tokens."""
    n_padded_tokens: int
    """Tokens computed, padding included."""
    n_batches: int
    seconds_forward: float
    """Forwards with hooks, selection and, on a CPU, the writing of rows; on CUDA the time to queue all this."""
    seconds_total: float
    """The whole call: forming batches, forwards, waiting for the last copies."""
    n_routed: int = 0
    """(real token, sparse layer) pairs that a router decided on, in captured layers of `ffn.neurons` and
    `router.choices`."""
    n_dropped: int = 0
    """Of these, the pairs that no expert processed, because the chosen one was full (Switch Transformers)."""

    def __add__(self, other: "CaptureStats") -> "CaptureStats":
        """Sums of all fields, for several work items."""
        sums = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        return CaptureStats(**sums)


class Capturer:
    """Captures some sites and layers of one loaded model.

    The first batch of its life checks the site table against the model: number of firings, width, dtype, and that the
    out-projection of what was captured gives the output of the hooked module. Not for use by several threads at once.

    Parameters
    ----------
    model : a loaded base model
    sites : the sites to capture, each once
    layers : layer coordinates for all of them; None = all layers of each site. For `residual` these are depths
    storage_dtype : dtype of the rows; values are computed in the model's own dtype
    expert_variant : neurons of experts only for the tokens that the expert processes (`corrected`), or of all experts
        for all tokens (`released`)

    Raises
    ------
    InputError
        No site, or the same site twice.
    SiteError
        The model does not have one of the sites or layers.
    """

    def __init__(
        self,
        model: LoadedModel,
        sites: Sequence[Site],
        *,
        layers: Sequence[int] | None = None,
        storage_dtype: StorageDtype = "float32",
        expert_variant: ExpertVariant = "corrected",
    ) -> None:
        if not sites or len(set(sites)) < len(sites):
            raise InputError(f"sites={[str(site) for site in sites]}: expected at least one site and each only once")
        self.shapes: dict[Site, SiteShape] = {site: model.sites.shape(site, layers) for site in sites}
        """What `capture` fills for each site."""
        self._module = model.module
        taps = firing_order(tap for site in sites for tap in model.sites.taps(site, layers))
        self._taps = tuple(replace(tap, variant=expert_variant) if isinstance(tap, ExpertTap) else tap for tap in taps)
        self._counted = _one_per_router(self._taps)
        self._forward = BatchForward(model, {site.stack for site in sites})
        self._storage_dtype: StorageDtype = storage_dtype
        self._ring = HostRing(CudaCopier()) if model.device.type == "cuda" else None
        self._is_checked = False
        self.last_rows = np.empty(0, np.int64)
        """Rows of the batch that ran last, or that failed."""

    def capture(
        self,
        batches: Iterable[TokenBatch],
        out: Mapping[Site, np.ndarray],
        row_start: int = 0,
        *,
        reduction: ReductionKind | None,
    ) -> CaptureStats:
        """Run the model over the batches and fill `out[site][row - row_start, layer index, *unit]`.

        Parameters
        ----------
        batches : batches that together deliver each row of `out` exactly once, in any order
        out : for each site of the capturer an array (n_rows, n_layers, *unit_shape) of the storage dtype, bfloat16 as
            uint16 bits; layers narrower than the widest end in NaN. After an error its contents are undefined
        row_start : global row of the first row of `out`
        reduction : `max` or `mean` over the pool mask of the batches; None = they say which positions to gather.
            For decoder sites of encoder-decoder models positions are decoder positions

        Returns
        -------
        stats : counts and times

        Raises
        ------
        SiteError
            A hooked module was silent, fired too often, or its values contradict the site table.
        NumericError
            A value is NaN or infinite, or does not fit the storage dtype; names site, layer and rows.
        DataError
            `out` does not fit, or rows are missing, doubled or outside.
        InputError
            The model is in training mode.
        """
        start = time.perf_counter()
        if self._module.training:
            raise InputError("the model is in training mode, its dropout would be captured; call module.eval() first")
        n_rows, targets = self._targets(out, row_start)
        ledger = RowLedger(row_start, n_rows)
        counts = _Counts()
        selections: dict[StackName, Selection] = {}
        masks: Mapping[StackName, np.ndarray] = {}
        with self._delivery() as deliver:

            def receive(index: int, values_BTU: Values) -> None:
                target = targets[index]
                if index in self._counted:
                    counts.add_routing(values_BTU, masks[target.tap.site.stack])
                deliver(target, values_BTU, selections[target.tap.site.stack])

            with TapSession(self._taps, receive) as session:
                for batch in batches:
                    masks = self._forward.masks(batch)
                    ledger.claim(batch.row_ids)
                    self.last_rows = np.asarray(batch.row_ids)
                    selections.update(
                        select_rows(batch, masks, reduction=reduction, row_start=row_start, source=self._forward.source)
                    )
                    counts.add(batch, self._run(session, batch, masks))
        ledger.close()
        return counts.stats(n_rows=n_rows, seconds_total=time.perf_counter() - start)

    def _run(self, session: TapSession, batch: TokenBatch, masks: Mapping[StackName, np.ndarray]) -> float:
        start = time.perf_counter()
        extents = {stack: (mask.shape[0], mask.shape[1]) for stack, mask in masks.items()}
        with torch.inference_mode():
            session.run(lambda: self._forward(batch), extents, self_check=not self._is_checked)
        self._is_checked = True
        return time.perf_counter() - start

    @contextmanager
    def _delivery(self) -> Iterator[Deliver]:
        if self._ring is None:
            yield deliver_on_host
        else:
            with self._ring as ring:
                yield RingDelivery(ring)

    def _targets(self, out: Mapping[Site, np.ndarray], row_start: int) -> tuple[int, list[Target]]:
        n_rows = _check_out(out, self.shapes)
        return n_rows, [self._target(tap, out[tap.site], row_start) for tap in self._taps]

    def _target(self, tap: Tap, stored: np.ndarray, row_start: int) -> Target:
        shape = self.shapes[tap.site]
        layer_RU = stored[:, shape.layers.index(tap.layer)]
        out_RU = tensor_view(layer_RU, self._storage_dtype).view(len(stored), prod(shape.unit_shape))
        out_RU[:, tap.width :] = torch.nan
        return Target(tap=tap, out_RU=out_RU, row_start=row_start, storage_dtype=self._storage_dtype)


def _one_per_router(taps: Sequence[Tap]) -> frozenset[int]:
    """One tap of each sparse layer whose values show which tokens no expert processes."""
    found = {(tap.site.stack, tap.layer): index for index, tap in enumerate(taps) if isinstance(tap, ExpertTap)}
    return frozenset(found.values())


def _check_out(out: Mapping[Site, np.ndarray], shapes: Mapping[Site, SiteShape]) -> int:
    if set(out) != set(shapes):
        raise DataError(f"arrays to fill are for {_names(out)}, expected exactly {_names(shapes)}")
    n_rows = len(next(iter(out.values())))
    for site, shape in shapes.items():
        expected = (n_rows, len(shape.layers), *shape.unit_shape)
        if out[site].shape != expected:
            raise DataError(f"array to fill for {site} has shape {out[site].shape}, expected {expected}")
    return n_rows


def _names(sites: Iterable[Site]) -> str:
    return ", ".join(sorted(str(site) for site in sites)) or "no site"


@dataclass
class _Counts:
    n_examples: int = 0
    n_tokens: int = 0
    n_padded_tokens: int = 0
    n_batches: int = 0
    seconds_forward: float = 0.0
    n_routed: int = 0
    dropped: list[torch.Tensor] = field(default_factory=list)
    """By batch and layer, on the device, so that counting does not make the host wait."""

    def add(self, batch: TokenBatch, seconds_forward: float) -> None:
        self.n_examples += len(batch.input_ids_BT)
        self.n_tokens += batch.n_tokens
        self.n_padded_tokens += batch.input_ids_BT.size
        self.n_batches += 1
        self.seconds_forward += seconds_forward

    def add_routing(self, values: Values, mask_BT: np.ndarray) -> None:
        choices_NE = values.choices_NE if isinstance(values, RoutedNeurons) else values.flatten(0, -2)
        real_N = torch.from_numpy(mask_BT.reshape(-1)).to(choices_NE.device)
        self.n_routed += int(mask_BT.sum())
        self.dropped.append((real_N & ~choices_NE.bool().any(-1)).sum())

    def stats(self, *, n_rows: int, seconds_total: float) -> CaptureStats:
        return CaptureStats(
            n_examples=self.n_examples,
            n_rows=n_rows,
            n_tokens=self.n_tokens,
            n_padded_tokens=self.n_padded_tokens,
            n_batches=self.n_batches,
            seconds_forward=self.seconds_forward,
            seconds_total=seconds_total,
            n_routed=self.n_routed,
            n_dropped=sum(int(count) for count in self.dropped),
        )
