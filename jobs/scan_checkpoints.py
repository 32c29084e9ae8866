"""When in pre-training do functional neurons and experts appear, and which settles first?

Question: how does the best neuron of each function, the gathering of functional neurons in experts, and the ranking of
neurons and experts change from checkpoint to checkpoint? Experts are those of one checkpoint, the last, at every step.
Source: Zhang Z. et al., Emergent Modularity in Pre-trained Transformers, ACL Findings 2023, arXiv 2305.18390, Fig. 4.
To compare with, T5-base, Spearman correlation of consecutive checkpoints (every 5,000 steps) at 5k / 20k / 95k / 195k:
semantic experts .716 .908 .941 .994, neurons .400 .760 .868 .993, random groups .260 .642 .822 .983; task experts
.503 .850 .916 .991, neurons .181 .571 .792 .985, random groups .184 .595 .811 .986.

    python -m jobs.scan_checkpoints --model EleutherAI/pythia-1.4b --revisions step1000:step143000:8 --out s3://bucket/scan
    python -m jobs.scan_checkpoints --model ./training --parallel 2 --out runs/scan
    python -m jobs.scan_checkpoints --model series --out runs/series
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.emergent_modularity import function_values
from modularity import cli


def series_values() -> dict[str, Any]:
    """Config of the scan of the trained series that ships with the package, with its planted functions."""
    from modularity.data import planted_functions, series_path

    return {
        "job": "scan_checkpoints",
        "model": {"name": str(series_path())},
        "functions": [function.as_json() for function in planted_functions()],
        # 1 % of 256 neurons would be two: no expert could stand out
        "experts": {"top_fraction": 0.05, "sensitivity": [0.05, 0.1]},
        "scan": {},
    }


def command(
    model: Annotated[
        list[str],
        typer.Option(
            help="Hub id; training directory with sub-folders like step00000100; several folders; or `series`, the "
            "trained series that ships with the package, with its functions."
        ),
    ],
    revisions: Annotated[
        str | None, typer.Option(help="step1,step2 or step1000:step143000:8 (even) or step1:step143000:log12.")
    ] = None,
    functions: Annotated[
        Path | None, typer.Option(help="YAML or JSON file with a list `functions`; default: the sample functions.")
    ] = None,
    glue: Annotated[str | None, typer.Option(help="Folder or URI of GLUE: adds its tasks; 512 tokens a text.")] = None,
    parallel: Annotated[int | None, typer.Option(help="Checkpoints side by side; default: as many as fit.")] = None,
    out: cli.OutOption = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Study every checkpoint of a training run with one partition into experts, and compare them.

    Example: python -m jobs.scan_checkpoints --model ./training --parallel 2 --out runs/scan
    """
    with cli.readable_errors():
        declared, lines = function_values(functions, glue)
        values: dict[str, Any] = {"job": "scan_checkpoints", "model": {"name": model[0]}, **declared}
        if model == ["series"]:
            values = series_values() | (declared if functions or glue else {})
        folders = model if len(model) > 1 else []
        values["scan"] = {"revisions": revisions, "folders": folders, "parallel": parallel}
        values, lines = cli.with_overrides(values, overrides, lines)
        cli.launch(values, out=out, plan=plan, lines=lines, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
