"""The study's control of its model: the same architecture with random weights, on the same examples (card A2).

Zhang et al. 2023 compare the best neuron of each layer with that of an untrained model, on the first 30 words only.
Here the control is a run of its own inside the folder of the run, with the same data, capture and permutations; its
curve becomes the table `random_init_predictivity`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modularity.errors import StoreError
from modularity.pipelines.config import ControlsConfig, EmergentModularityConfig
from modularity.pipelines.plan import Plan
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.store import Run, find_run, is_complete, open_run
from modularity.types import WorkItem

FOLDER = "random_weights"
TABLE = "random_init_predictivity"


def control_config(config: EmergentModularityConfig) -> EmergentModularityConfig:
    """The job of the control: nothing but predictivity, of random weights."""
    model = config.model.replace(weights="random")
    return config.replace(
        model=model.as_json(),
        analyses=("predictivity",),
        controls=ControlsConfig().as_json(),
        reductions=ReductionsConfig().as_json(),
        store_text=False,
    )


def control_uri(uri: str) -> str:
    """Where the control of a run lies."""
    return f"{uri.rstrip('/')}/{FOLDER}"


def is_control_complete(config: EmergentModularityConfig, run: Run) -> bool:
    """Whether the control of a run is complete, where it has one."""
    if not config.controls.random_weights:
        return True
    control = find_run(control_uri(run.uri))
    return control is not None and is_complete(control)


def with_control(plan: Plan, control: Plan) -> Plan:
    """The plan of a job together with its control, one after the other."""
    seconds = None if plan.seconds is None or control.seconds is None else plan.seconds + control.seconds
    note = (
        f"of this, the control with random weights: {control.n_rows:,} rows and {sum(control.items.values()):,} items"
    )
    return replace(
        plan,
        n_rows=plan.n_rows + control.n_rows,
        n_tokens=plan.n_tokens + control.n_tokens,
        store_bytes=plan.store_bytes + control.store_bytes,
        worker_bytes=max(plan.worker_bytes, control.worker_bytes),
        seconds=seconds,
        loads=None if plan.loads is None or control.loads is None else plan.loads.and_then(control.loads),
        notes=(*plan.notes, note),
    )


def record_control(run: Run, item: WorkItem) -> Mapping[str, Any]:
    """Copy the curves of the control into the run, and say which model it was.

    Raises
    ------
    StoreError
        The control is of other examples than the run.
    """
    control = open_run(control_uri(run.uri))
    if control.manifest.identity["data"] != run.manifest.identity["data"]:
        raise StoreError(f"{control.uri} was made from other examples than {run.uri}: remove it, and start again")
    model = control.manifest.identity["model"]
    info = {"control": control.uri, "seed": control.manifest.seeds["model"], "parameters": model["parameter_hash"]}
    run.commit(item, tables=[run.write_table(TABLE, item, control.table("function_curve"))], info=info)
    return info
