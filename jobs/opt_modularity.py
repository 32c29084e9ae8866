"""Is a language model modular? The questions of the OPT modularity study, for any decoder or encoder, as one job.

Question: are activations of texts of one category alike, and in which heads, blocks and experts; do sub-blocks pass
information through few directions; do weights and co-activations divide into groups; and can one capability be pruned
away while another stays?
Source: NickyP and Fowler, Searching for Modularity in Large Language Models, LessWrong, September 2022, on OPT-125M and
OPT-2.7B; Pochinkov and Schoots 2024, arXiv 2403.01267 (pruning); Filan et al. 2021, arXiv 2103.03386 (graphs).
To compare with: what they found stands in `jobs/similarity.py`, `jobs/tight_pass.py`, `jobs/graph_modularity.py` and
`jobs/pruning.py`, each of which runs one part alone.

    python -m jobs.opt_modularity --model facebook/opt-125m --target 'code/*.jsonl' --retain 'pile/*.jsonl' \
        --out runs/opt --plan
    python -m jobs.opt_modularity --model series --out runs/series-study

Texts in categories are those that ship with the package, or `--texts FOLDER` with one sub-folder for each category.
Without --target and --retain nothing is pruned. `--model series` is the last checkpoint of the shipped series, with its
planted languages as categories and as capabilities; without --model it is MiniLM, which is not pruned.
"""

from typing import Annotated, Any

import typer

from jobs.similarity import SERIES, study_values
from modularity import cli


def opt_values(model: str | None, texts: str | None, target: str | None, retain: str | None) -> dict[str, Any]:
    """Config of the study: every part that the arguments allow."""
    similarity = study_values(model, texts)
    passes: dict[str, Any] = {"texts": {"source": texts or "sample:texts"}}
    if model == SERIES:
        passes = {"texts": {"source": "sample:planted_languages", "category": "label", "per_category": 4}}
        target, retain = target or "planted:brackets", retain or "planted:relations"
    values: dict[str, Any] = {
        "job": "opt_modularity",
        "model": similarity["model"],
        "similarity": {key: value for key, value in similarity.items() if key not in ("job", "model")},
        "tight_pass": passes,
        "graph_modularity": {},
    }
    if target is not None or retain is not None:
        sources = {"target": target, "retain": retain}
        values["pruning"] = {
            name: {"name": name, "source": source.split(",")} for name, source in sources.items() if source is not None
        }
        if model == SERIES:
            values["pruning"]["continuations"] = {"n_prompt_tokens": 3, "n_new": 24}
    return values


def command(
    model: Annotated[
        str | None, typer.Option(help="Hub id or folder of a checkpoint, or `series`. Default: MiniLM.")
    ] = None,
    texts: Annotated[
        str | None, typer.Option(help="Folder with one sub-folder of texts for each category. Default: shipped texts.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Texts of the capability to prune away; several sources with commas.")
    ] = None,
    retain: Annotated[str | None, typer.Option(help="Texts of the capability to keep, in the same way.")] = None,
    out: cli.OutOption = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Similarity, tight passes, graphs and pruning of one model, each a run of its own inside --out.

    Example: python -m jobs.opt_modularity --model series --out runs/series-study
    """
    with cli.readable_errors():
        values, lines = cli.with_overrides(opt_values(model, texts, target, retain), overrides)
        cli.launch(values, out=out, plan=plan, lines=lines, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
