"""The tight-pass job from end to end: check, plan, measure every sub-block at every text, bring texts together.

A recorded item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one
as it is.
"""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from modularity.errors import ModularityError
from modularity.pipelines.emergent import PACKAGES, Outcome
from modularity.pipelines.place import NOT_IDENTIFYING, attempt, raise_all, run_at, software_identity
from modularity.pipelines.plan import Plan
from modularity.pipelines.steps import Step, run_alone, run_steps
from modularity.pipelines.tight_pass_config import TightPassConfig
from modularity.pipelines.tight_pass_measure import CUTS_X
from modularity.pipelines.tight_pass_plan import check_plan, make_plan
from modularity.pipelines.tight_pass_prepare import PreparedTightPass, prepare_tight_pass
from modularity.pipelines.tight_pass_worker import SPECTRA, TightPassWorkerFactory
from modularity.runtime import Executor, open_executor, sigterm_interrupts
from modularity.store import Manifest, ResultArray, Run, check_same_run, create_run
from modularity.types import WorkItem, content_digest

_ITEM = {"control": 1, "sub_block": 1, "layer": 1, "text": 1}


def plan_tight_pass(config: TightPassConfig) -> Plan:
    """Size of a job; reads texts, tokenizer and model config, but no weights."""
    return make_plan(prepare_tight_pass(config))


def run_tight_pass(config: TightPassConfig, out: str, *, quiet: bool = False) -> Outcome:
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
        Another run lies at `out`.
    WorkError
        Items failed; the others are recorded.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; finished items are recorded, and the same call goes on.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    errors: list[ModularityError] = []
    prepared = attempt(lambda: prepare_tight_pass(config), errors)
    recorded = attempt(lambda: run_at(out), errors)
    if recorded is not None and prepared is not None:
        attempt(lambda: _check_recorded(recorded, prepared), errors)
    raise_all(errors)
    assert prepared is not None
    if recorded is not None and recorded.manifest.state == "finished":
        say(f"{recorded.uri} is finished and was made with the same config and data: nothing to do")
        return Outcome(recorded, was_finished=True)
    plan = make_plan(prepared)
    say(plan.text())
    check_plan(plan, config.allowance)
    with open_executor(config.runtime) as executor, sigterm_interrupts():
        run = _work(prepared, plan, recorded, executor, out, quiet=quiet)
    say(f"run: {run.uri}")
    return Outcome(run, was_finished=False)


def _recorded_config(config: TightPassConfig) -> dict[str, Any]:
    return {key: value for key, value in config.as_json().items() if key not in NOT_IDENTIFYING}


def _check_recorded(recorded: Run, prepared: PreparedTightPass) -> None:
    """Refuse another job at --out; software counts as long as the run is not finished."""
    manifest = recorded.manifest
    known: dict[str, Any] = {"data": prepared.data_identity()}
    known |= software_identity() if manifest.state != "finished" else {}
    wanted = manifest.replace(
        job=prepared.config.job, config=_recorded_config(prepared.config), identity={**manifest.identity, **known}
    )
    check_same_run(manifest, wanted, recorded.uri)


def _work(
    prepared: PreparedTightPass, plan: Plan, recorded: Run | None, executor: Executor, out: str, *, quiet: bool
) -> Run:
    config = prepared.config
    n_threads = executor.n_threads
    if recorded is not None and config.runtime.cpus_per_worker is None:
        n_threads = int(recorded.manifest.identity["threads"])
    identity: dict[str, Any] = {"data": prepared.data_identity()}
    digest = content_digest([_recorded_config(config), identity])
    worker = TightPassWorkerFactory(uri=out, digest=digest, n_threads=n_threads, prepared=prepared)
    found = run_alone(executor, WorkItem.of("identify", source=config.model.name), worker)
    run = create_run(out, _manifest(prepared, plan, found, identity | {"threads": n_threads}))
    steps = [
        Step("spectra", prepared.spectrum_items(), worker, uses_model=True),
        Step("bring together", prepared.last_items(), worker, uses_model=True),
    ]
    run_steps(run, executor, steps, allocate=lambda: _allocate(run, prepared), quiet=quiet)
    return run


def _manifest(
    prepared: PreparedTightPass, plan: Plan, found: Mapping[str, Any], identity: Mapping[str, Any]
) -> Manifest:
    config = prepared.config
    return Manifest.of(
        config.job,
        config=_recorded_config(config),
        identity={"model": dict(found["identity"]), **software_identity(), **identity},
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        seeds={"random weights, shuffles, probes, resamples": config.seed},
        items_planned=dict(plan.items),
        notes={
            "device": found["device"],
            "stack": prepared.stack,
            "layers": list(prepared.layers),
            "width": prepared.width,
            "texts": [
                {"id": each.text.id, "category": each.text.category, "n_tokens": len(each.ids_T), "n_cut": each.n_cut}
                for each in prepared.texts
            ],
            "plan": list(plan.notes),
        },
    )


def _allocate(run: Run, prepared: PreparedTightPass) -> None:
    """Create every array; repeating it changes nothing."""
    config = prepared.config
    dims = tuple(_ITEM)

    def array(last: str, meaning: str) -> ResultArray:
        return ResultArray((*dims, last), "float64", _ITEM, {"long_name": meaning})

    run.create_result(
        SPECTRA,
        sizes={
            "control": len(config.conditions()),
            "sub_block": len(config.kinds),
            "layer": len(prepared.layers),
            "text": len(prepared.texts),
            "cut": len(CUTS_X),
            "point": config.n_points,
            "index": config.matrix_free.n_leading,
        },
        arrays={
            "count_above": array("cut", "singular values above this share of the largest"),
            "count_low": array("cut", "lower bound of it; itself where it is exact"),
            "count_high": array("cut", "upper bound of it; itself where it is exact"),
            "sorted_value": array("point", "singular value at this share of all, the largest first"),
            "leading_value": array("index", "the largest singular values"),
            "leading_residual": array("index", "a singular value lies within this distance; 0 where it is exact"),
        },
        coordinates={
            "control": (("control",), np.array(config.conditions())),
            "sub_block": (("sub_block",), np.array(config.kinds)),
            "layer": (("layer",), np.asarray(prepared.layers, dtype=np.int64)),
            "text": (("text",), np.array([each.text.id for each in prepared.texts])),
            "cut": (("cut",), CUTS_X),
            "point": (("point",), (np.arange(config.n_points) + 0.5) / config.n_points),
        },
    )
