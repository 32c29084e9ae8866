r"""Do the blocks of a Transformer pass information through few directions?

Question: what is the spectrum of the Jacobian of each attention and each FFN, without residual, from all positions of a
text to all positions? How many singular values are above rounding, and how many directions does a block really use,
against the same architecture before training and against the same weights in random order?
Source: NickyP and Fowler, Searching for Modularity in Large Language Models, LessWrong, September 2022 ("tight pass").
To compare with, OPT-125M: 2-token text: attention bends at about 2,200 values, FFN has about 1,240 that are not zero;
34 tokens: FFN about 9,200, attention no bend; the FFN rank is lowest just after the first layer. These are counts in
float32, where rounding was read as signal; a begin token was evidently among the positions. 34 tokens took 20 minutes
for one block, and longer texts did not fit: 512 tokens would have needed 1.4 TB.

    python -m jobs.tight_pass --model facebook/opt-125m --texts texts/ --out runs/tight --plan
    python -m jobs.tight_pass --model facebook/opt-125m --texts texts.jsonl --out runs/tight \
        --set max_tokens=512 --set layers='[0,1,11]' --set texts.category=kind
"""

from typing import Annotated

import typer

from modularity import cli


def command(
    model: Annotated[str, typer.Option(help="Hub id or folder of the checkpoint.")],
    texts: Annotated[
        list[str], typer.Option(help="File, folder, glob or URI with texts, or sample:<name>; may be repeated.")
    ],
    out: cli.OutOption = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
) -> None:
    """Spectra of the Jacobians of all sub-blocks.

    Example: python -m jobs.tight_pass --model facebook/opt-125m --texts texts/ --out runs/tight --plan
    """
    with cli.readable_errors():
        values = {"job": "tight_pass", "model": {"name": model}, "texts": {"source": texts}}
        values, lines = cli.with_overrides(values, overrides)
        cli.launch(values, out=out, plan=plan, lines=lines, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
