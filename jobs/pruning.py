"""Can one capability be pruned away from a Transformer and another kept, so that it writes in one category only?

Question: when the units that do most on one kind of text and least on another are removed step by step, how much
further does the one fall than the other, compared with random units; and does the pruned model, given the beginning of
a text of the category that it lost, go on in the category that it kept?
Source: Pochinkov 2023, Separability; Pochinkov N. and Schoots N., Dissecting Language Models: Machine Unlearning via
Selective Pruning, 2024, arXiv 2403.01267.
To compare with: they find code and other text to be separable to some 65-75 %, by FFN neurons more than by attention;
what the pruned models write was not measured.

    python -m jobs.pruning --model facebook/opt-125m --target 'code/*.jsonl' --retain 'pile/*.jsonl' --out runs/pruned
    python -m jobs.pruning --model runs/tiny-opt/step00002000 --target planted:brackets --retain planted:relations
        --out runs/pruned --set continuations.n_prompt_tokens=3 --plan
"""

from typing import Annotated, Any

import typer

from modularity import cli


def command(
    model: Annotated[str, typer.Option("--model", help="Hub id or folder of the checkpoint, with its LM head.")],
    target: Annotated[
        str,
        typer.Option(
            help="Texts of the one category: file, folder, glob, URI, or planted:LANGUAGE; several with commas."
        ),
    ],
    retain: Annotated[str, typer.Option(help="Texts of the other category, in the same way.")],
    names: Annotated[str, typer.Option(help="Names of the two categories in all tables.")] = "target,retain",
    out: cli.OutOption = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Prune one capability and keep the other, in both directions, and judge what the pruned models write.

    Example: python -m jobs.pruning --model runs/m --target code --retain news --names code,news --out runs/pruned
    """
    with cli.readable_errors():
        corpora = [_corpus(source, name) for source, name in zip((target, retain), [*names.split(","), "", ""])]
        values: dict[str, Any] = {
            "job": "pruning", "model": {"name": model}, "target": corpora[0], "retain": corpora[1],
        }  # fmt: skip
        values, lines = cli.with_overrides(values, overrides)
        cli.launch(values, out=out, plan=plan, lines=lines, profiles=profile)


def _corpus(source: str, name: str) -> dict[str, Any]:
    sources = [part.strip() for part in source.split(",")]
    return {"name": name.strip(), "source": sources[0] if len(sources) == 1 else sources}


if __name__ == "__main__":
    cli.run_as_job(command)
