"""Work items that wire the rooms below: plan a job, run or resume it, report on it, verify it."""

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
