"""Batch analysis of modularity in pre-trained Transformers.

`open_run(uri)` opens what a job wrote: activations and dense results as xarray datasets, tables as Arrow.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.store import Run, open_run

__all__ = ["Run", "__version__", "open_run"]

__version__ = version("modularity")


def __getattr__(name: str) -> Any:
    """Import the store on first use: `import modularity` itself stays fast."""
    if name in {"open_run", "Run"}:
        from modularity import store

        return getattr(store, name)
    raise AttributeError(f"module 'modularity' has no attribute {name!r}")
