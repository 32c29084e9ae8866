"""When does a small Transformer learn what, and does its structure emerge with it?

Question: with languages whose rules are known (agreement, nesting, counting, facts, senses), at which step does a model
know each of them, on held-out minimal pairs? The checkpoints are then scanned for neurons and experts.
Source: as `jobs/emergent_modularity.py`, Fig. 4 (checkpoints of pre-training); the languages are our own.
To compare with: no figures are published for these languages; chance is 50 %. The series that ships with the package
(seed 0, OPT) knows all five at its last step: modularity/data/samples/series/README.md.

    python -m jobs.pretrain_tiny --out runs/tiny-opt --plan
    python -m jobs.pretrain_tiny --architecture switch --steps 4000 --out runs/tiny-switch --set n_experts=8
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modularity import cli
from modularity.config import validate_config
from modularity.errors import InputError

if TYPE_CHECKING:
    from modularity.pretraining import Pace

_SIZES: dict[str, dict[str, Any]] = {"opt": {}, "t5": {}, "switch": {"n_layers": 4, "n_neurons": 64}}


def show(pace: "Pace") -> None:
    """One line for a checkpoint: rule and verdict accuracy of each language in percent."""
    left = "" if pace.seconds_left is None else f", {pace.seconds_left / 60:.1f} min left"
    scores = "  ".join(
        f"{name} {100 * score.rule.share:.0f}/{100 * score.verdict.share:.0f}"
        for name, score in pace.checkpoint.languages.items()
    )
    print(f"step {pace.step}/{pace.steps}{left}: rule/verdict % {scores}", file=sys.stderr)


def command(
    architecture: Annotated[str, typer.Option(help="Kind of model: opt, t5 or switch.")] = "opt",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 2000,
    out: Annotated[Path | None, typer.Option("--out", help="Local folder for the checkpoints.")] = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Train a small model on the planted languages, with log-spaced checkpoints; the same command goes on.

    Example: python -m jobs.pretrain_tiny --architecture opt --steps 2000 --out runs/tiny-opt
    """
    with cli.readable_errors():
        from modularity.pipelines.machine_plan import training_loads
        from modularity.pretraining import PretrainConfig, plan_pretraining, pretrain

        cli.check_profiles(profile, plan=plan)
        values = {"architecture": architecture, "steps": steps, **_SIZES.get(architecture, {})}
        values, lines = cli.with_overrides(values, overrides)
        config = validate_config(PretrainConfig, values, lines)
        if plan:
            made = plan_pretraining(config)
            print(made.text())
            cli.tell_machines(training_loads(config, made), profile, "lower width, n_layers or batch_sentences")
            return
        if out is None:
            raise InputError("--out is missing: name the folder for the checkpoints, e.g. --out runs/tiny-opt")
        record = pretrain(config, out, progress=show)
        print(f"{len(record.checkpoints)} checkpoints: {out}")


if __name__ == "__main__":
    cli.run_as_job(command)
