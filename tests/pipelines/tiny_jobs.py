"""Tiny checkpoints, labelled texts and job configs for the tests of the pipelines; small enough to run in a second."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from modularity.config import validate_config
from modularity.pipelines import EmergentModularityConfig, run_job
from modularity.pipelines.examples import row_coordinates
from modularity.pipelines.layout import create_partition, create_predictivity, listed_neurons
from modularity.pipelines.prepare import PreparedJob
from modularity.store import Manifest, Run, create_run
from modularity.types import PARTITION, Site, SiteShape, WorkItem

NEURONS = Site("encoder", "ffn.neurons")

_FILLER_TEXT = (
    "the a an of and with over under near far old new red green cold warm soft loud quick slow hill road tree bird "
    "fish lamp door wall rain snow wind sand grass leaf"
)
FILLERS = tuple(_FILLER_TEXT.split())
MARKERS = ("river", "stone", "moon", "sun")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
N_NEURONS, N_EXPERTS, N_LAYERS, WIDTH = 160, 8, 2, 32
"""Of the BERT checkpoints: two and a half blocks of 64 neurons, experts of 20."""
PLANTED = {"river": tuple(range(3, 160, 8)), "stone": tuple(range(6, 160, 8))}
"""Neurons of layer 0 of the planted checkpoint that respond to one word each: 20, one whole expert, scattered."""

_COMMON = {"vocab_size": 48, "hidden_size": WIDTH, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4}
_POSITIONS = {"max_position_embeddings": 64, "pad_token_id": 0}


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Word-level tokenizer of the words of this file, with the special tokens of BERT."""
    words = [*SPECIAL, *MARKERS, *FILLERS]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def bert_config(**changes: Any) -> transformers.BertConfig:
    return transformers.BertConfig(**{**_COMMON, **_POSITIONS, "intermediate_size": N_NEURONS, **changes})


def opt_config() -> transformers.OPTConfig:
    return transformers.OPTConfig(
        **_COMMON, **_POSITIONS, ffn_dim=64, word_embed_proj_dim=WIDTH, bos_token_id=2, eos_token_id=3
    )


def t5_config() -> transformers.T5Config:
    return transformers.T5Config(
        vocab_size=48, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=3, num_heads=4,
        pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip


def random_module(config: Any, seed: int = 1) -> Any:
    """Base model with every parameter moved off its initial value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = transformers.AutoModel.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return module


def planted_module() -> Any:
    """BERT whose layer 0 has, for each word of `PLANTED`, neurons that are active where the word stands.

    Attention of layer 0 adds nothing, positions and types are the same everywhere, so the stream before the FFN depends
    on the word alone. The input weights of the planted neurons are close to each other: they form one expert. All other
    neurons of the layer see nothing of the two words.
    """
    module = random_module(bert_config())
    layer, embeddings = module.encoder.layer[0], module.embeddings
    with torch.no_grad():
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
        for linear in (layer.attention.self.value, layer.attention.output.dense):
            linear.weight.zero_()
            linear.bias.zero_()
        layer.attention.output.LayerNorm.weight.fill_(1.0)
        layer.attention.output.LayerNorm.bias.zero_()
        streams_VD = layer.attention.output.LayerNorm(embeddings.LayerNorm(embeddings.word_embeddings.weight))
        generator = torch.Generator().manual_seed(5)
        words = [*SPECIAL, *MARKERS, *FILLERS]
        planted_SD = streams_VD[[words.index(word) for word in PLANTED]]
        basis_DS, _ = torch.linalg.qr(planted_SD.T)
        layer.intermediate.dense.weight -= layer.intermediate.dense.weight @ basis_DS @ basis_DS.T
        for word, neurons in PLANTED.items():
            direction_D = streams_VD[words.index(word)] / WIDTH
            others = [index for index in range(len(words)) if index != words.index(word)]
            edge = (streams_VD[others] @ direction_D).max()
            for neuron in neurons:
                noise_D = 0.002 * torch.randn(WIDTH, generator=generator)
                layer.intermediate.dense.weight[neuron] = direction_D + noise_D
                layer.intermediate.dense.bias[neuron] = -edge
    return module


def save(folder: Path, module: Any) -> Path:
    """Checkpoint folder with safetensors and the tokenizer."""
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sentence(generator: np.random.Generator, markers: list[str], n_fillers: int) -> str:
    """Distinct with near certainty: the order of six and more fillers is random."""
    words = [*markers, *generator.choice(FILLERS, size=n_fillers).tolist()]
    return " ".join(generator.permutation(words).tolist())


def word_rows(n_each: int, *, words: tuple[str, ...] = ("river", "stone"), seed: int = 0) -> list[dict[str, Any]]:
    """For each word `n_each` examples, every other one with the word; texts have 6 to 11 words."""
    generator = np.random.default_rng(seed)
    return [
        {
            "id": f"{word}-{n}",
            "text": sentence(generator, [word] if n % 2 else [], int(generator.integers(6, 11))),
            "subfunction": word,
            "label": n % 2,
        }
        for word in words
        for n in range(n_each)
    ]


def topic_rows(n_rows: int, *, seed: int = 1) -> list[dict[str, Any]]:
    """Three labels: `night` texts hold `moon`, `day` texts `sun`, `plain` texts neither."""
    generator = np.random.default_rng(seed)
    markers = {"night": ["moon"], "day": ["sun"], "plain": []}
    names = list(markers)
    return [
        {"text": sentence(generator, markers[names[n % 3]], int(generator.integers(6, 10))), "label": names[n % 3]}
        for n in range(n_rows)
    ]


def word_function(folder: Path, n_each: int = 140, **changes: Any) -> dict[str, Any]:
    """Two sub-functions by column; 280 rows are two capture items of one shard of 256 and one of 24 rows."""
    path = folder / "words.jsonl"
    if not path.exists():
        write_rows(path, word_rows(n_each))
    columns = {"id": "id", "subfunction": "subfunction"}
    return {"name": "words", "kind": "semantic", "source": str(path), "columns": columns, **changes}


def topic_function(folder: Path, n_rows: int = 90, **changes: Any) -> dict[str, Any]:
    """Two sub-functions as declared contrasts over shared examples."""
    path = folder / "topics.jsonl"
    if not path.exists():
        write_rows(path, topic_rows(n_rows))
    contrasts = {
        "night_or_day": {"positive": ["night"], "negative": ["day"]},
        "sky": {"positive": ["night", "day"], "negative": ["plain"]},
    }
    return {"name": "topics", "kind": "task", "source": str(path), "labels": contrasts, **changes}


def job(model: Path, functions: list[dict[str, Any]], **changes: Any) -> EmergentModularityConfig:
    """A job with few permutations, one thread and, unless changed, no Ray; nested changes replace single keys."""
    values: dict[str, Any] = {
        "model": {"name": str(model), "device": "cpu", "matmul": "highest"},
        "functions": functions,
        "capture": {"rows_per_item": 128, "tokens_per_batch": 256},
        "predictivity": {"n_permutations": 40, "n_bootstrap": 100, "neurons_per_item": 64, "n_top": 4, "n_examples": 3},
        "experts": {
            "n_experts": N_EXPERTS,
            "top_fraction": 0.125,
            "sensitivity": [0.05, 0.125],
            "n_permutations": 100,
        },
        "overlap": {"top_fraction": 0.1, "n_permutations": 100},
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    }
    for name, change in changes.items():
        values[name] = {**values[name], **change} if isinstance(change, dict) and name in values else change
    return validate_config(EmergentModularityConfig, values)


def run(config: EmergentModularityConfig, out: Path | str) -> Run:
    """Run a job without a word."""
    return run_job(config, str(out), quiet=True).run


def rows_of(run: Run, table: str, **where: Any) -> list[dict[str, Any]]:
    """Rows of a table in which the named columns have the given values."""
    return [row for row in run.table(table).to_pylist() if all(row[name] == value for name, value in where.items())]


def token_activations(folder: Path, texts: list[str], modules: list[str]) -> list[np.ndarray]:
    """Inputs of the FFN out-projections of every text on its own: for each text float32 [tokens, layers, neurons].

    Computed with transformers alone; `modules` names the out-projection of each layer.
    """
    model = transformers.AutoModel.from_pretrained(folder).eval()
    return module_inputs(model, transformers.AutoTokenizer.from_pretrained(folder), texts, modules)


def module_inputs(model: Any, words: Any, texts: list[str], modules: list[str]) -> list[np.ndarray]:
    """As `token_activations`, of a module at hand."""
    caught: list[np.ndarray] = []

    def keep(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        caught.append(inputs[0].reshape(-1, inputs[0].shape[-1]).numpy())

    handles = [model.get_submodule(name).register_forward_pre_hook(keep) for name in modules]
    found = []
    with torch.inference_mode():
        for text in texts:
            caught.clear()
            model(input_ids=words(text, return_tensors="pt")["input_ids"])
            found.append(np.stack(caught, axis=1))
    for handle in handles:
        handle.remove()
    return found


def uneven_run(out: Path, prepared: PreparedJob) -> Run:
    """A run as of a pruned model: layers 0 and 2 with 160 and 60 neurons, activations drawn at random, no results yet.

    The functions, rows and labels are those of a prepared job; neuron 5 of layer 2 is active for the first sub-function
    of each function. Partitions into 10 experts are written.
    """
    shape = SiteShape(NEURONS, (0, 2), (160, 60), ("neuron",), (160,))
    run = create_run(out, Manifest.of("emergent_modularity", notes={"analysed": str(NEURONS)}))
    config = prepared.config
    for function in prepared.functions:
        coordinates = row_coordinates(function, prepared.tables[function.name])
        values = np.random.default_rng(3).standard_normal((function.n_examples, 2, 160)).astype(np.float32)
        values[:, 1, 5] += 4.0 * (function.labels_SE[0] == 1)
        values[:, 1, 60:] = np.nan
        run.create_activations(
            function.name, {NEURONS: shape}, coordinates, storage_dtype="float32", rows_per_item=len(values)
        )
        item = WorkItem.of("capture", function=function.name)
        run.commit(item, arrays=[run.write_activations(function.name, NEURONS, 0, values)])
        n_listed = listed_neurons(shape, config.experts)
        create_predictivity(run, function, shape, config.predictivity, n_listed=n_listed)
    create_partition(run, shape, config.experts)
    for index, width in enumerate(shape.widths):
        labels = np.full((len(config.experts.methods), 1, 160), -1, np.int32)
        labels[:, 0, :width] = np.arange(width) % config.experts.n_experts
        writes = run.write_result(PARTITION, {"expert": labels}, at={"layer": index})
        run.commit(WorkItem.of("partition", layer=shape.layers[index]), arrays=writes)
    return run
