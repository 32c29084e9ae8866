"""Caps on what one page holds, so that it stays small; every cut is put into words for the reader."""

from dataclasses import dataclass, replace

from modularity.report.content import ExampleValue, ExpertMap, ReportContent, TopNeuron
from modularity.report.wording import clipped, count


@dataclass(frozen=True)
class Limits:
    """How much of each part goes onto the page."""

    neurons: int = 200
    """Rows of the table of neurons."""
    examples: int = 8
    """Examples at each end of a neuron's activations."""
    text: int = 400
    """Characters of an example."""
    expert_cells: int = 24_000
    """Cells of all maps of experts together; layers are left out whole."""
    config: int = 20_000
    """Characters of the config."""


def apply_limits(content: ReportContent, limits: Limits) -> tuple[ReportContent, dict[str, str]]:
    """The content within its limits, and what was cut by section (`neurons`, `experts`, `provenance`)."""
    cuts: dict[str, str] = {}
    neurons, cut = _neurons(content.neurons, limits)
    if cut:
        cuts["neurons"] = cut
    maps = _maps(content.expert_maps, limits.expert_cells)
    if len(maps) < len(content.expert_maps):
        cuts["experts"] = (
            f"Maps are shown for {len(maps)} of {len(content.expert_maps)} layers, those with most functional experts, "
            "to keep the page small. The run’s tables hold all."
        )
    provenance = content.provenance
    if len(provenance.config) > limits.config:
        cuts["provenance"] = (
            f"The config is cut to its first {count(limits.config)} of {count(len(provenance.config))} characters; "
            "the run’s manifest has it whole."
        )
        provenance = replace(provenance, config=provenance.config[: limits.config])
    return replace(content, neurons=neurons, expert_maps=maps, provenance=provenance), cuts


def _maps(maps: tuple[ExpertMap, ...], cells: int) -> tuple[ExpertMap, ...]:
    """As many maps as fit, preferring those with most functional cells, in the order of layers; always at least one."""
    kept: set[int] = set()
    for index in sorted(range(len(maps)), key=lambda i: (-int(maps[i].functional_SE.sum()), i)):
        cells -= maps[index].count_SE.size
        if cells < 0 and kept:
            break
        kept.add(index)
    return tuple(each for index, each in enumerate(maps) if index in kept)


def _neurons(neurons: tuple[TopNeuron, ...], limits: Limits) -> tuple[tuple[TopNeuron, ...], str]:
    shown = neurons[: limits.neurons]
    examples = [each for neuron in shown for each in (*neuron.highest, *neuron.lowest)]
    parts = []
    if len(shown) < len(neurons):
        parts.append(f"the first {count(len(shown))} of {count(len(neurons))} neurons are shown")
    if any(max(len(neuron.highest), len(neuron.lowest)) > limits.examples for neuron in shown):
        parts.append(f"at most {limits.examples} examples at each end")
    if any(len(each.text) > limits.text for each in examples):
        parts.append(f"texts are cut to {count(limits.text)} characters (…)")
    cut = tuple(
        replace(neuron, highest=_examples(neuron.highest, limits), lowest=_examples(neuron.lowest, limits))
        for neuron in shown
    )
    return cut, f"To keep the page small, {'; '.join(parts)}. The run’s tables hold all." if parts else ""


def _examples(examples: tuple[ExampleValue, ...], limits: Limits) -> tuple[ExampleValue, ...]:
    cut = []
    for each in examples[: limits.examples]:
        target = each.target if each.target and each.target[1] < limits.text else None
        cut.append(replace(each, text=clipped(each.text, limits.text), target=target))
    return tuple(cut)
