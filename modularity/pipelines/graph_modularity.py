"""The graph study from end to end: check, plan, partition the graphs and draws of their nulls, bring together.

It needs a checkpoint, or a finished run of `emergent_modularity`, which it only reads, and writes a run of its own. A
recorded item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one as
it is.
"""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from modularity.errors import ModularityError
from modularity.pipelines.emergent import PACKAGES, Outcome
from modularity.pipelines.graph_modularity_config import GraphModularityConfig
from modularity.pipelines.graph_modularity_plan import GraphPlan, make_graph_plan
from modularity.pipelines.graph_modularity_prepare import PreparedGraphs, prepare_graphs
from modularity.pipelines.graph_modularity_worker import GROUPS, GraphWorkerFactory
from modularity.pipelines.place import NOT_IDENTIFYING, attempt, raise_all, run_at, software_identity
from modularity.pipelines.steps import Step, run_alone, run_steps
from modularity.runtime import Executor, open_executor, sigterm_interrupts
from modularity.store import Manifest, ResultArray, Run, check_same_run, create_run
from modularity.types import WorkItem, content_digest


def plan_graph_modularity(config: GraphModularityConfig) -> GraphPlan:
    """Size of a job; reads the finished run and the model config, but no weights."""
    return make_graph_plan(prepare_graphs(config))


def run_graph_modularity(config: GraphModularityConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it.

    Parameters
    ----------
    config : the job
    out : folder or object-store URI of the new run
    quiet : no progress and no messages

    Raises
    ------
    InputError, AllowanceError
        Before any work, with everything that is wrong.
    IdentityError
        Another run lies at `out`, or the model is not that of the finished run.
    WorkError
        Items failed; the others are recorded.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; finished items are recorded, and the same call goes on.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    errors: list[ModularityError] = []
    prepared = attempt(lambda: prepare_graphs(config), errors)
    recorded = attempt(lambda: run_at(out), errors)
    if recorded is not None and prepared is not None:
        attempt(lambda: _check_recorded(recorded, prepared), errors)
    raise_all(errors)
    assert prepared is not None
    if recorded is not None and recorded.manifest.state == "finished":
        say(f"{recorded.uri} is finished and was made with the same config and data: nothing to do")
        return Outcome(recorded, was_finished=True)
    plan = make_graph_plan(prepared)
    say(plan.text())
    plan.check(config.allowance)
    with open_executor(config.runtime) as executor, sigterm_interrupts():
        run = _work(prepared, plan, recorded, executor, out, quiet=quiet)
    say(f"run: {run.uri}")
    return Outcome(run, was_finished=False)


def _recorded_config(config: GraphModularityConfig) -> dict[str, Any]:
    return {key: value for key, value in config.as_json().items() if key not in NOT_IDENTIFYING}


def _check_recorded(recorded: Run, prepared: PreparedGraphs) -> None:
    """Refuse another job at --out; software counts as long as the run is not finished."""
    manifest = recorded.manifest
    known = _source_identity(prepared) | (software_identity() if manifest.state != "finished" else {})
    wanted = manifest.replace(
        job=prepared.config.job, config=_recorded_config(prepared.config), identity={**manifest.identity, **known}
    )
    check_same_run(manifest, wanted, recorded.uri)


def _source_identity(prepared: PreparedGraphs) -> dict[str, Any]:
    source = prepared.source
    if source is None:
        return {}
    return {"source": {"config_digest": source.manifest.config_digest, "content_hash": source.content_hash()}}


def _work(
    prepared: PreparedGraphs, plan: GraphPlan, recorded: Run | None, executor: Executor, out: str, *, quiet: bool
) -> Run:
    config = prepared.config
    n_threads = executor.n_threads
    if recorded is not None and config.runtime.cpus_per_worker is None:
        n_threads = int(recorded.manifest.identity["threads"])
    identity = _source_identity(prepared)
    digest = content_digest([_recorded_config(config), identity])
    worker = GraphWorkerFactory(uri=out, digest=digest, n_threads=n_threads, prepared=prepared)
    found = run_alone(executor, WorkItem.of("identify", model=prepared.model.name), worker)
    run = create_run(out, _manifest(prepared, plan, found, identity | {"threads": n_threads}))
    steps = [
        Step("observed graphs", prepared.observe_items(), worker),
        Step("draws of nulls", prepared.null_items(), worker),
        Step("bring together", prepared.last_items(), worker),
    ]
    run_steps(run, executor, steps, allocate=lambda: _allocate(run, prepared), quiet=quiet)
    return run


def _manifest(
    prepared: PreparedGraphs, plan: GraphPlan, found: Mapping[str, Any], identity: Mapping[str, Any]
) -> Manifest:
    config = prepared.config
    packages = (*PACKAGES, *(("graspologic-native",) if "leiden" in config.methods else ()))
    return Manifest.of(
        config.job,
        config=_recorded_config(config),
        identity={"model": dict(found["identity"]), "data": {}, **software_identity(), **identity},
        versions={"python": platform.python_version()} | {package: version(package) for package in packages},
        seeds={"partitions, draws and permutations": config.seed},
        items_planned=dict(plan.items),
        notes={
            "analysed": str(prepared.shape.site),
            "layers": list(prepared.shape.layers),
            "n_neurons": list(prepared.shape.widths),
            "graphs": {graph: list(nulls) for graph, nulls in prepared.nulls},
            "plan": list(plan.notes),
        },
    )


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
