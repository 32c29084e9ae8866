"""Whether the settings of experts and top lists fit the layers that are analysed."""

import math
from importlib.util import find_spec

from modularity.pipelines.config import EmergentModularityConfig
from modularity.types import SiteShape


def expert_problems(config: EmergentModularityConfig, shape: SiteShape | None) -> list[str]:
    """Why the neurons of the analysed site cannot be partitioned as the config asks; nothing if they can."""
    if shape is None or "experts" not in config.analyses:
        return []
    problems = []
    if "coactivation" in config.experts.methods and find_spec("pymetis") is None:
        problems.append(
            "experts.methods has 'coactivation', which needs the graph partitioner pymetis, and it is not installed: "
            "pip install 'modularity[graph]', or pip install pymetis"
        )
    n_experts = config.experts.n_experts
    wrong = {layer: width for layer, width in zip(shape.layers, shape.widths) if width % n_experts}
    if not wrong:
        return problems
    layer, width = next(iter(wrong.items()))
    divisors = sorted((n for n in range(2, width) if width % n == 0), key=lambda n: abs(n - n_experts))[:4]
    return [
        *problems,
        f"experts.n_experts={n_experts} does not divide the {width} neurons of layer {layer}; "
        f"the nearest numbers that do are {', '.join(map(str, sorted(divisors)))}",
    ]


def fraction_problems(config: EmergentModularityConfig, shape: SiteShape | None) -> list[str]:
    """Top fractions that hold not even one neuron of the narrowest layer."""
    if shape is None:
        return []
    width = min(shape.widths)
    layer = shape.layers[shape.widths.index(width)]
    fractions = {"experts": config.experts.top_fraction, "overlap": config.overlap.top_fraction}
    return [
        f"{step}.top_fraction={fraction} of the {width} neurons of layer {layer} is less than one neuron; "
        f"expected at least {math.ceil(1e4 / width) / 1e4:g}"
        for step, fraction in fractions.items()
        if step in config.analyses and int(fraction * width) < 1
    ]
