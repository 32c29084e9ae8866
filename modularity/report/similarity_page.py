"""The page of a similarity study: one HTML file that loads nothing, with figures to explore."""

import json

from modularity.report.content import Provenance, ProvenanceGroup
from modularity.report.page import finding_sentence, render_page
from modularity.report.palette import category
from modularity.report.similarity_content import DATA_WORDS, SimilarityContent
from modularity.report.similarity_explorers import ExplorerLimits, explorers
from modularity.report.similarity_figures import similarity_figures
from modularity.report.similarity_findings import similarity_findings, similarity_notes
from modularity.report.wording import joined

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
        provenance=_provenance(content),
        controls=joined([DATA_WORDS[data] for data in content.data[1:]]),
        created=content.run.manifest.created[:16].replace("T", " "),
        n_positions=len(content.run.manifest.notes["positions"]),
        n_layers=max(len(content.layers(site)) for site in content.sites),
        colour=category,
        sentence=finding_sentence,
    )


def _provenance(content: SimilarityContent) -> Provenance:
    run, manifest = content.run, content.run.manifest
    own = [("run", run.uri), ("job", manifest.job), ("config digest", manifest.config_digest),
           ("content hash", run.content_hash()), ("created", manifest.created),
           ("device", str(manifest.notes.get("device"))), ("positions", str(manifest.notes["positions"]))]  # fmt: skip
    return Provenance(
        groups=(
            ProvenanceGroup("Run", tuple(own)),
            ProvenanceGroup("Model", tuple((k, str(v)) for k, v in manifest.identity["model"].items())),
            ProvenanceGroup("Data fingerprints", tuple(manifest.identity["data"].items())),
            ProvenanceGroup("Versions", tuple(manifest.versions.items())),
            ProvenanceGroup("Seeds", tuple((name, str(seed)) for name, seed in manifest.seeds.items())),
        ),
        commands=(
            ("the figures of this page, and others, as SVG and PNG", f"modularity figures {run.uri} --out figures"),
            ("the scores", f'modularity sql {run.uri} "select * from category_scores"'),
            ("check every byte, and recompute rows from the model", f"modularity verify {run.uri}"),
            ("run it again from the config below", "modularity run config.json --out ANOTHER"),
        ),
        config=json.dumps(manifest.config, indent=1, ensure_ascii=False),
    )
