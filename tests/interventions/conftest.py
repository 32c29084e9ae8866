"""Tiny random models with their LM head, dense and with experts, token batches, and a tokenizer of words."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from modularity.data import Example, FunctionData, Pooling, TokenBatch
from modularity.models import HeadModel, wrap_head_model

sys.path.insert(0, str(Path(__file__).parent))

VOCABULARY = 48
PAD = 0
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
    "intermediate_size": 24,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_LLAMA = {**_COMMON, "num_key_value_heads": 2}
_MOE = {**_LLAMA, "num_experts_per_tok": 2}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "pad_token_id": PAD,
    "decoder_start_token_id": PAD,
}
_SWITCH = {
    **_T5,
    "num_experts": 5,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "expert_capacity": 64,
}
_GPT = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 24}
_GPT |= {"bos_token_id": 2, "eos_token_id": 3}
_DISTILBERT = {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 24, "pad_token_id": PAD}
_CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "opt": ("OPTConfig", "CausalLM", {**_COMMON, "ffn_dim": 24, "word_embed_proj_dim": 32}),
    "gpt2": ("GPT2Config", "CausalLM", _GPT),
    "gpt_neox": ("GPTNeoXConfig", "CausalLM", _COMMON),
    "llama": ("LlamaConfig", "CausalLM", _LLAMA),
    "gemma2": ("Gemma2Config", "CausalLM", {**_LLAMA, "head_dim": 8}),
    "bert": ("BertConfig", "MaskedLM", _COMMON),
    "roberta": ("RobertaConfig", "MaskedLM", _COMMON),
    "distilbert": ("DistilBertConfig", "MaskedLM", _DISTILBERT),
    "t5": ("T5Config", "Seq2SeqLM", _T5),
    "flan-t5": ("T5Config", "Seq2SeqLM", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "switch": ("SwitchTransformersConfig", "Seq2SeqLM", _SWITCH),
    "olmoe": ("OlmoeConfig", "CausalLM", {**_MOE, "num_experts": 5}),
    "mixtral": ("MixtralConfig", "CausalLM", {**_MOE, "num_local_experts": 5}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "CausalLM",
        {**_MOE, "moe_intermediate_size": 24, "num_experts": 5, "head_dim": 8, "norm_topk_prob": True},
    ),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        "CausalLM",
        {**_MOE, "moe_intermediate_size": 24, "num_experts": 5, "shared_expert_intermediate_size": 40},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices of width 32 gain nothing from threads."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def tiny(word_tokenizer: Any) -> Callable[..., HeadModel]:
    """`tiny("opt", dtype=torch.float32, **changes)`: a model with its LM head, 24 neurons in each of 2 layers."""

    def build(name: str, *, dtype: torch.dtype = torch.float32, **changes: Any) -> HeadModel:
        config_class, head, arguments = _CONFIGS[name]
        config = getattr(transformers, config_class)(**arguments | changes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            module = getattr(transformers, f"AutoModelFor{head}").from_config(config)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(0.15 * torch.randn(parameter.shape))
        return wrap_head_model(module.to(dtype), word_tokenizer, name=f"tiny-{name}")

    return build


@pytest.fixture(scope="session")
def word_tokenizer() -> Any:
    """Word-level tokenizer of the words w0 … w42, with [PAD], [UNK], [CLS], [SEP] and [MASK]; adds no special token."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(VOCABULARY - 5))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., TokenBatch]:
    """`batch_of([5, 7], left=False, seed=0)`: random tokens, those of an example the same in every batch."""

    def build(lengths: Sequence[int], *, left: bool = False, seed: int = 0, first: int = 0) -> TokenBatch:
        longest = max(lengths)
        ids = np.full((len(lengths), longest), PAD, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        for example, length in enumerate(lengths):
            span = slice(longest - length, None) if left else slice(0, length)
            ids[example, span] = np.random.default_rng((seed, first + example)).integers(5, VOCABULARY, length)
            mask[example, span] = True
        return TokenBatch(ids, mask, None, mask, np.arange(len(lengths)), None, int(mask.sum()), not mask.all())

    return build


@pytest.fixture(scope="session")
def function_of() -> Callable[..., FunctionData]:
    """Function from texts and labels (one row of labels for each sub-function)."""

    def build(texts: Sequence[str], labels: Any, *, name: str = "demo") -> FunctionData:
        labels_SE = np.atleast_2d(np.array(labels, dtype=np.int8))
        examples = tuple(
            Example(f"e{number}", text, None, None, None, f"demo:{number}", f"{number}")
            for number, text in enumerate(texts)
        )
        return FunctionData(
            name=name,
            kind="task",
            subfunctions=tuple(f"s{number}" for number in range(len(labels_SE))),
            examples=examples,
            labels_SE=labels_SE,
            selection_E=np.arange(len(texts)) % 2 == 0,
            cluster_E=np.arange(len(texts), dtype=np.int32),
            fingerprint="0" * 16,
            pooling=Pooling(),
        )

    return build


@pytest.fixture(scope="session")
def n_hooks() -> Callable[[HeadModel], int]:
    """Number of hooks on all modules of a model."""
    return lambda model: sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.module.modules())
