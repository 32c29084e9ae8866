"""The table `neuron_examples`: the examples on which each neuron is most active, with the text around the position."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modularity.data import TokenTable
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.stats import TopExamples


class ExampleTexts:
    """Names of examples, and text around their token positions.

    Parameters
    ----------
    names : by number of an example
    table : tokens of the examples; None = no text is kept
    tokenizer : a Hugging Face tokenizer; None = no text is kept
    places : by number of an example, its place in `table`; None = the number itself
    """

    def __init__(
        self,
        names: Mapping[int, str] | Sequence[str],
        table: TokenTable | None = None,
        tokenizer: Any = None,
        places: Mapping[int, int] | None = None,
    ) -> None:
        self._table, self._names, self._tokenizer, self._places = table, names, tokenizer, places
        self._found: dict[tuple[int, int], tuple[str, str]] = {}

    def id(self, example: int) -> str:
        """Name of an example."""
        return self._names[example]

    def around(self, example: int, position: int, n_tokens: int) -> tuple[str, str]:
        """The token at a position, and the text with up to `n_tokens` tokens on either side; empty if not kept."""
        if self._tokenizer is None or self._table is None:
            return "", ""
        key = (example, position)
        if key not in self._found:
            place = example if self._places is None else self._places[example]
            start, stop = self._table.offsets_E1[place : place + 2].tolist()
            ids = self._table.token_ids[
                max(start, start + position - n_tokens) : min(stop, start + position + n_tokens + 1)
            ]
            token = self._tokenizer.convert_ids_to_tokens(int(self._table.token_ids[start + position]))
            self._found[key] = str(token), str(self._tokenizer.decode(ids.tolist()))
        return self._found[key]


def neuron_example_rows(
    top: TopExamples,
    function: str,
    layer: int,
    texts: ExampleTexts,
    config: ReductionsConfig,
    *,
    among: Sequence[int] | np.ndarray | None = None,
) -> dict[str, list[Any]]:
    """Columns of the table for one layer: the first `n_listed` examples of every neuron, or those `among` some."""
    listed_FK = np.zeros(top.example.shape, dtype=bool)
    listed_FK[:, : config.n_listed] = top.example[:, : config.n_listed] >= 0
    if among is not None:
        listed_FK &= np.isin(top.example, among)
    neuron_X, rank_X = np.nonzero(listed_FK)
    example_X, position_X = top.example[listed_FK].tolist(), top.position[listed_FK].tolist()
    around = [texts.around(*place, config.context_tokens) for place in zip(example_X, position_X)]
    return {
        "function": [function] * len(neuron_X),
        "layer": [layer] * len(neuron_X),
        "neuron": neuron_X.tolist(),
        "rank": (rank_X + 1).tolist(),
        "example_id": [texts.id(example) for example in example_X],
        "position": position_X,
        "value": top.value[listed_FK].astype(np.float64).tolist(),
        "token": [token for token, _ in around],
        "context": [context for _, context in around],
    }
