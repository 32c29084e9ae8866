"""Does a Transformer need the neurons that predict a task, and does it need them for this task only?

Question: when the neurons (or experts) that best predict a task are made noisy, does this task suffer more than the
others, and more than under random neurons that are as active and write as strongly?
Source: Zhang Z. et al., Emergent Modularity in Pre-trained Transformers, ACL Findings 2023, arXiv 2305.18390, Fig. 2.
It takes a finished run of `jobs/emergent_modularity.py` on the same checkpoint. What fine-tuning with some experts of a
mixture model reaches (Table 3) is the job `restricted_routing`.
To compare with, T5-base, mean accuracy on SST-2, MRPC, CoLA and QQP with 2, 6, 10 and 12 of 96 experts' worth of
neurons shuffled in the last four encoder layers, 87.4 unchanged: random 87.5, 86.6, 84.9, 83.7; ranked by SST-2 86.4,
81.3, 73.4, 69.2; by QQP 86.8, 76.2, 61.3, 58.9; by the average 81.3, 70.8, 63.9, 60.0; whole experts 85.7, 68.1, 54.8,
55.7. By its released per-task numbers there is no double dissociation.

    python -m jobs.perturbation --run runs/t5-glue --out runs/t5-perturbed --set first_token=true --plan
    python -m jobs.perturbation --run runs/t5 --words words.yaml --out runs/t5-perturbed --set first_token=true

where the functions of the run declare label words, as those of GLUE do, or words.yaml names the tasks, the word for
label 1 before that for label 0:

    label_words:
      sst2: [positive, negative]
      mrpc: [equivalent, not_equivalent]
"""

from pathlib import Path
from typing import Annotated

import typer

from modularity import cli
from modularity.config import read_config_file


def command(
    run: Annotated[str, typer.Option("--run", help="Finished run of emergent_modularity: folder or URI.")],
    words: Annotated[
        Path | None,
        typer.Option(
            help="YAML or JSON file with `label_words` and other keys of the job. Default: the words of the run."
        ),
    ] = None,
    out: cli.OutOption = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Make the neurons of each task noisy and measure all tasks.

    Example: python -m jobs.perturbation --run runs/t5-glue --out runs/t5-perturbed --plan
    """
    with cli.readable_errors():
        values, lines = ({}, {}) if words is None else read_config_file(words)
        values, lines = cli.with_overrides({**values, "job": "perturbation", "source": run}, overrides, lines)
        cli.launch(values, out=out, plan=plan, lines=lines, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
