"""The page of a similarity study: one HTML file that loads nothing, with figures to explore."""

from modularity.report.content import Provenance
from modularity.report.page import finding_sentence, render_page
from modularity.report.palette import category
from modularity.report.provenance import run_provenance
from modularity.report.similarity_content import DATA_WORDS, SimilarityContent
from modularity.report.similarity_explorers import ExplorerLimits, explorers
from modularity.report.similarity_figures import similarity_figures
from modularity.report.similarity_findings import similarity_findings, similarity_notes
from modularity.report.wording import joined
from modularity.store import Run

HEADINGS = {
    "gram": ("Similarity", "How alike all rows are"),
    "scores": ("Scores", "Categories against chance, layer by layer"),
    "heads": ("Heads", "Single heads"),
    "streams": ("Streams", "Dimensions that differ by category"),
    "projection": ("Projections", "Rows in the plane"),
    "activity": ("Activity", "What lights up or goes dark"),
    "alignment": ("Alignment", "Layers and sites against each other"),
}


def render_similarity(content: SimilarityContent, limits: ExplorerLimits | None = None) -> str:
    """The page as HTML text: a whole document without any reference outside itself, all text escaped."""
    figures, found = similarity_figures(content), explorers(content, limits)
    explored = {"gram": found.gram, "streams": found.streams, "projection": found.projection}
    shown = [
        anchor
        for anchor in HEADINGS
        if explored.get(anchor) is not None or any(figure.section == anchor for figure in figures)
    ]
    names: list[str] = []
    for anchor in shown:
        drawn = [figure.name for figure in figures if figure.section == anchor]
        own = [anchor] if explored.get(anchor) is not None else []
        names += drawn + own if anchor == "streams" else own + drawn
    return render_page(
        "similarity.html.j2",
        scripts=("explorer.js",),
        styles=("explorer.css",),
        content=content,
        findings=similarity_findings(content),
        notes=similarity_notes(content),
        figures=figures,
        explorers=found,
        numbers={name: number for number, name in enumerate(names, 1)},
        sections=[(anchor, HEADINGS[anchor][0]) for anchor in shown],
        headings={anchor: words for anchor, (_, words) in HEADINGS.items()},
        provenance=_provenance(content.run),
        controls=joined([DATA_WORDS[data] for data in content.data[1:]]),
        created=content.run.manifest.created[:16].replace("T", " "),
        n_positions=len(content.run.manifest.notes["positions"]),
        # Depth 0 of the residual stream is before the first layer.
        n_layers=max(len(content.layers(site)) - site.endswith("/residual") for site in content.sites),
        colour=category,
        sentence=finding_sentence,
    )


def _provenance(run: Run) -> Provenance:
    return run_provenance(
        run,
        details=[("positions", str(run.manifest.notes["positions"]))],
        commands=[
            ("the figures of this page, and others, as SVG and PNG", f"modularity figures {run.uri} --out figures"),
            ("the scores", f'modularity sql {run.uri} "select * from category_scores"'),
            ("check every byte, and recompute rows from the model", f"modularity verify {run.uri}"),
        ],
    )
