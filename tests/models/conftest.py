"""Tiny random models of every architecture, a tokenizer in memory, and checkpoints saved to temporary folders."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from modularity.models import LoadedModel, wrap_model
from modularity.models.architectures import architecture_of
from modularity.models.loading import build_module

VOCABULARY = 48
_GPT = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 37}
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_BERT = {**_COMMON, "num_hidden_layers": 3, "intermediate_size": 37, "type_vocab_size": 2}
_LLAMA = {**_COMMON, "num_key_value_heads": 2, "intermediate_size": 37, "bos_token_id": 2, "eos_token_id": 3}
_OPT = {**_COMMON, "ffn_dim": 37, "num_hidden_layers": 3, "bos_token_id": 2, "eos_token_id": 3}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 37,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
# 24: grouped matrix products in half precision need rows of a multiple of 16 bytes.
_MOE = {**_LLAMA, "intermediate_size": 24, "num_experts_per_tok": 2}
_SWITCH = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 4,
    "num_sparse_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_sparse_decoder_layers": 1,
    "num_heads": 4,
    "num_experts": 3,
    "expert_capacity": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
_SHARED = {**_MOE, "intermediate_size": 37, "moe_intermediate_size": 24}
_DEEPSEEK = {**_SHARED, "n_routed_experts": 4, "n_shared_experts": 2, "first_k_dense_replace": 1}
_GROUPS = {"n_group": 2, "topk_group": 1}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
}
# name -> (config class, arguments); where the model type differs from the name, the arguments make the difference
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": ("OPTConfig", {**_OPT, "word_embed_proj_dim": 32}),
    "opt-350m": ("OPTConfig", {**_OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "gpt2": ("GPT2Config", {**_GPT, "bos_token_id": 2, "eos_token_id": 3}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "bos_token_id": 2,
            "eos_token_id": 3,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_size": 37,
            "window_size": 3,
            "attention_types": [[["global", "local"], 1]],
        },
    ),
    "gpt_neox": ("GPTNeoXConfig", {**_COMMON, "intermediate_size": 37}),
    "gpt_neox-serial": ("GPTNeoXConfig", {**_COMMON, "intermediate_size": 37, "use_parallel_residual": False}),
    "bert": ("BertConfig", _BERT),
    "roberta": ("RobertaConfig", {**_BERT, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRobertaConfig", {**_BERT, "pad_token_id": 1}),
    "distilbert": (
        "DistilBertConfig",
        {
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
            "dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 37,
        },
    ),
    "t5": ("T5Config", {**_T5, "feed_forward_proj": "relu"}),
    "flan-t5": ("T5Config", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mt5": ("MT5Config", {**_T5, "feed_forward_proj": "gated-gelu"}),
    "llama": ("LlamaConfig", _LLAMA),
    "mistral": ("MistralConfig", {**_LLAMA, "sliding_window": 4}),
    "qwen2": ("Qwen2Config", _LLAMA),
    "qwen3": ("Qwen3Config", {**_LLAMA, "head_dim": 12}),
    "gemma": ("GemmaConfig", {**_LLAMA, "head_dim": 12}),
    "gemma2": ("Gemma2Config", {**_LLAMA, "head_dim": 12, "sliding_window": 4}),
    "gemma3_text": ("Gemma3TextConfig", {**_LLAMA, "head_dim": 12, "sliding_window": 4}),
    "olmo": ("OlmoConfig", _LLAMA),
    "olmo2": ("Olmo2Config", _LLAMA),
    "olmo3": ("Olmo3Config", {**_LLAMA, "sliding_window": 4}),
    "olmoe": ("OlmoeConfig", {**_MOE, "num_experts": 5}),
    "mixtral": ("MixtralConfig", {**_MOE, "num_local_experts": 5}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**_MOE, "intermediate_size": 37, "moe_intermediate_size": 24, "num_experts": 5, "head_dim": 12}
        | {"norm_topk_prob": True, "mlp_only_layers": [0]},
    ),
    "switch": ("SwitchTransformersConfig", _SWITCH),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**_SHARED, "num_experts": 5, "shared_expert_intermediate_size": 40, "mlp_only_layers": [0]},
    ),
    "deepseek_v2": ("DeepseekV2Config", {**_DEEPSEEK, **_LATENT, "topk_method": "greedy"}),
    "deepseek_v3": ("DeepseekV3Config", {**_DEEPSEEK, **_LATENT, **_GROUPS}),
    "dots1": ("Dots1Config", {**_DEEPSEEK, **_GROUPS}),
    "glm4_moe": ("Glm4MoeConfig", {**_DEEPSEEK, **_GROUPS, "head_dim": 12}),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices of width 32 gain nothing from threads, and lose much where other processes want the cores."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., Any]:
    """Config of a tiny model by name, with changes."""

    def build(name: str, **changes: Any) -> Any:
        class_name, arguments = _CONFIGS[name]
        return getattr(transformers, class_name)(**{**arguments, **changes})

    return build


@pytest.fixture(scope="session")
def tiny_model(tiny_config: Callable[..., Any]) -> Callable[..., LoadedModel]:
    """Tiny base model by name; every parameter is moved off its initial value, biases and norms included."""

    def build(name: str, *, dtype: str = "float32", attention: str | None = None, **changes: Any) -> LoadedModel:
        config = tiny_config(name, **changes)
        options = {} if attention is None else {"attn_implementation": attention}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            module = build_module(config, architecture_of(config.model_type), dtype=dtype, **options)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape).to(parameter.dtype))
        return wrap_model(module, None, name=name)

    return build


@pytest.fixture(scope="session")
def tiny_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Word-level tokenizer of 48 words with the special tokens of BERT."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(VOCABULARY - 4))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.fixture
def save_checkpoint(
    tmp_path: Path, tiny_config: Callable[..., Any], tiny_tokenizer: Any
) -> Callable[..., tuple[Path, Any]]:
    """Write a tiny checkpoint with tokenizer and return its folder and the module that was saved."""

    def save(name: str, auto_class: str = "AutoModel", *, dtype: str = "float32", **changes: Any) -> tuple[Path, Any]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            module = getattr(transformers, auto_class).from_config(
                tiny_config(name, **changes), dtype=getattr(torch, dtype)
            )
        folder = tmp_path / f"{name}-{auto_class}-{dtype}"
        module.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return folder, module

    return save
