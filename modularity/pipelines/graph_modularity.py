"""The graph study from end to end: check, plan, partition the graphs and draws of their nulls, bring together.

It needs a checkpoint, or a finished run of `emergent_modularity`, which it only reads, and writes a run of its own. A
recorded item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one as
it is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from modularity.pipelines.emergent import Outcome
from modularity.pipelines.follow_up import source_identity
from modularity.pipelines.graph_modularity_config import GraphModularityConfig
from modularity.pipelines.graph_modularity_plan import GraphPlan, make_graph_plan
from modularity.pipelines.graph_modularity_prepare import PreparedGraphs, prepare_graphs
from modularity.pipelines.graph_modularity_worker import GROUPS, GraphWorkerFactory
from modularity.pipelines.steps import Step
from modularity.pipelines.study import Study, run_study
from modularity.store import ResultArray, Run


def plan_graph_modularity(config: GraphModularityConfig) -> GraphPlan:
    """Size of a job; reads the finished run and the model config, but no weights."""
    return make_graph_plan(prepare_graphs(config))


def run_graph_modularity(config: GraphModularityConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it; parameters and errors as those of `run_study`."""
    return run_study(STUDY, config, out, quiet=quiet)


def _identity(prepared: PreparedGraphs) -> dict[str, Any]:
    return {"data": {}} | ({} if prepared.source is None else source_identity(prepared.source))


def _steps(prepared: PreparedGraphs, worker: GraphWorkerFactory) -> list[Step]:
    return [
        Step("observed graphs", prepared.observe_items(), worker),
        Step("draws of nulls", prepared.null_items(), worker),
        Step("bring together", prepared.last_items(), worker),
    ]


def _seeds(prepared: PreparedGraphs) -> dict[str, int]:
    return {"partitions, draws and permutations": prepared.config.seed}


def _notes(prepared: PreparedGraphs, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "analysed": str(prepared.shape.site),
        "layers": list(prepared.shape.layers),
        "n_neurons": list(prepared.shape.widths),
        "graphs": {graph: list(nulls) for graph, nulls in prepared.nulls},
    }


def _packages(prepared: PreparedGraphs) -> tuple[str, ...]:
    return ("graspologic-native",) if "leiden" in prepared.config.methods else ()


def _allocate(run: Run, prepared: PreparedGraphs) -> None:
    """Create the array of groups; repeating it changes nothing."""
    layers = prepared.shape.layers
    n_nodes = max(prepared.n_nodes(graph, layer) for graph in prepared.graphs for layer in layers)
    methods = prepared.config.methods
    meaning = "group of a node, -1 = none: neurons first, then the channels that are read, then those that are written"
    run.create_result(
        GROUPS,
        sizes={"graph": len(prepared.graphs), "algorithm": len(methods), "layer": len(layers), "node": n_nodes},
        arrays={
            "group": ResultArray(
                ("graph", "algorithm", "layer", "node"), "int32", {"graph": 1, "layer": 1}, {"long_name": meaning}
            )
        },
        coordinates={
            "graph": (("graph",), np.asarray(prepared.graphs, dtype=str)),
            "algorithm": (("algorithm",), np.asarray(methods, dtype=str)),
            "layer": (("layer",), np.asarray(layers, dtype=np.int64)),
            "width": (("layer",), np.asarray(prepared.shape.widths, dtype=np.int64)),
        },
        attributes={"site": str(prepared.shape.site)},
    )


STUDY = Study(
    prepare=prepare_graphs,
    plan=make_graph_plan,
    identity=_identity,
    worker=GraphWorkerFactory,
    steps=_steps,
    seeds=_seeds,
    notes=_notes,
    allocate=_allocate,
    packages=_packages,
)
"""The parts of the job."""
