"""A tiny Switch of which one expert sees the label words of two tasks, texts of these tasks, and a random OLMoE."""

from pathlib import Path
from typing import Any

import numpy as np
import tiny_jobs
import tiny_perturbation
import torch
import transformers

from modularity.config import validate_config
from modularity.pipelines import EmergentModularityConfig, RestrictedRoutingConfig, run_restricted_routing
from modularity.store import Run

TASKS = ("task0", "task1")
WORDS = {"task0": ("w21", "w20"), "task1": ("w23", "w22")}
N_EXPERTS, N_NEURONS, HOME = 6, 16, 2
"""Expert 2 is the only one whose neurons see the words of the labels."""


def checkpoint(folder: Path) -> Path:
    """Switch whose expert `HOME` of layer 1 is active at words of label 1; no other neuron there sees labels.

    The encoder's attention and its dense layer add nothing, so that the stream before the experts is the embedding.
    """
    config = transformers.SwitchTransformersConfig(
        vocab_size=tiny_perturbation.N_WORDS + tiny_perturbation.SHIFT, d_model=32, d_kv=8, d_ff=N_NEURONS,
        num_layers=2, num_decoder_layers=2, num_heads=4, num_experts=N_EXPERTS, num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1, expert_capacity=64, pad_token_id=0, decoder_start_token_id=0, dropout_rate=0.1,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = transformers.AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
            embedding_VD = module.encoder.embed_tokens.weight
            embedding_VD.copy_(torch.randn(embedding_VD.shape))
            labels_WD = embedding_VD[tiny_perturbation.SHIFT : tiny_perturbation.SHIFT + 4]
            basis_DW, _ = torch.linalg.qr(labels_WD.T)
            for block in module.encoder.block:
                block.layer[0].SelfAttention.o.weight.zero_()
                block.layer[1].layer_norm.weight.fill_(1.0)
            module.encoder.block[0].layer[1].mlp.wo.weight.zero_()
            experts = module.encoder.block[1].layer[1].mlp.experts
            for expert in range(N_EXPERTS):
                weight_FD = experts[f"expert_{expert}"].wi.weight
                weight_FD -= weight_FD @ basis_DW @ basis_DW.T
            experts[f"expert_{HOME}"].wi.weight += 0.1 * (labels_WD[1] + labels_WD[3])
    module.save_pretrained(folder)
    tiny_perturbation.tokenizer().save_pretrained(folder)
    return folder


def olmoe(folder: Path) -> Path:
    """Random OLMoE of two sparse layers of six experts, two for each token."""
    config = transformers.OlmoeConfig(
        vocab_size=tiny_perturbation.N_WORDS + tiny_perturbation.SHIFT, hidden_size=32, intermediate_size=8,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, num_experts=6, num_experts_per_tok=2,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.15 * torch.randn(parameter.shape))
    module.save_pretrained(folder)
    tiny_perturbation.tokenizer().save_pretrained(folder)
    return folder


def deepseek(folder: Path) -> Path:
    """Random DeepSeek-V3 whose second layer has four experts in two groups."""
    config = transformers.DeepseekV3Config(
        vocab_size=tiny_perturbation.N_WORDS + tiny_perturbation.SHIFT, hidden_size=32, intermediate_size=24,
        moe_intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4,
        n_shared_experts=1, num_experts_per_tok=2, first_k_dense_replace=1, n_group=2, topk_group=1, q_lora_rank=16,
        kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=6, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    module.save_pretrained(folder)
    tiny_perturbation.tokenizer().save_pretrained(folder)
    return folder


def rows(n_each: int = 80) -> list[dict[str, Any]]:
    """For each task `n_each` texts; w(2t) stands in those of label 0, w(2t + 1) in those of label 1."""
    generator = np.random.default_rng(7)
    made = []
    for task in range(len(TASKS)):
        for number in range(n_each):
            fillers = [f"w{word}" for word in generator.integers(30, 43, size=int(generator.integers(3, 7)))]
            place = int(generator.integers(0, len(fillers)))
            fillers.insert(place, f"w{2 * task + number % 2}")
            label = number % 2
            made.append({"id": f"{task}-{number}", "text": " ".join(fillers), "subfunction": TASKS[task],
                         "label": label})  # fmt: skip
    return made


def source_job(folder: Path, model: Path, **changes: Any) -> EmergentModularityConfig:
    """The job whose run says which experts are functional: the model's own, of the sparse layer."""
    path = folder / "tasks.jsonl"
    if not path.exists():
        tiny_jobs.write_rows(path, rows())
    columns = {"id": "id", "subfunction": "subfunction"}
    function = {"name": "tasks", "kind": "task", "source": str(path), "columns": columns}
    settings: dict[str, Any] = {
        "capture": {"layers": [1], "expert_variant": "released"},
        "predictivity": {"n_permutations": 20, "neurons_per_item": 96},
        "experts": {"n_experts": N_EXPERTS, "top_fraction": 0.1, "sensitivity": [0.1], "methods": ["native"]},
        "analyses": ["predictivity", "experts"],
    }
    return tiny_jobs.job(model, [function], **{**settings, **changes})


def config(of: Run, **changes: Any) -> RestrictedRoutingConfig:
    """A study on a run, in this process: two tasks, two seeds, four steps of one training."""
    values: dict[str, Any] = {
        "source": of.uri,
        "label_words": {task: list(words) for task, words in WORDS.items()},
        "top_fraction": 0.1,
        "n_examples": 24,
        "seeds": [0, 1],
        "n_draws": 2,
        "epochs": 2,
        "batch_size": 12,
        "learning_rate": 0.01,
        "evaluate_every": 2,
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
        **changes,
    }
    return validate_config(RestrictedRoutingConfig, values)


def run(settings: RestrictedRoutingConfig, out: Path) -> Run:
    """Run a study without a word."""
    return run_restricted_routing(settings, str(out), quiet=True).run
