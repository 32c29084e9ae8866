"""Work items that wire the rooms below: plan a job, run or resume it, report on it, verify it.

Names are imported when first used: a config is validated, and a run's status is read, without torch and transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.pipelines.config import EmergentModularityConfig
    from modularity.pipelines.emergent import plan_job, run_job
    from modularity.pipelines.perturbation import plan_perturbation, run_perturbation
    from modularity.pipelines.perturbation_config import PerturbationConfig
    from modularity.pipelines.plan import Plan
    from modularity.pipelines.scan import ScanPlan, plan_scan, run_scan
    from modularity.pipelines.scan_config import ScanConfig, ScanSettings
    from modularity.pipelines.similarity import plan_similarity, run_similarity
    from modularity.pipelines.similarity_config import SimilarityConfig
    from modularity.pipelines.status import RunStatus, run_status
    from modularity.pipelines.status_of_scan import ScanStatus, scan_status
    from modularity.pipelines.verification import Verification, verify_run

__all__ = [
    "EmergentModularityConfig",
    "PerturbationConfig",
    "Plan",
    "RunStatus",
    "ScanConfig",
    "ScanPlan",
    "ScanSettings",
    "ScanStatus",
    "SimilarityConfig",
    "Verification",
    "plan_job",
    "plan_perturbation",
    "plan_scan",
    "plan_similarity",
    "run_job",
    "run_perturbation",
    "run_scan",
    "run_similarity",
    "run_status",
    "scan_status",
    "verify_run",
]

_HOME = {
    "EmergentModularityConfig": "config",
    "PerturbationConfig": "perturbation_config",
    "Plan": "plan",
    "RunStatus": "status",
    "ScanConfig": "scan_config",
    "ScanPlan": "scan",
    "ScanSettings": "scan_config",
    "ScanStatus": "status_of_scan",
    "SimilarityConfig": "similarity_config",
    "Verification": "verification",
    "plan_job": "emergent",
    "plan_perturbation": "perturbation",
    "plan_scan": "scan",
    "plan_similarity": "similarity",
    "run_job": "emergent",
    "run_perturbation": "perturbation",
    "run_scan": "scan",
    "run_similarity": "similarity",
    "run_status": "status",
    "scan_status": "status_of_scan",
    "verify_run": "verification",
}


def __getattr__(name: str) -> Any:
    """Public name `name`, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
