"""What ships with the package: functions (semantic, knowledge, task) over the files of `samples/`; a trained series.

The three kinds follow Zhang Z. et al. 2023 (arXiv 2305.18390, section 3). The texts are our own: `samples/README.md`.
"""

from importlib import resources
from pathlib import Path

from modularity.data.function_part import Columns
from modularity.data.functions import FunctionConfig

_COLUMNS = Columns(id="id", subfunction="subfunction", cluster="pair", split="split")


def sample_functions() -> tuple[FunctionConfig, ...]:
    """Configs of the shipped functions, in the order semantic, knowledge, task, with max pooling over all tokens."""
    span = _COLUMNS.replace(target_start="start", target_end="end")
    return (
        FunctionConfig(name="semantic", kind="semantic", source="sample:semantic", columns=span),
        FunctionConfig(name="knowledge", kind="knowledge", source="sample:knowledge", columns=_COLUMNS),
        FunctionConfig(name="task", kind="task", source="sample:task", columns=_COLUMNS),
    )


def inference_function() -> FunctionConfig:
    """Config of the shipped function over pairs of sentences: the first entails or contradicts the second.

    A function of its own, because a function has a second segment in all of its rows or in none.
    """
    columns = _COLUMNS.replace(text_pair="text_pair")
    return FunctionConfig(name="inference", kind="task", source="sample:inference", columns=columns)


def series_path() -> Path:
    """Folder of the trained series that ships with the package: `training.json` and `step00000000/ …`.

    An OPT of three layers, trained on the planted languages; its functions are those of `planted_functions()`.
    """
    return Path(str(resources.files("modularity.data"))) / "samples" / "series" / "opt"
