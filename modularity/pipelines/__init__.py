"""Work items that wire the rooms below: plan a job, run or resume it, report on it, verify it.

Names are imported when first used: a config is validated, and a run's status is read, without torch and transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.pipelines.config import EmergentModularityConfig
    from modularity.pipelines.emergent import plan_job, run_job
    from modularity.pipelines.plan import Plan
    from modularity.pipelines.status import RunStatus, run_status
    from modularity.pipelines.verification import Verification, verify_run

__all__ = [
    "EmergentModularityConfig",
    "Plan",
    "RunStatus",
    "Verification",
    "plan_job",
    "run_job",
    "run_status",
    "verify_run",
]

_HOME = {
    "EmergentModularityConfig": "config",
    "Plan": "plan",
    "RunStatus": "status",
    "Verification": "verification",
    "plan_job": "emergent",
    "run_job": "emergent",
    "run_status": "status",
    "verify_run": "verification",
}


def __getattr__(name: str) -> Any:
    """Public name `name`, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
