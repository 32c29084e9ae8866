"""Mean and standard deviation of every neuron over the tokens of a text: what `Mean` and `Gaussian` noise need.

Take a text that is not the one on which an effect is measured.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from modularity.data import TokenBatch
from modularity.errors import DataError, InputError
from modularity.interventions.context import BatchContext
from modularity.interventions.forward import Forward
from modularity.models import LoadedModel, RoutedNeurons, Tap
from modularity.types import Site


@dataclass(frozen=True)
class NeuronMoments:
    """Moments of the neurons of one stack, arrays of shape (n_layers, n_neurons); narrower layers end in zeros."""

    mean_LF: np.ndarray
    """float64: mean over tokens, padding left out; of an expert's neurons over the tokens that it processes."""
    sd_LF: np.ndarray
    """float64: standard deviation over them (divided by their number)."""
    count_LF: np.ndarray
    """int64: tokens; 0 where an expert got none, whose moments are 0."""


def neuron_moments(model: LoadedModel, batches: Iterable[TokenBatch], *, site: Site | None = None) -> NeuronMoments:
    """Moments of all neurons of a site over the real tokens of `batches`, summed in float64.

    Parameters
    ----------
    model : a loaded model
    batches : token batches, any order; which rows they deliver does not matter
    site : `ffn.neurons` of a stack; None = of the first. In the decoder of an encoder-decoder model the first step

    Raises
    ------
    InputError
        The site holds no neurons.
    DataError
        There is no batch.
    """
    site = Site(model.sites.stacks[0], "ffn.neurons") if site is None else site
    if site.name != "ffn.neurons":
        raise InputError(f"site {str(site)!r}: expected ffn.neurons of a stack")
    shape = model.sites.shape(site)
    sums = _Sums(len(shape.layers), max(shape.widths))
    context = BatchContext(model)
    forward = Forward(model.module, model)
    with ExitStack() as handles:
        for handle in context.attach():
            handles.callback(handle.remove)
        for tap in model.sites.taps(site):
            handles.callback(tap.attach(_adder(tap, sums, context)).remove)
        for batch in batches:
            forward(batch)
    if not context.n_batches[site.stack]:
        raise DataError("no batch to take moments of: expected at least one")
    return sums.result()


def _adder(tap: Tap, sums: "_Sums", context: BatchContext) -> Callable[[Any], None]:
    def add(values: Any) -> None:
        real = torch.from_numpy(context.content(tap.site.stack).real_BT.reshape(-1))
        if isinstance(values, RoutedNeurons):
            for expert, _, values_MF in values.parts(real.to(values.device)):
                sums.add(tap.layer, values_MF, first=expert * values.experts.width)
            return
        flat = values.reshape(-1, tap.width)
        if len(flat) != len(real):
            raise InputError(
                f"{tap.site} of layer {tap.layer} sees slices of a batch; set chunk_size_feed_forward to 0"
            )
        sums.add(tap.layer, flat[real.to(flat.device)], first=0)

    return add


class _Sums:
    def __init__(self, n_layers: int, n_neurons: int) -> None:
        self._count_LF = np.zeros((n_layers, n_neurons), np.int64)
        self._sum_LF = np.zeros((n_layers, n_neurons))
        self._squares_LF = np.zeros((n_layers, n_neurons))

    def add(self, layer: int, values_RF: torch.Tensor, *, first: int) -> None:
        """Add rows of the neurons from `first` on."""
        values = values_RF.double()
        columns = slice(first, first + values.shape[1])
        self._count_LF[layer, columns] += len(values)
        self._sum_LF[layer, columns] += values.sum(0).cpu().numpy()
        self._squares_LF[layer, columns] += (values**2).sum(0).cpu().numpy()

    def result(self) -> NeuronMoments:
        """Mean and standard deviation."""
        count_LF = np.maximum(self._count_LF, 1)
        mean_LF = self._sum_LF / count_LF
        variance_LF = np.maximum(self._squares_LF / count_LF - mean_LF**2, 0.0)
        return NeuronMoments(mean_LF, np.sqrt(variance_LF), self._count_LF)
