"""Keys that name what is captured and computed, and the legend of dimension letters.

Dimension letters, used as suffixes of array names (`activations_RF`) and in docstrings:

    B examples in a batch     T positions            R stored rows         L layers
    D residual width          F neurons of a layer   H heads               K head width
    E experts                 S sub-functions        C classes             P soft-prompt positions
    N draws of a null (permutations, bootstrap resamples, random partitions)
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from modularity.errors import InputError

StackName = Literal["encoder", "decoder"]
SiteName = Literal[
    "ffn.neurons",
    "ffn.output",
    "shared_expert.neurons",
    "attention.heads",
    "attention.output",
    "residual",
    "router.probabilities",
    "router.choices",
]
StorageDtype = Literal["float32", "float16", "bfloat16"]
Scalar = str | int | float | bool

ALL_LAYERS = -1
"""Layer number in a table's row that speaks of all layers together."""
PARTITION = "partition"
"""Name of the dense result that holds the expert of every neuron."""
PERMUTED_LABELS, SHUFFLED_EXPERTS = "permuted labels", "shuffled experts"
"""The nulls of `modularity_tests`: lists of labels that mean nothing; the same lists in random partitions."""


def canonical_json(value: object) -> str:
    """JSON text of `value` with sorted keys and no white space, the same for equal values everywhere."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_digest(value: object) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@dataclass(frozen=True, order=True)
class Site:
    """A named place in the forward pass of one stack, over all its layers; written `encoder/ffn.neurons`."""

    stack: StackName
    """`encoder`: BERT-like models and the first half of T5; `decoder`: causal models and the second half of T5."""
    name: SiteName

    @classmethod
    def parse(cls, text: str, default_stack: StackName) -> "Site":
        """Read `ffn.neurons` (in `default_stack`) or `decoder/ffn.neurons`; InputError names what is known."""
        stack, _, name = text.rpartition("/")
        stack = stack or default_stack
        if stack not in get_args(StackName) or name not in get_args(SiteName):
            raise InputError(
                f"site {text!r} is not known: expected one of {', '.join(get_args(SiteName))}, "
                f"with or without a stack in front ({' or '.join(s + '/' for s in get_args(StackName))})"
            )
        return cls(stack, name)  # type: ignore[arg-type]  # both were checked against the literals

    def __str__(self) -> str:
        return f"{self.stack}/{self.name}"


@dataclass(frozen=True)
class SiteShape:
    """The shape of one site in one model: what the store allocates and what capture promises to deliver."""

    site: Site
    layers: tuple[int, ...]
    """Layer coordinates, ascending. `residual` has depths: 0 is the embedding, i + 1 the stream after block i. The
    router sites have the layers with experts only."""
    widths: tuple[int, ...]
    """Units of each of these layers, flattened over the unit dimensions; differs by layer in pruned models, and where
    only some layers have experts."""
    unit_dims: tuple[str, ...]
    """Names of the unit dimensions: `("neuron",)`, `("head", "channel")`, `("channel",)` or `("expert",)`."""
    unit_shape: tuple[int, ...]
    """Stored shape of one layer; with several widths the largest, narrower layers end in NaN."""


@dataclass(frozen=True)
class WorkItem:
    """What one worker computes in one go, named by its content and never by a rank or a number of workers."""

    kind: str
    params: tuple[tuple[str, Scalar], ...]
    """Sorted (name, value) pairs; together with `kind` and the run's identity they determine the result."""

    @classmethod
    def of(cls, kind: str, /, **params: Scalar) -> "WorkItem":
        """Work item from keyword parameters: `WorkItem.of("capture", function="task", start=0, stop=512)`."""
        return cls(kind, tuple(sorted(params.items())))

    def __getitem__(self, name: str) -> Scalar:
        return dict(self.params)[name]

    def integer(self, name: str) -> int:
        """Parameter `name`, which is an integer."""
        value = self[name]
        if not isinstance(value, int):
            raise TypeError(f"{name}={value!r} of {self} is not an integer")
        return value

    def text(self, name: str) -> str:
        """Parameter `name`, which is a string."""
        value = self[name]
        if not isinstance(value, str):
            raise TypeError(f"{name}={value!r} of {self} is not a string")
        return value

    def as_dict(self) -> Mapping[str, Scalar]:
        """Kind and parameters as one mapping, as commit records hold them."""
        return {"kind": self.kind, **dict(self.params)}

    @property
    def id(self) -> str:
        """`<kind>-<16 hexadecimal digits>`, the name of the item's commit record."""
        return f"{self.kind}-{content_digest(self.as_dict())}"

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value}' for name, value in self.params)})"
