"""Work items that wire the rooms below: plan a job, run or resume it, report on it, verify it.

Names are imported when first used: a config is validated, and a run's status is read, without torch and transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.pipelines.config import EmergentModularityConfig
    from modularity.pipelines.emergent import plan_job, run_job
    from modularity.pipelines.graph_modularity import plan_graph_modularity, run_graph_modularity
    from modularity.pipelines.graph_modularity_config import GraphModularityConfig
    from modularity.pipelines.moefication import plan_moefication, run_moefication
    from modularity.pipelines.moefication_config import MoeficationConfig
    from modularity.pipelines.opt_modularity_config import OptModularityConfig
    from modularity.pipelines.perturbation import plan_perturbation, run_perturbation
    from modularity.pipelines.perturbation_config import PerturbationConfig
    from modularity.pipelines.plan import Plan
    from modularity.pipelines.pruning import plan_pruning, run_pruning
    from modularity.pipelines.pruning_config import PruningConfig
    from modularity.pipelines.restricted_routing import plan_restricted_routing, run_restricted_routing
    from modularity.pipelines.restricted_routing_config import RestrictedRoutingConfig
    from modularity.pipelines.scan import ScanPlan, plan_scan, run_scan
    from modularity.pipelines.scan_config import ScanConfig, ScanSettings
    from modularity.pipelines.similarity import plan_similarity, run_similarity
    from modularity.pipelines.similarity_config import SimilarityConfig
    from modularity.pipelines.status import RunStatus, run_status
    from modularity.pipelines.status_of_scan import ScanStatus, scan_status
    from modularity.pipelines.status_of_study import StudyStatus, status_of
    from modularity.pipelines.tight_pass import plan_tight_pass, run_tight_pass
    from modularity.pipelines.tight_pass_config import TightPassConfig
    from modularity.pipelines.verification import Verification, verify_run, verify_scan

__all__ = [
    "EmergentModularityConfig",
    "GraphModularityConfig",
    "MoeficationConfig",
    "OptModularityConfig",
    "PerturbationConfig",
    "Plan",
    "PruningConfig",
    "RestrictedRoutingConfig",
    "RunStatus",
    "ScanConfig",
    "ScanPlan",
    "ScanSettings",
    "ScanStatus",
    "SimilarityConfig",
    "StudyStatus",
    "TightPassConfig",
    "Verification",
    "plan_graph_modularity",
    "plan_job",
    "plan_moefication",
    "plan_perturbation",
    "plan_pruning",
    "plan_restricted_routing",
    "plan_scan",
    "plan_similarity",
    "plan_tight_pass",
    "run_graph_modularity",
    "run_job",
    "run_moefication",
    "run_perturbation",
    "run_pruning",
    "run_restricted_routing",
    "run_scan",
    "run_similarity",
    "run_status",
    "run_tight_pass",
    "scan_status",
    "status_of",
    "verify_run",
    "verify_scan",
]

_HOME = {
    "EmergentModularityConfig": "config",
    "MoeficationConfig": "moefication_config",
    "GraphModularityConfig": "graph_modularity_config",
    "OptModularityConfig": "opt_modularity_config",
    "PerturbationConfig": "perturbation_config",
    "Plan": "plan",
    "RestrictedRoutingConfig": "restricted_routing_config",
    "PruningConfig": "pruning_config",
    "RunStatus": "status",
    "ScanConfig": "scan_config",
    "ScanPlan": "scan",
    "ScanSettings": "scan_config",
    "ScanStatus": "status_of_scan",
    "StudyStatus": "status_of_study",
    "TightPassConfig": "tight_pass_config",
    "SimilarityConfig": "similarity_config",
    "Verification": "verification",
    "plan_graph_modularity": "graph_modularity",
    "plan_job": "emergent",
    "plan_moefication": "moefication",
    "plan_perturbation": "perturbation",
    "plan_restricted_routing": "restricted_routing",
    "plan_pruning": "pruning",
    "plan_scan": "scan",
    "run_graph_modularity": "graph_modularity",
    "plan_tight_pass": "tight_pass",
    "plan_similarity": "similarity",
    "run_job": "emergent",
    "run_moefication": "moefication",
    "run_perturbation": "perturbation",
    "run_restricted_routing": "restricted_routing",
    "run_pruning": "pruning",
    "run_scan": "scan",
    "run_similarity": "similarity",
    "run_status": "status",
    "run_tight_pass": "tight_pass",
    "scan_status": "status_of_scan",
    "status_of": "status_of_study",
    "verify_run": "verification",
    "verify_scan": "verification",
}


def __getattr__(name: str) -> Any:
    """Public name `name`, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
