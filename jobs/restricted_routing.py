"""Does fine-tuning with only the functional experts suffice?

Question: when a mixture model is fine-tuned on a few examples and tokens may go only to the experts in which the best
neurons of a task gather, is it as good as with all experts, and better than with as many others?
Source: Zhang Z. et al., Emergent Modularity in Pre-trained Transformers, ACL Findings 2023, arXiv 2305.18390, Table 3.
It takes a finished run of `jobs/emergent_modularity.py` on the same checkpoint, with `experts.methods=[native]`.
To compare with, Switch-base-16, 128 examples, 8 seeds, mean of the best validation accuracy, original / no functional
expert / functional experts only: CoLA 72.1/73.0/73.1, MNLI 53.9/50.9/56.2, MRPC 75.8/75.2/77.2, RTE 65.7/65.3/65.4,
QNLI 75.2/76.2/78.3, QQP 77.1/76.8/78.3, SST-2 92.8/92.1/92.5; average 73.2/72.8/74.5. There the
checkpoint was chosen on the examples that are reported (variants `paper` and `released`).

    python -m jobs.restricted_routing --run runs/switch --words words.yaml --out runs/switch-routing --plan
    python -m jobs.restricted_routing --run runs/switch --words words.yaml --out runs/switch-routing

where words.yaml names the tasks, the word for label 1 before that for label 0, and what else differs from the defaults
(128 examples, 8 seeds, Adam 2e-4, batches of 16, a checkpoint every 4 steps, 100 epochs). Without it the tasks are
those for which the functions of the run declare label words, as those of GLUE do.

    label_words:
      cola: [acceptable, unacceptable]
      mrpc: [equivalent, different]
    task_epochs: {cola: 100, mrpc: 50}
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
    """Fine-tune on each task with all experts, functional ones, others and random ones.

    Example: python -m jobs.restricted_routing --run runs/switch --words words.yaml --out runs/routing --plan
    """
    with cli.readable_errors():
        values, lines = ({}, {}) if words is None else read_config_file(words)
        values, lines = cli.with_overrides({**values, "job": "restricted_routing", "source": run}, overrides, lines)
        cli.launch(values, out=out, plan=plan, lines=lines, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
