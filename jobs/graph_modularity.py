"""Do the weights of a Transformer, or the joint activity of its neurons, divide its layers into groups?

Question: can the graph of a layer's weights (or of its co-activations) be cut into groups of neurons with little
weight between them, better than graphs with the same weights at random places, and are these groups the experts of the
main study?
Source: Filan D. et al., Clusterability in Neural Networks, 2021, arXiv 2103.03386: n-cut of a spectral partition into
12 groups against permuted weights. Newman's Q, the Leiden algorithm, nulls that keep hubs, co-activations are added.
To compare with: multilayer perceptrons trained on MNIST have an n-cut of 10.00 to 10.04, with permuted weights 10.15
to 10.19, z from -2.7 to -5.6. Nothing is published for Transformers; docs/studies/graph_modularity.md has ours.

    python -m jobs.graph_modularity --model facebook/opt-125m --out runs/opt-graphs --plan
    python -m jobs.graph_modularity --run runs/quickstart --out runs/quickstart-graphs --set n_draws=50
"""

from typing import Annotated, Any

import typer

from modularity import cli
from modularity.errors import InputError


def command(
    model: Annotated[str | None, typer.Option(help="Hub id or folder of the checkpoint; no text is needed.")] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", help="Finished run of emergent_modularity: its model, and also co-activations and its experts."
        ),
    ] = None,
    out: cli.OutOption = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Cut graphs of weights and of co-activations into groups, and compare with nulls and with experts.

    Example: python -m jobs.graph_modularity --model facebook/opt-125m --out runs/opt-graphs --plan
    """
    with cli.readable_errors():
        if model is None and run is None:
            raise InputError("neither --model nor --run is given: name a checkpoint, a finished run, or both")
        values: dict[str, Any] = {"job": "graph_modularity"}
        if model is not None:
            values["model"] = {"name": model}
        if run is not None:
            values["source"] = run
        values, lines = cli.with_overrides(values, overrides)
        cli.launch(values, out=out, plan=plan, lines=lines, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
