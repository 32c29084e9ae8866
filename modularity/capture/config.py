"""What to capture and in which portions."""

from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from modularity.config import Config
from modularity.errors import InputError
from modularity.types import Site, StackName, StorageDtype


class CaptureConfig(Config):
    """Sites, layers, dtype and portions of a capture."""

    sites: tuple[str, ...] = Field(default=("ffn.neurons",), min_length=1)
    """Site names, with or without a stack in front (`ffn.neurons`, `decoder/residual`)."""
    layers: tuple[int, ...] | None = None
    """Layer coordinates, ascending; for `residual` they are depths, 0 = the embedding. None = all."""
    dtype: StorageDtype = "float32"
    """Dtype of the stored rows; values are computed in the model's dtype."""
    tokens_per_batch: int = Field(default=4096, ge=1)
    """Tokens of one forward, padding included; a longer example forms a batch of its own."""
    rows_per_item: int | None = Field(default=None, ge=128, multiple_of=128)
    """Rows of one work item and of one Zarr shard; None = as many as fit `item_bytes`."""
    item_bytes: int = Field(default=144 * 2**20, ge=1)
    """Target for the host memory of one work item's rows, over all sites and layers."""
    max_pending_items: int | None = Field(default=None, ge=0)
    """Shards captured but not yet written before capture waits for the store; 0 = each is written before the next is
    captured. None = 0 where model and store share the cores of one machine, since a thread that writes would hold up
    the threads of every matrix product; else 1."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Texts are cut after this many tokens, and the cuts reported; None = the model's limit."""
    expert_variant: Literal["corrected", "released"] = "corrected"
    """Neurons of the experts of mixture models. `corrected`: only for the tokens that the expert processes, and pooled
    over these, 0 without any; `released`: all experts for all tokens, as Zhang et al. 2023 recorded them."""

    @field_validator("sites")
    @classmethod
    def _known_sites(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            try:
                Site.parse(name, "decoder")
            except InputError as error:
                raise ValueError(str(error)) from None
        if len(set(names)) < len(names):
            raise ValueError("expected each site only once")
        return names

    @model_validator(mode="after")
    def _ascending_layers(self) -> Self:
        layers = self.layers
        if layers is not None and (not layers or layers[0] < 0 or any(a >= b for a, b in pairwise(layers))):
            raise ValueError(
                f"layers={list(layers)}: expected at least one, from 0 up, ascending, each once; or null for all"
            )
        return self

    def pending_items(self, *, on_gpu: bool, is_local: bool) -> int:
        """`max_pending_items`, or what suits where the model runs and where the store is."""
        if self.max_pending_items is not None:
            return self.max_pending_items
        return int(on_gpu or not is_local)

    def resolved_sites(self, default_stack: StackName) -> tuple[Site, ...]:
        """The sites of a model whose first stack is `default_stack`.

        Raises
        ------
        InputError
            Two names mean the same site (`ffn.neurons` and `decoder/ffn.neurons` of a decoder).
        """
        sites = tuple(Site.parse(name, default_stack) for name in self.sites)
        if len(set(sites)) < len(sites):
            raise InputError(f"capture.sites={list(self.sites)}: two names mean the same site; name each only once")
        return sites
