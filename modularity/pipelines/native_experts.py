"""The experts of a mixture model in a job: whether they can be its partition, and the tokens that they dropped."""

from typing import Any

from modularity.capture import CaptureStats
from modularity.models import ModelDescription
from modularity.pipelines.config import EmergentModularityConfig
from modularity.types import SiteShape


def native_problems(
    config: EmergentModularityConfig, shape: SiteShape | None, description: ModelDescription
) -> list[str]:
    """Why the model's own experts cannot be the partition that the config asks for; nothing if they can.

    Parameters
    ----------
    config : its `experts.methods` may have `native`
    shape : of the analysed site, over the captured layers
    description : of the model
    """
    if shape is None or "experts" not in config.analyses or "native" not in config.experts.methods:
        return []
    native = description.native_experts[shape.site.stack]
    if not native:
        return [
            f"experts.methods has 'native', but {config.model.name!r} ({description.architecture}) has no experts of "
            f"its own in the {shape.site.stack}; use 'balanced'"
        ]
    problems = []
    dense = [layer for layer in shape.layers if layer not in native]
    if dense:
        problems.append(
            f"experts.methods has 'native', but the layers {dense} of {shape.site} are dense; "
            f"capture those with experts only: capture.layers={sorted(native)}"
        )
    n_experts = config.experts.n_experts
    wrong = [layer for layer in shape.layers if native.get(layer, n_experts) != n_experts]
    if wrong:
        problems.append(
            f"experts.n_experts={n_experts}, but layer {wrong[0]} of {shape.site} has {native[wrong[0]]} experts of "
            f"its own; set experts.n_experts={native[wrong[0]]}"
        )
    return problems


def count_routing(info: dict[str, Any], stats: CaptureStats) -> None:
    """Add to the notes of an item, where its model has experts, how many tokens were routed and how many dropped."""
    if stats.n_routed:
        info["routed"] = info.get("routed", 0) + stats.n_routed
        info["dropped"] = info.get("dropped", 0) + stats.n_dropped
