"""Share of activation mass that routers keep, text by text, from the inputs and activations of the whole model.

Source: the measure of MoEfication (Zhang et al. 2022, arXiv 2110.01786) for its routers. Here no expert is taken away:
every layer sees what it sees in the whole model, so that layers can be judged one by one. `selected_experts` measures
the same in the changed model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from modularity.data import TokenBatch
from modularity.errors import DataError
from modularity.interventions.moefied_layers import MoefiedLayer, RouterKind, make_scorer, top_experts
from modularity.interventions.moefied_training import RoutingExamples
from modularity.models import LoadedModel
from modularity.types import StackName

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MassByText:
    """Mass that one router keeps in one layer, for several shares of experts."""

    kept_XN: Float64
    """(n_shares, n_texts): mean over the tokens of a text of the share of mass in the selected experts; NaN for a text
    without a token that has mass."""
    n_tokens_N: NDArray[np.int64]
    """Tokens with mass of each text."""
    neurons_X: Float64
    """Mean over tokens of the share of neurons in the selected experts: what they would keep by chance."""


def rows_of_texts(model: LoadedModel, stack: StackName, batches: Iterable[TokenBatch]) -> NDArray[np.int64]:
    """Text of each row that `collect_routing` gives for these batches: int64 array of shape (n_rows,).

    The batches are of pooled rows (`rows_B`). The decoder of an encoder-decoder model has one token for each text.
    """
    first_step = stack == "decoder" and len(model.sites.stacks) == 2
    found = []
    for batch in batches:
        assert batch.rows_B is not None
        found.append(batch.rows_B if first_step else np.repeat(batch.rows_B, batch.attention_mask_BT.sum(axis=1)))
    return np.concatenate(found)


def mass_by_text(
    layer: MoefiedLayer,
    examples: RoutingExamples,
    text_R: NDArray[np.int64],
    n_texts: int,
    *,
    router: RouterKind,
    shares: Sequence[float],
    seed: int = 0,
    device: torch.device | None = None,
) -> MassByText:
    """What a router keeps of the mass of each text.

    Parameters
    ----------
    layer : from `moefy` or `train_routers`
    examples : of this layer, from `collect_routing`
    text_R : text of each row, 0 to n_texts - 1
    router : who selects
    shares : of the experts, each rounded up to whole experts
    seed : of the random router
    device : on which scores are computed; None = the CPU

    Raises
    ------
    DataError
        `text_R` does not fit the rows, or no token has mass.
    InputError
        The layer lacks the router.
    """
    if text_R.shape != (len(examples.mass_RE),):
        raise DataError(f"text_R has shape {text_R.shape}: expected ({len(examples.mass_RE)},), one text for each row")
    device = torch.device("cpu") if device is None else device
    inputs_RD, mass_RE = (torch.from_numpy(rows).to(device) for rows in (examples.inputs_RD, examples.mass_RE))
    with torch.inference_mode():
        scores_RE = make_scorer(layer, router, device, seed=seed)(inputs_RD, mass_RE)
    mass64_RE = examples.mass_RE.astype(np.float64)
    all_R = mass64_RE.sum(axis=1)
    has_R = all_R > 0
    if not has_R.any():
        raise DataError(f"layer {layer.layer} of the {layer.stack}: no token has any activation")
    size_E = np.bincount(layer.labels_F, minlength=layer.n_experts) / len(layer.labels_F)
    n_tokens_N = np.bincount(text_R[has_R], minlength=n_texts)
    kept_XN, neurons_X = np.full((len(shares), n_texts), np.nan), np.empty(len(shares))
    for x, share in enumerate(shares):
        selected_RE = top_experts(scores_RE, layer.n_selected(share)).cpu().numpy()
        ratio_R = np.minimum((mass64_RE * selected_RE).sum(axis=1)[has_R] / all_R[has_R], 1.0)
        sums_N = np.bincount(text_R[has_R], ratio_R, minlength=n_texts)
        np.divide(sums_N, n_tokens_N, out=kept_XN[x], where=n_tokens_N > 0)
        neurons_X[x] = (selected_RE @ size_E).mean()
    return MassByText(kept_XN, n_tokens_N, neurons_X)
