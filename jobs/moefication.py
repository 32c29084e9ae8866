"""How much of a dense Transformer does a token need: what is kept when it runs only some experts of every FFN?

Question: do the neurons of a layer fall into experts of which a token needs few, can a router tell which, and what do
language-model loss and accuracy lose when only these run? Beside random experts and a router that nothing has taught.
Source: Zhang Z. et al., MoEfication, Findings of ACL 2022, arXiv 2110.01786.
To compare with, T5, experts of 32 neurons: 10 to 30 % of the FFN parameters keep more than 95 % of the performance, at
25 % a CPU is about twice as fast. Here neurons are silenced, not skipped: the saving is counted in operations.

    python -m jobs.moefication --model series --out runs/moefied --plan
    python -m jobs.moefication --model facebook/opt-125m --functions functions.yaml --out runs/opt-moefied
    python -m jobs.moefication --run runs/t5-glue --out runs/t5-moefied --export t5-moefied --set first_token=true
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.emergent_modularity import read_functions
from modularity import cli
from modularity.config import Key, read_config_file
from modularity.errors import InputError


def series_values() -> dict[str, Any]:
    """Config for the last checkpoint of the trained series that ships with the package, with its planted functions."""
    from modularity.data import planted_functions, planted_label_words, series_path

    return {
        "model": {"name": str(max(series_path().glob("step*"))), "dtype": "float32"},
        "functions": [function.as_json() for function in planted_functions()],
        "label_words": planted_label_words(),
        "n_experts": 32,  # of 8 neurons: the layers have 256
    }


def command(
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub id or folder of a dense checkpoint with its LM head, or `series`. Default: that of --run."
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Finished run of emergent_modularity with partitions.")
    ] = None,
    functions: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON file with `functions` or `texts`; default: those of --run, or samples."),
    ] = None,
    words: Annotated[Path | None, typer.Option(help="YAML or JSON file with `label_words` and other keys.")] = None,
    export: Annotated[str | None, typer.Option(help="New folder for the divided model as a checkpoint.")] = None,
    out: cli.OutOption = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Divide the FFNs of a dense model into experts, and run it with some of them.

    Example: python -m jobs.moefication --model series --out runs/moefied
    """
    with cli.readable_errors():
        if model is None and run is None:
            raise InputError("--model and --run are missing: name a checkpoint, or a finished run of one")
        values: dict[str, Any] = series_values() if model == "series" else {"source": run}
        if model not in (None, "series"):
            values["model"] = {"name": model}
        lines: dict[Key, str] = {}
        for part in (functions, words):
            more, places = ({}, {}) if part is None else read_config_file(part)
            values, lines = {**values, **more}, {**lines, **places}
        values |= {"job": "moefication"} | ({} if export is None else {"export": {"folder": export}})
        values, lines = cli.with_overrides(values, overrides, lines)
        if run is None and not {"functions", "texts"} & values.keys():
            values["functions"], _ = read_functions(None)
        cli.launch(values, out=out, plan=plan, lines=lines, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
