"""The models that are trained: Hugging Face classes with ReLU neurons, without dropout, from a seed; and their loss.

Word and verdict losses are means of their own, added: a verdict is one token of a text, and would hardly count among
its words. Sparse layers add the load-balancing loss of Fedus et al. 2021 (arXiv 2101.03961, equation 4), over real
tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers import (
    OPTConfig,
    OPTForCausalLM,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from modularity.data.language_tokenizer import END, PAD, START, TOKEN_IDS
from modularity.data.language_words import NO, YES
from modularity.pretraining.config import PretrainConfig
from modularity.pretraining.corpus import IGNORED, MAX_TOKENS, Corpus

_BALANCE = 0.01
"""Weight of the load-balancing loss, as Fedus et al. have it."""


def build_module(config: PretrainConfig) -> nn.Module:
    """Untrained model with its head, in float32 on the CPU, the same for a seed."""
    make = {"opt": _opt, "t5": _t5, "switch": _switch}[config.architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module: nn.Module = make(config)
    return module.float()


def _marks() -> dict[str, int]:
    return {"pad_token_id": TOKEN_IDS[PAD], "eos_token_id": TOKEN_IDS[END], "bos_token_id": TOKEN_IDS[START]}


def _opt(config: PretrainConfig) -> nn.Module:
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=len(TOKEN_IDS),
            hidden_size=config.width,
            word_embed_proj_dim=config.width,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            ffn_dim=config.n_neurons,
            max_position_embeddings=MAX_TOKENS,
            activation_function="relu",
            init_std=0.5 * config.width**-0.5,
            dropout=0.0,
            attention_dropout=0.0,
            **_marks(),
        )
    )


def _encoder_decoder(config: PretrainConfig) -> dict[str, Any]:
    return {
        "vocab_size": len(TOKEN_IDS),
        "d_model": config.width,
        "d_kv": config.width // config.n_heads,
        "d_ff": config.n_neurons,
        "num_layers": config.n_layers,
        "num_decoder_layers": config.n_layers,
        "num_heads": config.n_heads,
        "dropout_rate": 0.0,
        "decoder_start_token_id": TOKEN_IDS[PAD],
        **_marks(),
    }


def _t5(config: PretrainConfig) -> nn.Module:
    return T5ForConditionalGeneration(T5Config(feed_forward_proj="relu", **_encoder_decoder(config)))


def _switch(config: PretrainConfig) -> nn.Module:
    n_sparse = config.n_layers // 2
    return SwitchTransformersForConditionalGeneration(
        SwitchTransformersConfig(
            dense_act_fn="relu",
            num_experts=config.n_experts,
            expert_capacity=config.expert_capacity,
            num_sparse_encoder_layers=n_sparse,
            num_sparse_decoder_layers=n_sparse,
            router_jitter_noise=0.0,
            **_encoder_decoder(config),
        )
    )


def forward_logits(module: nn.Module, inputs_NT: torch.Tensor, targets_NU: torch.Tensor) -> torch.Tensor:
    """Logits at every place of the targets, of shape (N, U, vocabulary).

    Parameters
    ----------
    module : from `build_module`
    inputs_NT : int64 token ids, 0 where padded
    targets_NU : int64; decoders do not read them, encoder-decoders read them shifted by one, -100 as padding
    """
    mask = inputs_NT != TOKEN_IDS[PAD]
    if not module.config.is_encoder_decoder:  # type: ignore[union-attr]
        return cast(torch.Tensor, module(input_ids=inputs_NT, attention_mask=mask.long(), use_cache=False).logits)
    written = targets_NU.masked_fill(targets_NU == IGNORED, TOKEN_IDS[PAD])
    shifted = F.pad(written[:, :-1], (1, 0), value=TOKEN_IDS[PAD])
    decoder_mask = F.pad(targets_NU[:, :-1] != IGNORED, (1, 0), value=True)
    outputs = module(
        input_ids=inputs_NT,
        attention_mask=mask.long(),
        decoder_input_ids=shifted,
        decoder_attention_mask=decoder_mask.long(),
        use_cache=False,
    )
    return cast(torch.Tensor, outputs.logits)


def training_loss(module: nn.Module, batch: Corpus, device: torch.device) -> torch.Tensor:
    """Mean loss of the words, plus that of the verdicts, plus 0.01 of the load-balancing loss of sparse layers."""
    inputs = torch.from_numpy(batch.inputs_NT).to(device, torch.int64)
    targets = torch.from_numpy(batch.targets_NU).to(device, torch.int64)
    with _router_logits(module) as choices:
        logits = forward_logits(module, inputs, targets)
    losses = F.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
    counted = targets != IGNORED
    verdicts = (targets == TOKEN_IDS[YES]) | (targets == TOKEN_IDS[NO])
    total = torch.zeros((), device=device)
    for part in (counted & ~verdicts, verdicts):
        total = total + (losses * part).sum() / part.sum().clamp(min=1)
    return total + _BALANCE * _imbalance(choices, inputs != TOKEN_IDS[PAD], counted)


@contextmanager
def _router_logits(module: nn.Module) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """Logits of all routers of a forward, with the stack that each is of."""
    found: list[tuple[str, torch.Tensor]] = []
    handles = [
        router.register_forward_hook(lambda _module, _inputs, outputs, stack=name: found.append((stack, outputs[2])))
        for name, router in module.named_modules()
        if name.endswith(".router")
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _imbalance(
    choices: list[tuple[str, torch.Tensor]], read_NT: torch.Tensor, written_NU: torch.Tensor
) -> torch.Tensor | float:
    """Mean over routers of E times the sum over experts of share of tokens times mean probability; 1 when balanced."""
    losses = []
    for name, logits in choices:
        real = (read_NT if name.startswith("encoder") else written_NU).float()[..., None]
        probabilities = logits.float().softmax(-1)
        chosen = F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        n_tokens = real.sum()
        share_E = (chosen * real).sum((0, 1)) / n_tokens
        probability_E = (probabilities * real).sum((0, 1)) / n_tokens
        losses.append(logits.shape[-1] * (share_E * probability_E).sum())
    return torch.stack(losses).mean() if losses else 0.0
