"""From the config of a tight pass to what its workers need: texts, tokens, layers, work items.

Nothing is computed and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from modularity.data import SourceText, load_plain_texts
from modularity.data.text_source import texts_fingerprint
from modularity.errors import InputError, ModelError
from modularity.models import ModelDescription, describe_model, load_tokenizer
from modularity.pipelines.tight_pass_config import TightPassConfig
from modularity.types import Site, StackName, WorkItem, content_digest

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class TextTokens:
    """One text as the model reads it."""

    text: SourceText
    ids_T: np.ndarray
    """int64 [T]."""
    n_cut: int
    """Tokens that were cut off."""


@dataclass(frozen=True, eq=False)
class PreparedTightPass:
    """Everything known before the first work item runs."""

    config: TightPassConfig
    description: ModelDescription
    stack: StackName
    layers: tuple[int, ...]
    texts: tuple[TextTokens, ...]
    width: int
    """D of the stack."""
    n_heads: int
    n_neurons: int
    """F of its widest layer."""

    def data_identity(self) -> dict[str, str]:
        """What the results depend on besides model and config."""
        return {
            "texts": texts_fingerprint(tuple(each.text for each in self.texts)),
            "tokens": content_digest([each.ids_T.tolist() for each in self.texts]),
        }

    def spectrum_items(self) -> list[WorkItem]:
        """One item for each text, condition, layer and kind: a text's layers come after each other."""
        return [
            WorkItem.of("spectrum", text=text, control=control, layer=layer, sub_block=kind)
            for text in range(len(self.texts))
            for control in self.config.conditions()
            for layer in self.layers
            for kind in self.config.kinds
        ]

    def last_items(self) -> list[WorkItem]:
        """What brings the texts together."""
        return [WorkItem.of("tight_pass_tests")]

    def items(self) -> list[WorkItem]:
        """All items, in the order of the steps."""
        return [*self.spectrum_items(), *self.last_items()]


def prepare_tight_pass(config: TightPassConfig) -> PreparedTightPass:
    """Read and check everything that a job needs, without loading weights.

    Raises
    ------
    InputError
        With every problem found in texts, model and layers.
    """
    problems: list[str] = []
    texts = _attempt(lambda: load_plain_texts(config.texts), problems)
    description = _attempt(lambda: describe_model(config.model_of("")), problems)
    tokenizer = None if description is None else _attempt(lambda: load_tokenizer(config.model), problems)
    stack: StackName | None = None
    layers: tuple[int, ...] | None = None
    tokens: tuple[TextTokens, ...] | None = None
    if description is not None:
        stack = _attempt(lambda: _stack(config, description), problems)
    if description is not None and stack is not None:
        layers = _attempt(lambda: _layers(config, description, stack), problems)
    if texts is not None and tokenizer is not None and description is not None:
        tokens = _attempt(lambda: _tokens(texts, tokenizer, config, description), problems)
    if problems or description is None or stack is None or layers is None or tokens is None:
        raise InputError(problems)
    heads = description.shapes[Site(stack, "attention.heads")]
    neurons = description.shapes[Site(stack, "ffn.neurons")]
    return PreparedTightPass(
        config,
        description,
        stack,
        layers,
        tokens,
        width=description.shapes[Site(stack, "residual")].widths[0],
        n_heads=heads.unit_shape[0],
        n_neurons=max(neurons.widths),
    )


def _stack(config: TightPassConfig, description: ModelDescription) -> StackName:
    stack = config.stack or description.stacks[0]
    if stack not in description.stacks:
        raise InputError(f"stack={config.stack!r}: the model has {', '.join(description.stacks)}")
    if stack == "decoder" and "encoder" in description.stacks:
        raise InputError(
            "stack='decoder' of an encoder-decoder model: it reads the start token only, a Jacobian of one position; "
            "use the encoder"
        )
    return stack


def _layers(config: TightPassConfig, description: ModelDescription, stack: StackName) -> tuple[int, ...]:
    n_layers = len(description.shapes[Site(stack, "attention.output")].layers)
    layers = tuple(range(n_layers)) if config.layers is None else tuple(sorted(config.layers))
    outside = [layer for layer in layers if not 0 <= layer < n_layers]
    if outside:
        raise InputError(f"layers={outside} do not exist: the {stack} has layers 0 to {n_layers - 1}")
    sparse = [layer for layer in layers if layer in description.native_experts[stack]]
    if sparse and "ffn" in config.kinds:
        raise InputError(
            f"layers {sparse} are made of experts, whose FFN is not taken apart here; leave them out of layers, or set "
            "kinds=[attention]"
        )
    return layers


def _tokens(
    texts: tuple[SourceText, ...], tokenizer: Any, config: TightPassConfig, description: ModelDescription
) -> tuple[TextTokens, ...]:
    longest = min(config.max_tokens, description.max_positions or config.max_tokens)
    found, problems = [], []
    for text in texts:
        whole = tokenizer(text.text, truncation=False, verbose=False)["input_ids"]
        ids = np.asarray(
            whole
            if len(whole) <= longest
            else tokenizer(text.text, truncation=True, max_length=longest, verbose=False)["input_ids"],
            dtype=np.int64,
        )
        if not len(ids) or ids.max(initial=0) >= description.vocabulary_size:
            problems.append(
                f"text {text.id!r} has {len(ids)} tokens, the largest {ids.max(initial=-1)}; expected one or more "
                f"below {description.vocabulary_size}: give the tokenizer of the checkpoint, or leave the text out"
            )
        found.append(TextTokens(text, ids, len(whole) - len(ids)))
    if problems:
        raise InputError(problems)
    return tuple(found)


def _attempt(action: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return action()
    except InputError as error:
        problems.extend(error.problems)
    except ModelError as error:
        problems.append(str(error))
    return None
