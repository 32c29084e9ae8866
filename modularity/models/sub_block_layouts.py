"""Where each architecture keeps what surrounds its projections: attention module, norms, activation function.

A sub-block is what one attention or one FFN adds to the residual stream. Its norm before (`pre-norm` models) and the
norm that Gemma 2 and 3 and OLMo 2 and 3 put between it and the sum belong to it; the norm after the sum (BERT-like
models, OPT-350M) does not. Paths are relative to a block; projections are those of the site table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modularity.errors import ModelError
from modularity.models.architectures import Architecture
from modularity.types import StackName


@dataclass(frozen=True)
class SubBlockLayout:
    """Paths in a block."""

    attention: str
    """Module that is called with hidden states, and returns them first (`self_attn`)."""
    activation: str
    """Activation function of a dense FFN (`activation_fn`)."""
    attention_norm: str | None = None
    """Norm before attention; None: there is none."""
    ffn_norm: str | None = None
    """Norm before the FFN."""
    attention_after: str | None = None
    """Norm between attention and the sum."""
    ffn_after: str | None = None
    """Norm between the FFN and the sum."""
    out_apart: bool = False
    """True where the out-projection is not inside `attention` (BERT)."""
    norm_first: str | None = None
    """Attribute of the block that is False where the norms come after the sum (OPT-350M)."""


_LLAMA = SubBlockLayout("self_attn", "mlp.act_fn", "input_layernorm", "post_attention_layernorm")
_GEMMA = replace(
    _LLAMA,
    attention_after="post_attention_layernorm",
    ffn_norm="pre_feedforward_layernorm",
    ffn_after="post_feedforward_layernorm",
)
_OLMO2 = SubBlockLayout(
    "self_attn",
    "mlp.act_fn",
    attention_after="post_attention_layernorm",
    ffn_after="post_feedforward_layernorm",
)
_BERT = SubBlockLayout("attention.self", "intermediate.intermediate_act_fn", out_apart=True)
_TABLE: Mapping[str, SubBlockLayout] = {
    "opt": SubBlockLayout(
        "self_attn", "activation_fn", "self_attn_layer_norm", "final_layer_norm", norm_first="do_layer_norm_before"
    ),
    "gpt2": SubBlockLayout("attn", "mlp.act", "ln_1", "ln_2"),
    "gpt_neo": SubBlockLayout("attn.attention", "mlp.act", "ln_1", "ln_2"),
    "gpt_neox": SubBlockLayout("attention", "mlp.act", "input_layernorm", "post_attention_layernorm"),
    "distilbert": SubBlockLayout("attention", "ffn.activation"),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), _BERT),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "olmo"), _LLAMA),
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA),
    **dict.fromkeys(("olmo2", "olmo3"), _OLMO2),
    **dict.fromkeys(("mixtral", "olmoe", "qwen3_moe", "qwen2_moe"), _LLAMA),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "dots1", "glm4_moe"), _LLAMA),
}
_T5_LIKE: Mapping[str, str] = {"t5": "DenseReluDense", "mt5": "DenseReluDense", "switch_transformers": "mlp"}


def sub_block_layout(architecture: Architecture, stack: StackName) -> SubBlockLayout:
    """Layout of the sub-blocks of one stack.

    Raises
    ------
    ModelError
        The architecture has a row in the site table, but none here.
    """
    name = architecture.model_type
    if name in _T5_LIKE:
        index = 1 if stack == "encoder" else 2
        return SubBlockLayout(
            "layer.0.SelfAttention",
            f"layer.{index}.{_T5_LIKE[name]}.act",
            "layer.0.layer_norm",
            f"layer.{index}.layer_norm",
        )
    if name not in _TABLE:
        raise ModelError(
            f"the sub-blocks of architecture {name!r} are not described; known: "
            f"{', '.join(sorted((*_TABLE, *_T5_LIKE)))}. Add a row in modularity/models/sub_block_layouts.py"
        )
    return _TABLE[name]
