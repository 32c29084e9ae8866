"""A tiny OPT whose answers to four tasks come from known neurons, texts of these tasks, and a finished run on them."""

from pathlib import Path
from typing import Any

import numpy as np
import tiny_jobs
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from modularity.config import validate_config
from modularity.pipelines import EmergentModularityConfig
from modularity.pipelines.perturbation import run_perturbation
from modularity.pipelines.perturbation_config import PerturbationConfig
from modularity.store import Run

N_TASKS, N_NEURONS, OWN = 4, 24, 6
"""Texts of task t end in w(2t) for label 0 and w(2t + 1) for label 1; it is answered by w(20 + 2t) and w(21 + 2t)."""
SHIFT = 5  # token of w0
N_WORDS = 43
TASKS = tuple(f"task{task}" for task in range(N_TASKS))
WORDS = {f"task{task}": (f"w{21 + 2 * task}", f"w{20 + 2 * task}") for task in range(N_TASKS)}


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Word-level tokenizer of w0 … w42 that adds no special token."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(N_WORDS))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")


def checkpoint(folder: Path, *, shared: bool) -> Path:
    """OPT whose first FFN maps the last token to a label word; neurons 6t … 6t + 5 serve task t, or all serve all."""
    config = transformers.OPTConfig(
        vocab_size=N_WORDS + SHIFT, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=N_NEURONS,
        word_embed_proj_dim=32, max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        tie_word_embeddings=False,
    )  # fmt: skip
    module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    decoder, n = module.model.decoder, 2 * N_TASKS
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for part in decoder.modules():
            if isinstance(part, torch.nn.LayerNorm):
                part.weight.fill_(1.0)
        decoder.embed_tokens.weight[SHIFT : SHIFT + n, :n] = 4 * torch.eye(n)
        first = decoder.layers[0]
        for neuron in range(N_NEURONS):
            task, answer = neuron // OWN, neuron % 2
            for served in range(N_TASKS) if shared else (task,):
                first.fc1.weight[neuron, 2 * served + answer] = 1.0
                first.fc2.weight[n + 2 * served + answer, neuron] = 0.05
        module.lm_head.weight[SHIFT + 20 : SHIFT + 20 + n, n : 2 * n] = torch.eye(n)
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def rows(n_each: int = 40) -> list[dict[str, Any]]:
    """For each task `n_each` texts, labels in turn."""
    generator = np.random.default_rng(7)
    made = []
    for task in range(N_TASKS):
        for number in range(n_each):
            fillers = [f"w{word}" for word in generator.integers(30, N_WORDS, size=int(generator.integers(4, 8)))]
            label = number % 2
            text = " ".join([*fillers, f"w{2 * task + label}"])
            made.append({"id": f"{task}-{number}", "text": text, "subfunction": f"task{task}", "label": label})
    return made


def source_job(folder: Path, model: Path, **changes: Any) -> EmergentModularityConfig:
    """The job whose run is perturbed: neurons of layer 0, four experts of six."""
    path = folder / "tasks.jsonl"
    if not path.exists():
        tiny_jobs.write_rows(path, rows())
    columns = {"id": "id", "subfunction": "subfunction"}
    function = {"name": "tasks", "kind": "task", "source": str(path), "columns": columns}
    settings: dict[str, Any] = {
        "capture": {"layers": [0]},
        "predictivity": {"n_permutations": 20, "neurons_per_item": 64},
        "experts": {"n_experts": 4, "top_fraction": 0.25, "sensitivity": [0.25], "methods": ["balanced"]},
        "analyses": ["predictivity", "experts"],
    }
    return tiny_jobs.job(model, [function], **{**settings, **changes})


def config(of: Run, **changes: Any) -> PerturbationConfig:
    """A perturbation of a run, in this process, of all four tasks, at the strength of the planted neurons."""
    values: dict[str, Any] = {
        "source": of.uri,
        "label_words": WORDS,
        "strengths": [0.25],
        "noises": ["zero", "shuffle"],
        "seeds": [0, 1],
        "tokens_per_batch": 512,
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
        **changes,
    }
    return validate_config(PerturbationConfig, values)


def run(settings: PerturbationConfig, out: Path) -> Run:
    """Run a perturbation without a word."""
    return run_perturbation(settings, str(out), quiet=True).run
