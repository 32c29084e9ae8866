"""Sparse FFNs with a shared expert, recomputed from the weights token by token, and the self-check of the capture."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from modularity.errors import InputError, SiteError
from modularity.models import LoadedModel, RoutedNeurons, firing_order
from modularity.models.architectures import architecture_of
from modularity.models.sites import SiteTable
from modularity.types import Site

NAMES = ("qwen2_moe", "deepseek_v2", "deepseek_v3", "dots1", "glm4_moe")
SIGMOID = ("deepseek_v3", "dots1", "glm4_moe")
TOLERANCE = {"float32": 2e-5, "bfloat16": 4e-2}
LAYER, N_TOKENS, N_CHOSEN = 1, 7, 2
SHARED, ROUTED = Site("decoder", "shared_expert.neurons"), Site("decoder", "ffn.neurons")


def forward(model: LoadedModel) -> tuple[dict[Site, Any], list[Site], torch.Tensor]:
    """What the taps of the sparse layer receive, the sites in the order in which they fired, and the FFN's input."""
    seen: dict[Site, Any] = {}
    inputs = []
    taps = [tap for site in model.sites.sites for tap in model.sites.taps(site) if tap.layer == LAYER]
    handles = [tap.attach(lambda value, site=tap.site: seen.update({site: value})) for tap in taps]
    handles.append(model.module.layers[LAYER].mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0])))
    ids = torch.randint(4, 48, (2, N_TOKENS), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        model.module(input_ids=ids)
    for handle in handles:
        handle.remove()
    return seen, list(seen), inputs[0].flatten(0, 1)


def close(actual: torch.Tensor, expected: torch.Tensor, dtype: str) -> None:
    scale = max(1.0, float(expected.float().abs().max()))
    torch.testing.assert_close(actual.float(), expected.float(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


def scores(name: str, ffn: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """Probabilities of the router, from its weights; only Qwen2-MoE forms the logits in the dtype of the model."""
    if name != "qwen2_moe":
        hidden_ND = hidden_ND.float()
    logits_NE = functional.linear(hidden_ND, ffn.gate.weight.to(hidden_ND.dtype)).float()
    return logits_NE.sigmoid() if name in SIGMOID else logits_NE.softmax(-1)


def routed_weights(name: str, ffn: Any, scores_E: torch.Tensor) -> dict[int, float]:
    """Weight of every chosen expert for one token; DeepSeek-V3 chooses within the best of two groups, with a bias."""
    if name not in SIGMOID:
        return {int(expert): float(scores_E[expert]) for expert in scores_E.topk(N_CHOSEN).indices}
    biased_E = scores_E + ffn.gate.e_score_correction_bias
    group = int(biased_E.view(2, 2).sum(-1).argmax())
    chosen = (2 * group, 2 * group + 1)
    total = float(scores_E[list(chosen)].sum()) if ffn.gate.norm_topk_prob else 1.0
    scale = float(ffn.gate.routed_scaling_factor)
    return {expert: float(scores_E[expert]) / total * scale for expert in chosen}


def shared_by_hand(name: str, ffn: Any, hidden_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Neurons of the shared expert, and what it adds, in float32."""
    expert = ffn.shared_expert if name == "qwen2_moe" else ffn.shared_experts
    hidden_ND = hidden_ND.float()
    gate, up, down = (getattr(expert, key).weight.float() for key in ("gate_proj", "up_proj", "down_proj"))
    neurons_NF = functional.silu(hidden_ND @ gate.T) * (hidden_ND @ up.T)
    written_ND = neurons_NF @ down.T
    if name == "qwen2_moe":
        written_ND = written_ND * torch.sigmoid(hidden_ND @ ffn.shared_expert_gate.weight.float().T)
    return neurons_NF, written_ND


def routed_by_hand(ffn: Any, expert: int, hidden_D: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Neurons of one routed expert for one token, and what they write."""
    gate_F, up_F = (ffn.experts.gate_up_proj[expert].float() @ hidden_D.float()).chunk(2)
    neurons_F = functional.silu(gate_F) * up_F
    return neurons_F, ffn.experts.down_proj[expert].float() @ neurons_F


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_sites_equal_what_the_weights_give(
    tiny_model: Callable[..., LoadedModel], name: str, dtype: str, attention: str
) -> None:
    model = tiny_model(name, dtype=dtype, attention=attention)
    assert model.identity.attention == attention
    ffn = model.module.layers[LAYER].mlp
    if name in SIGMOID:
        ffn.gate.e_score_correction_bias.copy_(torch.tensor([0.0, 0.3, -0.2, 0.1]))
    seen, fired, hidden_ND = forward(model)
    with torch.inference_mode():
        scores_NE = scores(name, ffn, hidden_ND)
        close(seen[Site("decoder", "router.probabilities")], scores_NE, dtype)
        shared_NF, total_ND = shared_by_hand(name, ffn, hidden_ND)
        close(seen[SHARED].flatten(0, -2), shared_NF, dtype)
        values = seen[ROUTED]
        assert isinstance(values, RoutedNeurons)
        dense_NEF = values.dense()[0].unflatten(-1, (scores_NE.shape[-1], -1))
        choices_NE = seen[Site("decoder", "router.choices")]
        for token, scores_E in enumerate(scores_NE):
            chosen = routed_weights(name, ffn, scores_E)
            assert choices_NE[token].nonzero().flatten().tolist() == sorted(chosen)
            for expert, weight in chosen.items():
                neurons_F, written_D = routed_by_hand(ffn, expert, hidden_ND[token])
                close(dense_NEF[token, expert], neurons_F, dtype)
                total_ND[token] += weight * written_D
        close(seen[Site("decoder", "ffn.output")].flatten(0, -2), total_ND, dtype)
    # The choices are read by a hook of the module that the neurons are read from.
    fired.remove(Site("decoder", "router.choices"))
    ordered = [tap.site for tap in firing_order(model.sites.taps(site, [LAYER])[0] for site in fired)]
    assert ordered == fired


@pytest.mark.parametrize(("name", "n_experts", "width"), [("qwen2_moe", 5, 40), ("deepseek_v2", 4, 48)])
def test_shared_neurons_are_no_units_of_the_routed_experts(
    tiny_model: Callable[..., LoadedModel], name: str, n_experts: int, width: int
) -> None:
    sites = tiny_model(name).sites
    shape = sites.shape(SHARED)
    assert (shape.layers, shape.widths, shape.unit_dims) == ((LAYER,), (width,), ("shared_expert_neuron",))
    assert sites.shape(ROUTED).widths == (37, n_experts * 24)
    assert len(sites.native_partition("decoder", LAYER)) == n_experts * 24
    with pytest.raises(InputError, match=r"'decoder/shared_expert.neurons': .* numbers of 1, the layers with experts"):
        sites.taps(SHARED, [0])


def test_a_model_without_shared_expert_has_no_such_site(tiny_model: Callable[..., LoadedModel]) -> None:
    with pytest.raises(InputError, match=r"'decoder/shared_expert.neurons' does not exist in this olmoe model"):
        tiny_model("olmoe").sites.taps(SHARED)


def test_a_row_that_promises_a_shared_expert_is_checked(tiny_config: Callable[..., Any]) -> None:
    import transformers

    module = transformers.AutoModel.from_config(tiny_config("qwen2_moe"))
    del module.layers[LAYER].mlp.shared_expert
    with pytest.raises(SiteError, match=r"layers.1.mlp.shared_expert.down_proj: .*Correct the row of the site table"):
        SiteTable(module, architecture_of("qwen2_moe"))
