"""The table `neuron_examples`: the examples on which each neuron is most active, with the text around the position."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modularity.data import TokenTable
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.stats import TopExamples


class ExampleTexts:
    """Ids of the examples of a function, and text around their token positions.

    Parameters
    ----------
    table : tokens of the examples
    example_ids : their names
    tokenizer : a Hugging Face tokenizer; None = no text is kept
    """

    def __init__(self, table: TokenTable, example_ids: Sequence[str], tokenizer: Any) -> None:
        self._table, self._ids, self._tokenizer = table, example_ids, tokenizer
        self._found: dict[tuple[int, int], tuple[str, str]] = {}

    def id(self, example: int) -> str:
        """Name of an example."""
        return self._ids[example]

    def around(self, example: int, position: int, n_tokens: int) -> tuple[str, str]:
        """The token at a position, and the text with up to `n_tokens` tokens on either side; empty if not kept."""
        if self._tokenizer is None:
            return "", ""
        key = (example, position)
        if key not in self._found:
            start, stop = self._table.offsets_E1[example : example + 2].tolist()
            ids = self._table.token_ids[
                max(start, start + position - n_tokens) : min(stop, start + position + n_tokens + 1)
            ]
            token = self._tokenizer.convert_ids_to_tokens(int(self._table.token_ids[start + position]))
            self._found[key] = str(token), str(self._tokenizer.decode(ids.tolist()))
        return self._found[key]


def neuron_example_rows(
    top: TopExamples, function: str, layer: int, texts: ExampleTexts, config: ReductionsConfig
) -> dict[str, list[Any]]:
    """Columns of the table for one layer: the first `n_listed` examples of every neuron."""
    listed_FK = np.zeros(top.example.shape, dtype=bool)
    listed_FK[:, : config.n_listed] = top.example[:, : config.n_listed] >= 0
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
