"""What a reader must know besides the figures: texts cut, examples left out, ties, permutations that repeat."""

from collections.abc import Iterator

from modularity.report.run_tables import RunTables
from modularity.report.wording import count, number, plural
from modularity.stats.arrangements import n_arrangements
from modularity.store import Run

_ROUTING = ("routed", "dropped")


def run_notes(run: Run, tables: RunTables) -> Iterator[str]:
    """Sentences, each naming the function that it speaks of."""
    manifest = run.manifest
    for name, n_truncated in manifest.notes.get("truncated", {}).items():
        if n_truncated:
            yield f"{n_truncated:,} texts of function {name} were longer than the limit and lost their end."
    yield from (f"{note.rstrip('.')}." for note in manifest.notes.get("data", []))
    yield from _corpora(tables)
    yield from _few_arrangements(run, tables)
    if manifest.config["variant"] == "paper":
        yield "Variant paper: neurons are chosen and reported on the same examples, so their values are optimistic."
    if manifest.state != "finished":
        yield f"The run is {manifest.state}: parts of this page may be missing."
    routed, dropped = (sum(int(record.info.get(name, 0)) for record in run.commits().values()) for name in _ROUTING)
    if dropped:
        yield (
            f"Capacity of experts: of {routed:,} routings, each of one token in one layer, {dropped:,} found their "
            "expert full; no expert processed these tokens there."
        )
    ties = sum(int(record.info.get("boundary_ties", 0)) for record in run.commits().values())
    if ties:
        yield (
            f"Overlap of functions: {ties:,} neurons, over all sub-functions and layers, tied with the last of a top "
            "list; those of lowest index were taken."
        )


def _corpora(tables: RunTables) -> Iterator[str]:
    """What became of the rows of each corpus that was read for reductions."""
    for name in dict.fromkeys(row["corpus"] for row in tables.rows("corpus_parts")):
        parts = tables.rows("corpus_parts", corpus=name)
        n_texts, n_tokens, n_truncated, n_empty, n_left_out = (
            sum(part[column] for part in parts) for column in ("texts", "tokens", "truncated", "empty", "left_out")
        )
        besides = [
            *([f"{count(n_truncated)} of these were longer than the limit and lost their end"] if n_truncated else []),
            *([f"{plural(n_empty, 'row')} without a token that counts"] if n_empty else []),
            *([f"{plural(n_left_out, 'row')} left out"] if n_left_out else []),
        ]
        first = next((part["left_out_first"] for part in parts if part["left_out_first"]), "")
        yield (
            f"Corpus {name}: {plural(n_texts, 'text')}, {plural(n_tokens, 'token')} went through the model"
            f"{''.join(f'; {each}' for each in besides)}{f', the first: {first}' if first else ''}."
        )


def _few_arrangements(run: Run, tables: RunTables) -> Iterator[str]:
    """Sub-functions whose labels have fewer arrangements than permutations were drawn."""
    config = run.manifest.config
    n_permutations = config["predictivity"]["n_permutations"]
    for function in tables.functions:
        if not tables.rows("function_curve", function=function):
            continue
        coordinates = run.coordinates(function)
        half_R = coordinates["selection"].astype(bool) | (config["variant"] == "paper")
        for name, labels_R in zip(coordinates["subfunction"].tolist(), coordinates["label"]):
            rows = half_R & (labels_R >= 0)
            found = n_arrangements(labels_R[rows], coordinates["cluster"][rows])
            if found < n_permutations:
                arrangements = plural(int(found), "distinct arrangement")
                yield (
                    f"{function}, sub-function {name}: its clusters allow {arrangements} of the labels, fewer than the "
                    f"{count(n_permutations)} permutations drawn, so that no p-value of it is to be expected below "
                    f"{number(1 / found, 3)}."
                )
