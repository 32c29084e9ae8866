"""Headline sentences of a similarity study, each with its numbers."""

from collections.abc import Iterator, Sequence

from modularity.report.content import Finding
from modularity.report.figures import LEVEL
from modularity.report.similarity_content import DATA_WORDS, TEXTS, Row, SimilarityContent, score_curves, site_words
from modularity.report.wording import capital, joined, number, p_value, plural, significant, with_interval

MEASURE = "centred"
_KINDS = {"head": "head", "expert": "expert", "ffn": "FFN block", "attention": "attention block"}


def similarity_findings(content: SimilarityContent) -> tuple[Finding, ...]:
    """What the page says first."""
    return (
        *(finding for site in content.vectors for finding in _site(content, site)),
        *_heads(content),
        *_dimensions(content),
        *(finding for kind in _KINDS for finding in _components(content, kind)),
    )


def _site(content: SimilarityContent, site: str) -> Iterator[Finding]:
    curves = score_curves(content, site, MEASURE)
    rows = curves[TEXTS]
    if not rows:
        return
    best = max(rows, key=lambda row: (row["score"], -row["layer"]))
    found = [row for row in rows if row["q_value"] <= LEVEL]
    subject, word = capital(site_words(site)), "depth" if site.endswith("/residual") else "layer"
    text = (
        f"{subject}: texts of one category are closer than others (centred cosine) in {len(found)} of "
        f"{plural(len(rows), word)}, most in {word} {best['layer']}: category score "
        f"{with_interval(best['score'], best['low'], best['high'], 3)}, {p_value(best['p_value'])}, "
        f"{p_value(best['q_value'], 'q')}, {best['n_texts']} texts."
    )
    for data in content.data[1:]:
        control = [row for row in curves[data] if row["layer"] == best["layer"]]
        if control:
            n_found = sum(row["q_value"] <= LEVEL for row in curves[data])
            text += (
                f" With {DATA_WORDS[data]} the score there is {number(control[0]['score'], 3)} "
                f"({n_found} of {plural(len(rows), word)} beyond chance)."
            )
    yield Finding(text, "supported" if found else "unsupported", subject, "scores")


def _heads(content: SimilarityContent) -> Iterator[Finding]:
    rows = [row for row in content.rows("category_scores", data=TEXTS, measure=MEASURE) if row["head"] >= 0]
    if not rows:
        return
    found = [row for row in rows if row["q_value"] <= LEVEL]
    best = max(rows, key=lambda row: (row["score"], -row["layer"], -row["head"]))
    text = (
        f"Heads: {len(found)} of {len(rows)} keep categories together beyond chance; the largest score is that of head "
        f"{best['layer']}.{best['head']}, {with_interval(best['score'], best['low'], best['high'])}, "
        f"{p_value(best['q_value'], 'q')}."
    )
    yield Finding(text, "supported" if found else "unsupported", "Heads", "heads")


def _dimensions(content: SimilarityContent) -> Iterator[Finding]:
    best = content.best_dimensions
    rows = [row for row in content.rows("dimension_summary", data=TEXTS) if row["site"].endswith("/residual")]
    if not best or not rows:
        return
    found = [entry for entry in best if entry[2] <= LEVEL]
    shown = ", ".join(f"{dimension} (F {significant(f)} at depth {layer})" for dimension, f, _, layer in best[:3])
    text = (
        f"Streams: {len(found)} of {rows[0]['n_dimensions']} dimensions of the residual stream differ by category at "
        f"some depth; the clearest are {shown}."
    )
    yield Finding(text, "supported" if found else "unsupported", "Streams", "streams")


def _components(content: SimilarityContent, kind: str) -> Iterator[Finding]:
    rows = content.rows("activity", data=TEXTS, kind=kind)
    if not rows:
        return
    word = _KINDS[kind]
    subject = f"Active {word}s"
    counts = []
    for name in content.categories:
        own = [row for row in rows if row["category"] == name and row["q_value"] <= LEVEL]
        n_up = sum(row["effect"] > 0 for row in own)
        if own:
            counts.append(f"{name} {n_up} up and {len(own) - n_up} down")
    n = len({(row["layer"], row["component"]) for row in rows})
    if not counts:
        yield Finding(f"{subject}: none of {n} lights up or goes dark for a category beyond chance.",
                      "unsupported", subject, "activity")  # fmt: skip
        return
    yield Finding(
        f"{subject}: of {n}, so many are more (up) or less (down) active for a category: {'; '.join(counts)}. "
        f"{_strongest(rows, word)}",
        "supported", subject, "activity",
    )  # fmt: skip


def _strongest(rows: Sequence[Row], word: str) -> str:
    found = [row for row in rows if row["q_value"] <= LEVEL]
    best = max(found, key=lambda row: (abs(row["effect"]), -row["layer"], -row["component"]))
    name = f"{best['layer']}.{best['component']}" if word in ("head", "expert") else str(best["layer"])
    return (
        f"The strongest is {word} {name} for {best['category']}, Hedges’ g {number(best['effect'], 1)}, "
        f"{p_value(best['q_value'], 'q')}."
    )


def similarity_notes(content: SimilarityContent) -> tuple[str, ...]:
    """What a reader has to know beside the findings."""
    notes = list(content.run.manifest.notes.get("plan", []))
    sizes = content.run.manifest.notes["categories"]
    notes.append(f"Texts by category: {joined([f'{name} {n}' for name, n in sizes.items()])}.")
    return tuple(notes)
