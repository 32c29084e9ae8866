"""Live model to statistics over all its tokens, without storing a row: several kinds in one forward.

Every layer is reduced as soon as its values exist, on their device; what stays is the state of the accumulators. The
tokens are those that the function's pooling looks at, so padding is never among them. Neurons of experts are reduced
over the tokens that their expert processes.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from modularity.capture.device_examples import DeviceLabelSums, DeviceTopExamples
from modularity.capture.device_sums import (
    DeviceCoActivation,
    DeviceFiringRate,
    DeviceHistogram,
    DeviceMoments,
    TokenSums,
)
from modularity.capture.forward import BatchForward
from modularity.capture.reduction_config import ReductionConfig, ReductionName, reduction_bytes
from modularity.capture.rows import select_rows
from modularity.capture.selection import Gather, ReductionKind, Selection, Values
from modularity.capture.session import TapSession
from modularity.capture.token_parts import BatchTokens
from modularity.data import TokenBatch
from modularity.errors import AllowanceError, DataError, InputError, NumericError
from modularity.models import ExpertTap, ExpertVariant, LoadedModel, Tap, firing_order
from modularity.stats import Accumulator
from modularity.types import Site, SiteShape, StackName

Accumulators = dict[ReductionName, Accumulator]


@dataclass(frozen=True)
class ReductionStats:
    """What one call of `Reducer.reduce` did."""

    n_examples: int
    n_tokens: int
    """Real tokens that went through the model."""
    n_selected: int
    """Of these, the tokens that the reductions are over, at the first site."""
    n_batches: int
    seconds_forward: float
    """Forwards with reductions; on CUDA the time to queue them."""
    seconds_reducing: float
    """Of these, the reductions."""


@dataclass(frozen=True, eq=False)
class Reduced:
    """Accumulators of all kinds, by site and layer."""

    accumulators: Mapping[tuple[Site, int], Accumulators]
    stats: ReductionStats

    def of(self, site: Site, layer: int) -> Accumulators:
        """Accumulators of one layer, by kind."""
        return self.accumulators[site, layer]


class Reducer:
    """Computes statistics of some sites and layers of one loaded model. Not for use by several threads at once.

    Parameters
    ----------
    model : a loaded base model
    sites : the sites, each once; units of several dimensions (heads and channels) are counted flat
    kinds : what is computed
    layers : layer coordinates for all of them; None = all
    n_subfunctions : label vectors of the kind `per_label`
    edges : edges of histogram bins by site, (n_layers, n_units, n_edges), for neurons with edges of their own; other
        sites have those of `kinds`
    expert_variant : as for `Capturer`
    allowance_bytes : limit of the state of all accumulators; None = none

    Raises
    ------
    InputError
        Nothing to compute, a site twice, or labels without sub-functions.
    SiteError
        The model does not have one of the sites or layers.
    AllowanceError
        The state takes more than `allowance_bytes`.
    """

    def __init__(
        self,
        model: LoadedModel,
        sites: Sequence[Site],
        kinds: ReductionConfig,
        *,
        layers: Sequence[int] | None = None,
        n_subfunctions: int = 0,
        edges: Mapping[Site, np.ndarray] | None = None,
        expert_variant: ExpertVariant = "corrected",
        allowance_bytes: int | None = None,
    ) -> None:
        self.shapes: dict[Site, SiteShape] = {site: model.sites.shape(site, layers) for site in sites}
        """What is reduced at each site."""
        taps = firing_order(tap for site in sites for tap in model.sites.taps(site, layers))
        self._taps = tuple(replace(tap, variant=expert_variant) if isinstance(tap, ExpertTap) else tap for tap in taps)
        self._kinds = kinds
        self._n_subfunctions = n_subfunctions
        self._edges = dict(edges or {})
        self._check(sites, allowance_bytes)
        self._model = model
        self._forward = BatchForward(model, {site.stack for site in sites})
        self._is_checked = False

    def _check(self, sites: Sequence[Site], allowance_bytes: int | None) -> None:
        kinds = self._kinds.kinds
        if not sites or len(set(sites)) < len(sites) or not kinds:
            raise InputError(
                f"sites={[str(site) for site in sites]}, kinds={list(kinds)}: expected at least one site, each only "
                "once, and at least one kind"
            )
        if "per_label" in kinds and not self._n_subfunctions:
            raise InputError("per_label without sub-functions: give n_subfunctions, and the labels to `reduce`")
        routed = [tap for tap in self._taps if isinstance(tap, ExpertTap) and tap.site.name == "ffn.neurons"]
        if "co_activation" in kinds and routed:
            raise InputError(
                f"co_activation of {routed[0].site} layer {routed[0].layer}: neurons of experts have no values for the "
                "same tokens; leave out co_activation, or choose dense layers"
            )
        needed = reduction_bytes(
            self._kinds, [tap.width for tap in self._taps], n_subfunctions=self._n_subfunctions
        ).by_kind
        if allowance_bytes is not None and sum(needed.values()) > allowance_bytes:
            shown = ", ".join(f"{name} {n_bytes:,}" for name, n_bytes in needed.items())
            raise AllowanceError(
                f"reductions of {len(self._taps)} layers hold {sum(needed.values()):,} bytes ({shown}), allowed are "
                f"{allowance_bytes:,}: take fewer layers at a time, or leave out a kind"
            )

    def reduce(
        self,
        batches: Iterable[TokenBatch],
        *,
        reduction: ReductionKind | None,
        labels_SE: np.ndarray | None = None,
        row_example_R: np.ndarray | None = None,
    ) -> Reduced:
        """Run the model over the batches and return the accumulators; they merge with those of other batches.

        Parameters
        ----------
        batches : whole examples, in any order; all tokens of an example are in one batch
        reduction : how positions become rows, as in `Capturer.capture`
        labels_SE : 1, 0, or another number where an example takes no part, by number of the example; for `per_label`
        row_example_R : number of the example of each global row; None = the same numbers

        Raises
        ------
        SiteError, InputError
            As `Capturer.capture`.
        NumericError
            A value is NaN or infinite; names site, layer and examples of the batch.
        DataError
            Labels are missing, or do not cover the examples.
        """
        if self._model.module.training:
            raise InputError("the model is in training mode, its dropout would be reduced; call module.eval() first")
        if ("per_label" in self._kinds.kinds) != (labels_SE is not None):
            raise DataError("labels_SE belongs to the kind per_label, and to no other; give both or neither")
        if labels_SE is not None and len(labels_SE) != self._n_subfunctions:
            raise DataError(f"labels of {len(labels_SE)} sub-functions, expected {self._n_subfunctions}")
        states = [self._state(tap) for tap in self._taps]
        pass_ = _Pass(self._taps, states, labels_SE)
        with TapSession(self._taps, pass_.receive) as session:
            for batch in batches:
                masks = self._forward.masks(batch)
                chosen = select_rows(batch, masks, reduction=reduction, row_start=0, source=self._forward.source)
                shapes: dict[StackName, tuple[int, int]] = {
                    stack: (mask.shape[0], mask.shape[1]) for stack, mask in masks.items()
                }
                pass_.begin(batch, chosen, shapes, row_example_R)
                start = time.perf_counter()
                with torch.inference_mode():
                    session.run(lambda b=batch: self._forward(b), shapes, self_check=not self._is_checked)  # type: ignore[misc]
                pass_.seconds_forward += time.perf_counter() - start
                self._is_checked = True
        return pass_.result()

    def _state(self, tap: Tap) -> "_LayerState":
        kinds, device = self._kinds, self._model.device
        edges = kinds.edges
        if tap.site in self._edges:
            edges = self._edges[tap.site][self.shapes[tap.site].layers.index(tap.layer), : tap.width]
        makers: dict[ReductionName, TokenSums] = {}
        for name in kinds.kinds:
            if name == "moments":
                makers[name] = DeviceMoments(tap.width, device)
            elif name == "firing_rate":
                makers[name] = DeviceFiringRate(tap.width, kinds.threshold, device)
            elif name == "histogram":
                makers[name] = DeviceHistogram(tap.width, edges, device)
            elif name == "co_activation":
                makers[name] = DeviceCoActivation(tap.width, kinds.co_activation, device)
        top = DeviceTopExamples(tap.width, kinds.n_top, device) if "top_examples" in kinds.kinds else None
        labels = DeviceLabelSums(self._n_subfunctions, tap.width, device) if "per_label" in kinds.kinds else None
        return _LayerState(makers, top, labels)


@dataclass(frozen=True, eq=False)
class _LayerState:
    """Everything that is held of one layer."""

    tokens: Mapping[ReductionName, TokenSums]
    top: DeviceTopExamples | None
    labels: DeviceLabelSums | None

    def finish(self) -> Accumulators:
        found: Accumulators = {name: state.finish() for name, state in self.tokens.items()}
        if self.top is not None:
            found["top_examples"] = self.top.finish()
        if self.labels is not None:
            found["per_label"] = self.labels.finish()
        return found


@dataclass(eq=False)
class _Batch:
    """What the reductions need of the batch that runs."""

    example_B: np.ndarray
    """int64: number of each example."""
    selections: Mapping[StackName, Selection]
    shapes: Mapping[StackName, tuple[int, int]]
    weights_XB: np.ndarray
    """float64: 1 where an example has a label, by sub-function and label."""
    tokens: dict[StackName, BatchTokens] = field(default_factory=dict)
    on_device: dict[str, torch.Tensor] = field(default_factory=dict)
    extremes: list[tuple[Tap, torch.Tensor]] = field(default_factory=list)
    """Smallest and largest value of every part, on the device."""

    def tensor(self, name: str, values: np.ndarray, device: torch.device) -> torch.Tensor:
        """`values` on the device, copied there once for the batch."""
        if name not in self.on_device:
            self.on_device[name] = torch.from_numpy(values).to(device)
        return self.on_device[name]

    def refuse_non_finite(self) -> None:
        """NumericError if a value of the batch was NaN or infinite; waits for the device."""
        if not self.extremes:
            return
        values = torch.stack([extremes for _, extremes in self.extremes]).cpu()
        bad = (~torch.isfinite(values)).any(1).nonzero()
        if len(bad):
            tap = self.extremes[int(bad[0])][0]
            shown = ", ".join(map(str, sorted(self.example_B.tolist())[:5]))
            more = " …" if len(self.example_B) > 5 else ""
            raise NumericError(
                f"{tap.site} layer {tap.layer}: values are NaN or infinite in a batch of the examples {shown}{more}; "
                "expected finite numbers: load the model in bfloat16 or float32 (model.dtype) if it runs in float16, "
                "and check the checkpoint's weights"
            )
        self.extremes.clear()


class _Pass:
    """One run over the batches: hands values to the states, and checks a batch while the next one runs."""

    def __init__(self, taps: Sequence[Tap], states: Sequence[_LayerState], labels_SE: np.ndarray | None) -> None:
        self._taps, self._states, self._labels_SE = taps, states, labels_SE
        self._batch: _Batch | None = None
        self._n_examples = self._n_tokens = self._n_selected = self._n_batches = 0
        self.seconds_forward = self._seconds_reducing = 0.0

    def begin(
        self,
        batch: TokenBatch,
        selections: Mapping[StackName, Selection],
        shapes: Mapping[StackName, tuple[int, int]],
        row_example_R: np.ndarray | None,
    ) -> None:
        """Prepare for a batch."""
        before = self._batch
        example_B = _example_numbers(batch, row_example_R)
        weights_XB = np.zeros((0, len(example_B)))
        if self._labels_SE is not None:
            if example_B.max() >= self._labels_SE.shape[1]:
                raise DataError(
                    f"example {example_B.max()} has no label: labels are of {self._labels_SE.shape[1]} examples"
                )
            labels_SB = self._labels_SE[:, example_B]
            weights_XB = np.stack([labels_SB == 0, labels_SB == 1], axis=1).reshape(-1, len(example_B)).astype(float)
        self._batch = _Batch(example_B, selections, shapes, weights_XB)
        self._n_examples += len(example_B)
        self._n_tokens += batch.n_tokens
        self._n_batches += 1
        if before is not None:
            before.refuse_non_finite()

    def receive(self, index: int, values_BTU: Values) -> None:
        """Values of one tap, complete for the batch."""
        start = time.perf_counter()
        batch, tap, state = self._batch, self._taps[index], self._states[index]
        assert batch is not None
        stack = tap.site.stack
        if stack not in batch.tokens:
            batch.tokens[stack] = BatchTokens.of(
                batch.selections[stack], shape=batch.shapes[stack], device=values_BTU.device
            )
        if index == 0:
            self._n_selected += len(batch.tokens[stack].flat_M)
        for part in batch.tokens[stack].parts(values_BTU):
            batch.extremes.append((tap, torch.stack(torch.aminmax(part.values_MF)).double()))
            for sums in state.tokens.values():
                sums.add(part)
            if state.top is not None:
                state.top.add(part, batch.tensor("examples", batch.example_B, part.values_MF.device))
        if state.labels is not None:
            rows_BU = _example_rows(batch.selections[stack], values_BTU, len(batch.example_B))
            weights_XB = batch.tensor("weights", batch.weights_XB, rows_BU.device)
            state.labels.add(rows_BU, weights_XB, batch.weights_XB.sum(1).astype(np.int64))
        self._seconds_reducing += time.perf_counter() - start

    def result(self) -> Reduced:
        """Everything, after the last batch."""
        if self._batch is None:
            raise DataError("no batch to reduce; expected at least one")
        self._batch.refuse_non_finite()
        stats = ReductionStats(
            self._n_examples,
            self._n_tokens,
            self._n_selected,
            self._n_batches,
            self.seconds_forward,
            self._seconds_reducing,
        )
        found = {(tap.site, tap.layer): state.finish() for tap, state in zip(self._taps, self._states)}
        return Reduced(found, stats)


def _example_numbers(batch: TokenBatch, row_example_R: np.ndarray | None) -> np.ndarray:
    """Number of each example of a batch, from its rows."""
    if batch.gather is None:
        rows_B = np.asarray(batch.row_ids)
    else:
        example_G, _, row_G = batch.gather
        rows_B = np.zeros(batch.n_examples, np.int64)
        rows_B[example_G] = row_G
    return np.asarray(rows_B if row_example_R is None else row_example_R[rows_B], np.int64)


def _example_rows(selection: Selection, values_BTU: Values, n_examples: int) -> torch.Tensor:
    """One row for each example: its pooled row, or the mean of the rows that are gathered from it."""
    rows_GU = selection.select(values_BTU)
    if not isinstance(selection, Gather):
        return rows_GU
    example_G = torch.from_numpy(selection.flat).to(rows_GU.device) // (values_BTU.shape[1])
    count_B = torch.bincount(example_G, minlength=n_examples)
    mean_BG = torch.zeros((n_examples, len(example_G)), dtype=torch.float64, device=rows_GU.device)
    mean_BG[example_G, torch.arange(len(example_G), device=rows_GU.device)] = 1.0 / count_B[example_G].double()
    return mean_BG @ rows_GU.double()
