"""Do neurons and experts of a pre-trained Transformer specialise in functions?

Question: which neurons predict which function, do those neurons gather in experts, and do functions share neurons?
Source: Zhang Z. et al., Emergent Modularity in Pre-trained Transformers, ACL Findings 2023, arXiv 2305.18390.
To compare with, T5-base encoder, layers 1 to 12: the best neuron's average precision, averaged over sub-functions, is
.847 to .836 for semantic (random weights .70), .671 to .664 for knowledge (.60 to .61) and .691 to .889 for task (.657
to .666); top-32 neurons shared within functions .057, .095 and .082, between functions .014 to .044, by chance .0104.

    python -m jobs.emergent_modularity --model t5-base --functions functions.yaml --out runs/t5 --plan
    python -m jobs.emergent_modularity --model t5-base --glue hf://datasets/nyu-mll/glue --out runs/t5-glue --plan
    python -m jobs.emergent_modularity --model ./my-checkpoint --out s3://bucket/run --set runtime.gpus_per_worker=1
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from modularity import cli
from modularity.config import Key, read_config_file
from modularity.errors import InputError


def read_functions(path: Path | None) -> tuple[list[Any], dict[Key, str]]:
    """Functions declared in a file and the places of their keys, or the sample functions that ship with the package."""
    if path is None:
        from modularity.data.sample_functions import sample_functions

        return [function.as_json() for function in sample_functions()], {}
    values, lines = read_config_file(path)
    if set(values) != {"functions"}:
        raise InputError(
            f"{path}: expected the one key 'functions' with a list, found {', '.join(map(str, values)) or 'nothing'}; "
            "a file with a whole job is run by `modularity run FILE`"
        )
    if not isinstance(values["functions"], list):
        raise InputError(
            f"{lines[('functions',)]}: functions={values['functions']!r}: expected a list, each entry with a name "
            "and a source"
        )
    return values["functions"], lines


def function_values(functions: Path | None, glue: str | None) -> tuple[dict[str, Any], dict[Key, str]]:
    """Part of a config that `--functions` and `--glue` stand for, and the places of its keys."""
    declared, lines = ([], {}) if glue is not None and functions is None else read_functions(functions)
    if glue is None:
        return {"functions": declared}, lines
    return {"functions": [*declared, {"glue": glue}], "capture": {"max_tokens": 512}}, lines  # as in the paper


def command(
    model: Annotated[str, typer.Option(help="Hub id or local folder of the checkpoint.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the hub repository.")] = None,
    functions: Annotated[
        Path | None, typer.Option(help="YAML or JSON file with a list `functions`; default: the sample functions.")
    ] = None,
    glue: Annotated[str | None, typer.Option(help="Folder or URI of GLUE: adds its tasks; 512 tokens a text.")] = None,
    out: cli.OutOption = None,
    reuse: cli.ReuseOption = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Find functional neurons and experts of a model.

    Example: python -m jobs.emergent_modularity --model ./opt-125m --out runs/opt --plan
    """
    with cli.readable_errors():
        declared, lines = function_values(functions, glue)
        values = {"model": {"name": model, "revision": revision}, **declared}
        values, lines = cli.with_overrides(values, overrides, lines)
        cli.launch(values, out=out, plan=plan, reuse=reuse, lines=lines, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
