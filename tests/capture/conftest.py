"""Tiny random models of several architectures, and token batches for them."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DeepseekV3Config,
    DeepseekV3Model,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXModel,
    LlamaConfig,
    LlamaModel,
    MixtralConfig,
    MixtralModel,
    OlmoeConfig,
    OlmoeModel,
    OPTConfig,
    OPTModel,
    Qwen2MoeConfig,
    Qwen2MoeModel,
    Qwen3MoeConfig,
    Qwen3MoeModel,
    RobertaConfig,
    RobertaModel,
    SwitchTransformersConfig,
    SwitchTransformersModel,
    T5Config,
    T5Model,
)

from modularity.capture import Capturer, CaptureStats
from modularity.data import Gather, TokenBatch, TokenTable
from modularity.models import LoadedModel, wrap_model
from modularity.store import stored_dtype
from modularity.types import Site

VOCABULARY = 97
PAD = 1

_BERT_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
}
_LLAMA_LIKE = _BERT_LIKE | {"num_key_value_heads": 2, "num_experts_per_tok": 2}
_MODELS = {
    "opt": lambda changes: OPTModel(
        OPTConfig(
            **{
                "vocab_size": VOCABULARY,
                "hidden_size": 32,
                "word_embed_proj_dim": 32,
                "ffn_dim": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "max_position_embeddings": 64,
                "pad_token_id": PAD,
            }
            | changes
        )
    ),
    "gpt2": lambda changes: GPT2Model(
        GPT2Config(
            **{"vocab_size": VOCABULARY, "n_embd": 32, "n_inner": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
            | {"bos_token_id": 2, "eos_token_id": 2}
            | changes
        )
    ),
    "gpt_neox": lambda changes: GPTNeoXModel(GPTNeoXConfig(**_BERT_LIKE | changes)),
    "bert": lambda changes: BertModel(BertConfig(**_BERT_LIKE | changes), add_pooling_layer=False),
    "roberta": lambda changes: RobertaModel(RobertaConfig(**_BERT_LIKE | changes), add_pooling_layer=False),
    "distilbert": lambda changes: DistilBertModel(
        DistilBertConfig(
            **{"vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4, "pad_token_id": PAD}
            | {"max_position_embeddings": 64}
            | changes
        )
    ),
    "llama": lambda changes: LlamaModel(LlamaConfig(**_BERT_LIKE | {"num_key_value_heads": 2} | changes)),
    "t5": lambda changes: T5Model(
        T5Config(
            **{"vocab_size": VOCABULARY, "d_model": 32, "d_ff": 48, "num_layers": 3, "num_heads": 4, "d_kv": 8}
            | {"pad_token_id": PAD, "decoder_start_token_id": PAD}
            | changes
        )
    ),
    "mixtral": lambda changes: MixtralModel(
        MixtralConfig(**_LLAMA_LIKE | {"intermediate_size": 16, "num_local_experts": 6} | changes)
    ),
    "olmoe": lambda changes: OlmoeModel(
        OlmoeConfig(**_LLAMA_LIKE | {"intermediate_size": 16, "num_experts": 6} | changes)
    ),
    "qwen3_moe": lambda changes: Qwen3MoeModel(
        Qwen3MoeConfig(
            **_LLAMA_LIKE
            | {"moe_intermediate_size": 16, "num_experts": 6, "head_dim": 8, "mlp_only_layers": [1]}
            | changes
        )
    ),
    "qwen2_moe": lambda changes: Qwen2MoeModel(
        Qwen2MoeConfig(
            **_LLAMA_LIKE
            | {"moe_intermediate_size": 16, "num_experts": 6, "shared_expert_intermediate_size": 40}
            | {"mlp_only_layers": [1]}
            | changes
        )
    ),
    "deepseek_v3": lambda changes: DeepseekV3Model(
        DeepseekV3Config(
            **_LLAMA_LIKE
            | {"moe_intermediate_size": 16, "n_routed_experts": 6, "n_shared_experts": 2, "first_k_dense_replace": 1}
            | {"n_group": 2, "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "num_key_value_heads": 4}
            | {"qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
            | changes
        )
    ),
    "switch": lambda changes: SwitchTransformersModel(
        SwitchTransformersConfig(
            **{"vocab_size": VOCABULARY, "d_model": 32, "d_ff": 16, "num_layers": 4, "num_heads": 4, "d_kv": 8}
            | {"num_sparse_encoder_layers": 2, "num_decoder_layers": 2, "num_sparse_decoder_layers": 1}
            | {"num_experts": 4, "expert_capacity": 2, "pad_token_id": PAD, "decoder_start_token_id": PAD}
            | changes
        )
    ),
}
FFN_OUT = {
    "opt": "decoder.layers.{}.fc2",
    "gpt2": "h.{}.mlp.c_proj",
    "gpt_neox": "layers.{}.mlp.dense_4h_to_h",
    "bert": "encoder.layer.{}.output.dense",
    "roberta": "encoder.layer.{}.output.dense",
    "distilbert": "transformer.layer.{}.ffn.lin2",
    "llama": "layers.{}.mlp.down_proj",
    "t5": "encoder.block.{}.layer.1.DenseReluDense.wo",
}


@pytest.fixture
def tiny() -> Callable[..., LoadedModel]:
    """`tiny("opt", dtype=torch.float32, **config)`: a loaded model of 3 layers with 48 neurons each."""

    def build(name: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: object) -> LoadedModel:
        torch.manual_seed(seed)
        module = _MODELS[name](changes).to(dtype)
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(4)
        return wrap_model(module, None, name=f"tiny-{name}")

    return build


@pytest.fixture
def ffn_out() -> dict[str, str]:
    """Path of each architecture's FFN out-projection, written down a second time, apart from the site table."""
    return FFN_OUT


@pytest.fixture
def batch_of() -> Callable[..., TokenBatch]:
    """`batch_of([5, 7], first_row=0, pooled=True, left=False)`: random ids, padded to the longest, rows in order."""

    def build(
        lengths: Sequence[int], *, first_row: int = 0, pooled: bool = True, left: bool = False, seed: int = 0
    ) -> TokenBatch:
        rng = np.random.default_rng(seed)
        longest = max(lengths)
        ids = np.full((len(lengths), longest), PAD, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        for example, length in enumerate(lengths):
            span = slice(longest - length, None) if left else slice(0, length)
            ids[example, span] = rng.integers(3, VOCABULARY, length)
            mask[example, span] = True
        example_G, position_G = np.nonzero(mask)
        return TokenBatch(
            input_ids_BT=ids,
            attention_mask_BT=mask,
            type_ids_BT=None,
            pool_mask_BT=mask if pooled else None,
            rows_B=first_row + np.arange(len(lengths)) if pooled else None,
            gather=None if pooled else Gather(example_G, position_G, first_row + np.arange(len(example_G))),
            n_tokens=int(mask.sum()),
            is_padded=not mask.all(),
        )

    return build


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost more than they save on models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def neurons() -> Callable[[LoadedModel], Site]:
    """The `ffn.neurons` site of a model's first stack."""
    return lambda model: Site(model.sites.stacks[0], "ffn.neurons")


@pytest.fixture
def run(neurons) -> Callable[..., tuple[dict[Site, np.ndarray], CaptureStats]]:
    """Capture batches into fresh arrays filled with sevens: `run(model, batches, n_rows=…)` -> (out, stats)."""

    def capture(model, batches, *, n_rows, sites=None, layers=None, row_start=0, reduction="max", dtype="float32"):
        sites = [neurons(model)] if sites is None else sites
        capturer = Capturer(model, sites, layers=layers, storage_dtype=dtype)
        out = {
            site: np.full((n_rows, len(shape.layers), *shape.unit_shape), 7, dtype=stored_dtype(dtype))
            for site, shape in capturer.shapes.items()
        }
        return out, capturer.capture(batches, out, row_start, reduction=reduction)

    return capture


@pytest.fixture
def n_hooks() -> Callable[[LoadedModel], int]:
    """Number of hooks on all modules of a model."""
    return lambda model: sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.module.modules())


RAGGED = np.array([5, 3, 17, 1, 9, 4, 30, 2])


def _ragged_table(*, pooled: bool) -> TokenTable:
    n_tokens, n_examples = int(RAGGED.sum()), len(RAGGED)
    return TokenTable(
        token_ids=np.random.default_rng(0).integers(2, 97, n_tokens).astype(np.int32),
        type_ids=None,
        offsets_E1=np.concatenate([[0], np.cumsum(RAGGED)]),
        truncated_E=np.zeros(n_examples, bool),
        row_example_R=np.arange(n_examples) if pooled else np.repeat(np.arange(n_examples), RAGGED),
        row_position_R=np.full(n_examples, -1) if pooled else np.concatenate([np.arange(n) for n in RAGGED]),
        reduction="max" if pooled else None,
        pool_mask=np.ones(n_tokens, bool) if pooled else None,
        fingerprint="0" * 16,
    )


@pytest.fixture
def table_of():
    """Makes the token table of eight examples of 1 to 30 tokens: `pooled`, or every token a row."""
    return _ragged_table
