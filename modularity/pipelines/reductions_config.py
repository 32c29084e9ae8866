"""The section `reductions` of a job: statistics over tokens beside or instead of stored rows."""

from typing import Self

from pydantic import Field

from modularity.capture import ReductionConfig
from modularity.data import StreamConfig


class ReductionsConfig(ReductionConfig):
    """Statistics of the analysed neurons over all tokens, computed in flight; none by default."""

    store_rows: bool = True
    """Also store rows of activations; false: only the statistics, and `analyses` must be empty."""
    corpora: tuple[StreamConfig, ...] = ()
    """Unlabelled texts of any size, read range by range in the workers, with statistics of their own: all kinds but
    `per_label`. A job may have corpora and no functions."""
    parts: int = Field(default=4, ge=1)
    """Ranges of examples of each function, and of each corpus. A part is one work item (one for each group of layers),
    and its state stays in the run: the number of workers does not matter, and an interrupted job loses no finished
    part."""
    state_bytes: int = Field(default=2 * 2**30, ge=1)
    """State that a worker holds at once; more layers than fit are done in groups, each with forwards of its own."""
    n_listed: int = Field(default=3, ge=1)
    """Top examples of each neuron that stand, with their context, in the table `neuron_examples`."""
    context_tokens: int = Field(default=12, ge=0)
    """Tokens on either side of the top position in this context."""
    n_effects: int = Field(default=20, ge=1)
    """Neurons with the largest effects that the table `label_effects` lists for each sub-function and layer."""

    def of_corpora(self) -> Self:
        """The same for texts without labels."""
        return self.replace(kinds=[kind for kind in self.kinds if kind != "per_label"])
