"""The declarative table of architectures: where each `config.model_type` keeps its blocks and out-projections.

A row holds paths, not code. Paths of a stack are relative to the base model (what `AutoModel` builds, without LM head),
the others to one block. `sites.py` resolves them on a module; a path that does not exist there is a SiteError.

What the sites mean where architectures differ:

- `ffn.neurons` is the input of the FFN's out-projection; for gated FFNs (LLaMA-like, Flan-T5, mT5) the product
  act(gate) * up, not the output of the activation function.
- `ffn.output` and `attention.output` are the outputs of the out-projections, bias included, before dropout, before any
  norm and before the residual sum. In Gemma 2 and 3 and OLMo 2 and 3 a norm follows before the sum; in BERT-like models
  and OPT-350M the norm follows after the sum.
- `attention.*` is self-attention. The cross-attention of decoders has no site.
- `residual` at the last depth is the output of the last block, before the final norm; `hidden_states[-1]` of Hugging
  Face models is the value after it.
- OPT-350M embeds in another width: its residual stream, depth 0 included, is what `project_in` has produced.
- A mixture-of-experts model has *sparse* layers, whose FFN is made of experts, and may have dense ones. The neurons of
  a sparse layer are those of all its experts, expert-major; `ffn.output` is the output of the whole FFN, the experts
  weighted by the router. `router.probabilities` and `router.choices` exist in sparse layers only.
- A *shared* expert (Qwen2-MoE, DeepSeek) processes every token of a sparse layer beside the routed experts. Its neurons
  are a site of their own, `shared_expert.neurons`: they have a value for every token, no router decides about them, and
  they are usually more than those of a routed expert. `ffn.output` is the sum of both. The gate that Qwen2-MoE applies
  to what the shared expert writes comes after its neurons, as the router's weight after those of a routed expert.
- `router.probabilities` of DeepSeek-V3 and its kin are sigmoids, which need not sum to 1, without the bias that is
  added for the choice only.
- Switch Transformers: transformers 5 before pull request 48421 did not apply the capacity of experts, so no token was
  dropped. Since then it is counted per sequence, in the order of positions, padding included: pad on the right.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from modularity.errors import InputError, ModelError
from modularity.types import StackName

RouterScores = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class ExpertLayout:
    """Paths of a sparse FFN, in a block; a block without the module `experts` has the dense FFN of its stack."""

    ffn: str
    """The FFN as a whole (`mlp`)."""
    experts: str
    """Module that is called with hidden states, the router's choices and its weights (`mlp.experts`)."""
    router: str
    """Module whose output, or the first element of it, are the logits of the router (`mlp.gate`)."""
    kind: Literal["fused", "modules"]
    """`fused`: 3-D parameters of `experts`; `modules`: its children are the experts, in order."""
    expert_in: str = ""
    """In-projection, in an expert that is a module (`wi`)."""
    expert_out: str = ""
    """Out-projection (`wo`)."""
    expert_activation: str = ""
    """Activation function (`act`)."""
    scores: RouterScores = "softmax"
    """What makes probabilities of the router's logits."""
    chooses_best: bool = True
    """True where the experts with the highest logits of all are chosen and weighted by their probabilities; False where
    they are chosen within groups of experts, or by a bias that is added for the choice."""
    shared_out: str | None = None
    """Out-projection of the shared expert, in a block (`mlp.shared_expert.down_proj`); None: there is none."""
    shared_gate: str = "gate_proj"
    """Projection into its activation function, beside the out-projection."""
    shared_up: str = "up_proj"
    """Its linear factor, likewise."""
    shared_first: bool = False
    """True where the shared expert runs before the router, False where it runs after the routed experts."""


@dataclass(frozen=True)
class StackLayout:
    """Paths of one stack of blocks."""

    stack: StackName
    blocks: str
    """Path of the list of blocks in the base model (`decoder.layers`)."""
    ffn_out: str
    """FFN out-projection, in a block (`fc2`)."""
    attention_out: str
    """Out-projection of the self-attention, in a block (`self_attn.out_proj`)."""
    head_width: str
    """Attribute that holds K, in a block (`self_attn.head_dim`)."""
    ffn_in: str | None = None
    """In-projection of an FFN without gate, in a block (`fc1`)."""
    ffn_gate: str | None = None
    """Projection into the activation function of a gated FFN (`mlp.gate_proj`)."""
    ffn_up: str | None = None
    """Linear projection of a gated FFN (`mlp.up_proj`). T5 has both kinds: the gate is used where it exists."""
    experts: ExpertLayout | None = None
    """Sparse FFNs; None: all are dense."""


@dataclass(frozen=True)
class Architecture:
    """One row of the table: what a `config.model_type` stands for."""

    model_type: str
    stacks: tuple[StackLayout, ...]
    """In firing order."""
    max_positions: str | None = "max_position_embeddings"
    """Config attribute with the longest input in tokens; None = relative positions without a limit."""
    positions_after_padding: bool = False
    """True where positions count from `pad_token_id + 1` (RoBERTa), which shortens the longest input."""
    ffn_flattened: bool = False
    """True where the FFN out-projection receives [B*T, F] (OPT)."""
    ffn_chunked: bool = False
    """True where `config.chunk_size_feed_forward` makes the FFN run in slices of positions."""
    build_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the model class. BERT-like poolers are left out: many checkpoints lack their weights."""

    def longest_input(self, hf_config: Any) -> int | None:
        """Longest input in tokens that the position embeddings (or the pre-training, if rotary) allow; None = any."""
        if self.max_positions is None:
            return None
        reserved = hf_config.pad_token_id + 1 if self.positions_after_padding else 0
        return int(getattr(hf_config, self.max_positions)) - reserved


_FUSED = ExpertLayout(ffn="mlp", experts="mlp.experts", router="mlp.gate", kind="fused")
_DEEPSEEK_LIKE = replace(_FUSED, shared_out="mlp.shared_experts.down_proj", chooses_best=False)


def _llama_like(
    model_type: str, *, experts: ExpertLayout | None = None, head_width: str = "self_attn.head_dim"
) -> Architecture:
    layout = StackLayout(
        stack="decoder",
        blocks="layers",
        ffn_out="mlp.down_proj",
        ffn_gate="mlp.gate_proj",
        ffn_up="mlp.up_proj",
        attention_out="self_attn.o_proj",
        head_width=head_width,
        experts=experts,
    )
    return Architecture(model_type, (layout,))


def _bert_like(model_type: str, *, positions_after_padding: bool) -> Architecture:
    layout = StackLayout(
        stack="encoder",
        blocks="encoder.layer",
        ffn_out="output.dense",
        ffn_in="intermediate.dense",
        attention_out="attention.output.dense",
        head_width="attention.self.attention_head_size",
    )
    return Architecture(
        model_type,
        (layout,),
        positions_after_padding=positions_after_padding,
        ffn_chunked=True,
        build_options={"add_pooling_layer": False},
    )


def _t5_stack(stack: StackName, ffn_index: int) -> StackLayout:
    ffn = f"layer.{ffn_index}.DenseReluDense"
    return StackLayout(
        stack=stack,
        blocks=f"{stack}.block",
        ffn_out=f"{ffn}.wo",
        ffn_in=f"{ffn}.wi",
        ffn_gate=f"{ffn}.wi_0",
        ffn_up=f"{ffn}.wi_1",
        attention_out="layer.0.SelfAttention.o",
        head_width="layer.0.SelfAttention.key_value_proj_dim",
    )


def _t5_like(model_type: str) -> Architecture:
    return Architecture(model_type, (_t5_stack("encoder", 1), _t5_stack("decoder", 2)), max_positions=None)


def _switch_stack(stack: StackName, ffn_index: int) -> StackLayout:
    ffn = f"layer.{ffn_index}.mlp"
    return StackLayout(
        stack=stack,
        blocks=f"{stack}.block",
        ffn_out=f"{ffn}.wo",
        ffn_in=f"{ffn}.wi",
        attention_out="layer.0.SelfAttention.o",
        head_width="layer.0.SelfAttention.key_value_proj_dim",
        experts=ExpertLayout(
            ffn=ffn,
            experts=f"{ffn}.experts",
            # The order of what the router returns depends on the version of transformers; its logits come from here.
            router=f"{ffn}.router.classifier",
            kind="modules",
            expert_in="wi",
            expert_out="wo",
            expert_activation="act",
        ),
    )


_SWITCH = Architecture(
    "switch_transformers", (_switch_stack("encoder", 1), _switch_stack("decoder", 2)), max_positions=None
)
_OPT = Architecture(
    "opt",
    (
        StackLayout(
            stack="decoder",
            blocks="decoder.layers",
            ffn_out="fc2",
            ffn_in="fc1",
            attention_out="self_attn.out_proj",
            head_width="self_attn.head_dim",
        ),
    ),
    ffn_flattened=True,
)
_GPT2 = Architecture(
    "gpt2",
    (
        StackLayout(
            stack="decoder",
            blocks="h",
            ffn_out="mlp.c_proj",
            ffn_in="mlp.c_fc",
            attention_out="attn.c_proj",
            head_width="attn.head_dim",
        ),
    ),
)
_GPT_NEO = Architecture(
    "gpt_neo",
    (
        StackLayout(
            stack="decoder",
            blocks="h",
            ffn_out="mlp.c_proj",
            ffn_in="mlp.c_fc",
            attention_out="attn.attention.out_proj",
            head_width="attn.attention.head_dim",
        ),
    ),
)
_GPT_NEOX = Architecture(
    "gpt_neox",
    (
        StackLayout(
            stack="decoder",
            blocks="layers",
            ffn_out="mlp.dense_4h_to_h",
            ffn_in="mlp.dense_h_to_4h",
            attention_out="attention.dense",
            head_width="attention.head_size",
        ),
    ),
)
_DISTILBERT = Architecture(
    "distilbert",
    (
        StackLayout(
            stack="encoder",
            blocks="transformer.layer",
            ffn_out="ffn.lin2",
            ffn_in="ffn.lin1",
            attention_out="attention.out_lin",
            head_width="attention.attention_head_size",
        ),
    ),
    ffn_chunked=True,
)
_LLAMA_LIKE = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "olmo",
    "olmo2",
    "olmo3",
)
_FUSED_EXPERTS = ("mixtral", "olmoe", "qwen3_moe")
# Of DeepSeek's latent attention only the values have the width that enters the out-projection.
_SHARED_EXPERTS = (
    _llama_like("qwen2_moe", experts=replace(_FUSED, shared_out="mlp.shared_expert.down_proj", shared_first=True)),
    _llama_like("deepseek_v2", experts=_DEEPSEEK_LIKE, head_width="self_attn.v_head_dim"),
    _llama_like("deepseek_v3", experts=replace(_DEEPSEEK_LIKE, scores="sigmoid"), head_width="self_attn.v_head_dim"),
    _llama_like("dots1", experts=replace(_DEEPSEEK_LIKE, scores="sigmoid")),
    _llama_like("glm4_moe", experts=replace(_DEEPSEEK_LIKE, scores="sigmoid")),
)
_ROWS = (
    _OPT,
    _GPT2,
    _GPT_NEO,
    _GPT_NEOX,
    _DISTILBERT,
    _bert_like("bert", positions_after_padding=False),
    _bert_like("roberta", positions_after_padding=True),
    _bert_like("xlm-roberta", positions_after_padding=True),
    _t5_like("t5"),
    _t5_like("mt5"),
    *(_llama_like(model_type) for model_type in _LLAMA_LIKE),
    _SWITCH,
    *(_llama_like(model_type, experts=_FUSED) for model_type in _FUSED_EXPERTS),
    *_SHARED_EXPERTS,
)
_TABLE: dict[str, Architecture] = {row.model_type: row for row in _ROWS}
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok")


def known_architectures() -> tuple[str, ...]:
    """Model types in the table, in alphabetical order."""
    return tuple(sorted(_TABLE))


def architecture_of(model_type: str, hf_config: Any = None) -> Architecture:
    """Row of a `config.model_type`; ModelError lists the known ones and says how to add a row.

    Of a model whose `hf_config` shows that it has experts, the message names the known ones with experts.
    """
    if model_type not in _TABLE:
        if any(_number(hf_config, name) > 1 for name in _EXPERT_COUNTS):
            raise ModelError(_unknown_experts(model_type))
        raise ModelError(
            f"model type {model_type!r} is not in the site table; known: {', '.join(known_architectures())}. Add a row "
            f"with modularity.models.register_architecture: it names the list of blocks and, in a block, the FFN and "
            f"attention projections"
        )
    return _TABLE[model_type]


def restricted_routing_problem(model_type: str) -> str | None:
    """Why routers of this `config.model_type` cannot be restricted to some experts; None where they can be.

    A dense model has no router to restrict, and no problem here. ModelError as `architecture_of`.
    """
    sparse = [layout.experts for layout in architecture_of(model_type).stacks if layout.experts is not None]
    if all(experts.chooses_best for experts in sparse):
        return None
    able = [
        row.model_type
        for row in _TABLE.values()
        if any(layout.experts is not None and layout.experts.chooses_best for layout in row.stacks)
    ]
    return (
        f"routers of {model_type!r} choose within groups of experts or by a bias, and cannot be restricted to some of "
        f"them; expected one of {', '.join(sorted(able))}"
    )


def _number(hf_config: Any, name: str) -> int:
    value = getattr(hf_config, name, None)
    return value if isinstance(value, int) else 0


def _unknown_experts(model_type: str) -> str:
    known = [row.model_type for row in _TABLE.values() if any(layout.experts is not None for layout in row.stacks)]
    return (
        f"model type {model_type!r} is a mixture of experts that is not in the site table; of this kind it has "
        f"{', '.join(sorted(known))}. For fused experts, with or without shared ones, add a row with "
        f"modularity.models.register_architecture, its StackLayout with experts=ExpertLayout(…)"
    )


def register_architecture(row: Architecture) -> None:
    """Add a row to the table of this process; every later `load_model` and `describe_model` knows it.

    In a job that runs on several processes, call it at import time of a module that all of them import.

    Parameters
    ----------
    row : the paths of one `config.model_type`. With a layout as LLaMA's::

        register_architecture(Architecture("my_model", (StackLayout(
            stack="decoder", blocks="layers", ffn_out="mlp.down_proj", ffn_gate="mlp.gate_proj", ffn_up="mlp.up_proj",
            attention_out="self_attn.o_proj", head_width="self_attn.head_dim"),)))

    Raises
    ------
    InputError
        The model type is known with other paths, a stack appears twice, or a layout names no in-projection.
    """
    problems = []
    if row != _TABLE.get(row.model_type, row):
        problems.append(f"model type {row.model_type!r} is already in the site table with other paths")
    names = [layout.stack for layout in row.stacks]
    if not names or len(set(names)) < len(names):
        problems.append(f"model type {row.model_type!r} has stacks {names}, expected one or two different ones")
    problems += [
        f"{row.model_type}/{layout.stack} needs ffn_in, or ffn_gate and ffn_up for a gated FFN"
        for layout in row.stacks
        if layout.ffn_in is None and (layout.ffn_gate is None or layout.ffn_up is None)
    ]
    if problems:
        raise InputError(problems)
    _TABLE[row.model_type] = row
