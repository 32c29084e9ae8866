"""The dense results of a MoEfication: experts, routers, and what was measured on every text, before any averaging."""

from collections.abc import Mapping

import numpy as np

from modularity.pipelines.moefication_prepare import PreparedMoefication
from modularity.store import ResultArray, Run

EXPERTS, ROUTERS, MASS, OUTPUTS, ANSWERS, WHOLE_ANSWERS = (
    "experts", "routers", "mass", "outputs", "answers", "whole_answers",
)  # fmt: skip
Arrays = dict[str, tuple[tuple[str, ...], str, str]]
"""Dimensions, dtype and meaning of each array."""
Coordinates = Mapping[str, tuple[tuple[str, ...], np.ndarray]]
_ROUTE = ("partition", "seed", "layer")
_SELECTED = ("partition", "router", "share", "seed")


def create_results(run: Run, prepared: PreparedMoefication) -> None:
    """Create every array; repeating it changes nothing."""
    config, texts = prepared.config, prepared.texts.evaluation
    widths = np.asarray(prepared.widths, dtype=np.int64)
    common: Coordinates = {
        "partition": (("partition",), np.asarray(config.partitions, dtype=str)),
        "seed": (("seed",), np.asarray(config.seeds, dtype=np.int64)),
        "layer": (("layer",), np.asarray(prepared.layers, dtype=np.int64)),
    }
    chosen: Coordinates = {
        "router": (("router",), np.asarray(config.routers, dtype=str)),
        "share": (("share",), np.asarray(config.shares, dtype=np.float64)),
    }
    of_texts: Coordinates = {
        "text": (("text",), np.asarray(texts.example_ids, dtype=str)),
        "function": (("text",), np.asarray(texts.function_N, dtype=str)),
        "cluster": (("text",), texts.cluster_N.astype(np.int64)),
    }
    sizes = {
        "partition": len(config.partitions), "seed": len(config.seeds), "layer": len(prepared.layers),
        "router": len(config.routers), "share": len(config.shares), "text": texts.n_texts,
        "neuron": int(widths.max()), "expert": prepared.n_experts, "score": prepared.n_experts,
        "channel": prepared.description.residual_width,
    }  # fmt: skip
    experts: Arrays = {"expert": ((*_ROUTE, "neuron"), "int32", "expert of every neuron; -1 beyond the width")}
    _create(run, EXPERTS, sizes, experts, {"partition": 1, "layer": 1}, {**common, "width": (("layer",), widths)})
    if "mlp" in config.routers:
        _create(run, ROUTERS, sizes, _router_arrays(), dict.fromkeys(_ROUTE, 1), common)
    _create(run, MASS, sizes, _mass_arrays(), dict.fromkeys(_ROUTE, 1), {**common, **chosen, **of_texts})
    _create(run, OUTPUTS, sizes, _output_arrays(), dict.fromkeys(_SELECTED, 1), {**common, **chosen, **of_texts})
    if prepared.tasks:
        _create_answers(run, prepared, sizes, {**common, **chosen})


def _create_answers(
    run: Run,
    prepared: PreparedMoefication,
    sizes: dict[str, int],
    coordinates: Coordinates,
) -> None:
    tasks = prepared.tasks
    of_answers: Coordinates = {
        "task": (("answer",), np.array([task.name for task in tasks for _ in task.example_ids], dtype=str)),
        "example_id": (("answer",), np.array([name for task in tasks for name in task.example_ids], dtype=str)),
        "label": (("answer",), np.concatenate([task.gold_E for task in tasks]).astype(np.int64)),
        "cluster": (("answer",), np.concatenate(prepared.task_clusters).astype(np.int64)),
    }
    sizes = sizes | {"answer": len(of_answers["label"][1])}
    meanings = {"margin": "logit of the right label word minus that of the other", "right": "1: answered rightly"}
    for name, dims in ((ANSWERS, _SELECTED), (WHOLE_ANSWERS, ())):
        arrays: Arrays = {
            "margin": ((*dims, "answer"), "float64", meanings["margin"]),
            "right": ((*dims, "answer"), "int8", meanings["right"]),
        }
        used = {*dims, "answer"}
        kept = {key: value for key, value in coordinates.items() if set(value[0]) <= used}
        _create(run, name, sizes, arrays, dict.fromkeys(dims, 1), {**kept, **of_answers})


def _router_arrays() -> Arrays:
    return {
        "input": ((*_ROUTE, "expert", "channel"), "float32", "weights of the first linear map; NaN beyond the experts"),
        "output": ((*_ROUTE, "score", "expert"), "float32", "weights of the second; a score for each expert"),
        "held_out": (_ROUTE, "float64", "mass kept on held-out training tokens by the epoch that was chosen by it"),
    }


def _mass_arrays() -> Arrays:
    whole = (*_ROUTE, "router", "share")
    return {
        "kept": ((*whole, "text"), "float64", "mean over tokens of the share of activation mass that is kept"),
        "n_tokens": ((*_ROUTE, "text"), "int64", "tokens with activation"),
        "neurons": (whole, "float64", "mean share of neurons in the selected experts: kept by chance"),
    }


def _output_arrays() -> Arrays:
    meanings = {
        "kl": "divergence from the whole model's predictions, nats, mean over positions",
        "agreement": "share of positions with the whole model's most likely token",
        "loss": "cross-entropy of the next token, nats; causal models only",
        "whole_loss": "the same of the whole model",
    }
    arrays: Arrays = {name: ((*_SELECTED, "text"), "float64", meaning) for name, meaning in meanings.items()}
    return arrays | {
        "kept": ((*_SELECTED, "layer"), "float64", "activation mass kept while all layers select"),
        "neurons": ((*_SELECTED, "layer"), "float64", "mean share of neurons in the selected experts"),
        "ffn_flops": (_SELECTED, "float64", "operations of the divided FFNs and their routers, by those of whole FFNs"),
        "flops": (_SELECTED, "float64", "operations with all weights and the routers, by those of the whole model"),
    }


def _create(
    run: Run,
    name: str,
    sizes: dict[str, int],
    arrays: Arrays,
    block: dict[str, int],
    coordinates: Coordinates,
) -> None:
    used = {dim for dims, _, _ in arrays.values() for dim in dims}
    run.create_result(
        name,
        sizes={dim: size for dim, size in sizes.items() if dim in used},
        arrays={
            key: ResultArray(dims, dtype, {dim: n for dim, n in block.items() if dim in dims}, {"long_name": meaning})
            for key, (dims, dtype, meaning) in arrays.items()
        },
        coordinates={key: value for key, value in coordinates.items() if set(value[0]) <= used},
    )


def stored_bytes(prepared: PreparedMoefication) -> int:
    """Bytes of all results before compression, their coordinates left out."""
    config, n_texts, n_layers = prepared.config, prepared.texts.evaluation.n_texts, len(prepared.layers)
    routes = len(config.partitions) * len(config.seeds)
    cells = routes * len(config.routers) * len(config.shares)
    routers = prepared.n_experts * (prepared.n_experts + prepared.description.residual_width) * 4
    answers = sum(task.tokens.n_examples for task in prepared.tasks)
    per_layer = max(prepared.widths) * 4 + (routers if "mlp" in config.routers else 0) + 8 * n_texts
    return routes * n_layers * per_layer + cells * (8 * n_texts * (n_layers + 4) + 9 * answers + 24 * n_layers)
