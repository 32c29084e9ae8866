"""Sentences of the page that depend on its sections: what is missing, and what “beyond chance” means there."""

from collections.abc import Sequence

MISSING = {
    "findings": "No numbers to draw findings from.",
    "predictivity": "Predictivity was not computed in this run.",
    "overlap": "Overlap was not computed in this run: it needs at least two sub-functions.",
    "experts": "No experts were computed in this run.",
    "sensitivity": "The sensitivity to the top fraction was not computed in this run.",
    "neurons": "No table of top neurons was computed in this run.",
    "activity": "Firing rates were not computed in this run: firing_rate is not among reductions.kinds.",
    "perturbation": "No perturbation was measured yet.",
    "routing": "No restricted routing was measured yet.",
    "selection": "Nothing was measured with selected experts yet.",
    "graphs": "No graph was divided yet.",
    "pruning": "No units were removed yet.",
}
_HOLM = "“Beyond …” means p ≤ 0.05 after Holm’s correction over functions (“corrected”)."
_BEYOND = {
    "perturbation": "“Beyond chance” means a corrected p ≤ 0.05: of all assignments of rankings to tasks so few have "
    "an index as large; strength of a ranking and sensitivity of a task are no signal.",
    "routing": "“Beyond chance” means p ≤ 0.05 by exchanging the two strategies of each seed; it says that they "
    "differ, and a difference that is not shown does not say that they are equal.",
    "selection": "“Beyond chance” means better than random experts and than a random router: corrected p ≤ 0.05 over "
    "the texts, and the same sign under each of several seeds. "
    "Of as many random signs of the differences of texts so few have a "
    "mean as large.",
    "graphs": "“Beyond chance” means a corrected p ≤ 0.05 against every null, on average over layers "
    "(Benjamini-Hochberg over all graphs, methods and nulls); for agreement, in every layer.",
    "pruning": "“Beyond chance” means a corrected p ≤ 0.05 against trajectories that remove as many random units; for "
    "what models write, also against the unchanged model, prompt by prompt.",
}
STUDY_SECTIONS = tuple(_BEYOND)
"""Sections of pages that are about a changed model or about graphs."""


def beyond_chance(sections: Sequence[str]) -> str:
    """What the verdicts of a page with these sections mean."""
    if tuple(sections) == ("activity",):
        return "Nothing on this page is tested."
    return next((text for section, text in _BEYOND.items() if section in sections), _HOLM)


def is_association(sections: Sequence[str]) -> bool:
    """Whether a page only relates neurons to labels, and changes nothing in the model."""
    return tuple(sections) != ("activity",) and not any(section in sections for section in _BEYOND)
