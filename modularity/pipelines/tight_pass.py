"""The tight-pass job from end to end: check, plan, measure every sub-block at every text, bring texts together.

A recorded item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one
as it is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from modularity.pipelines.emergent import Outcome
from modularity.pipelines.plan import Plan
from modularity.pipelines.steps import Step
from modularity.pipelines.study import Study, run_study
from modularity.pipelines.tight_pass_config import TightPassConfig
from modularity.pipelines.tight_pass_measure import CUTS_X
from modularity.pipelines.tight_pass_plan import make_plan
from modularity.pipelines.tight_pass_prepare import PreparedTightPass, prepare_tight_pass
from modularity.pipelines.tight_pass_worker import SPECTRA, TightPassWorkerFactory
from modularity.store import ResultArray, Run

_ITEM = {"control": 1, "sub_block": 1, "layer": 1, "text": 1}


def plan_tight_pass(config: TightPassConfig) -> Plan:
    """Size of a job; reads texts, tokenizer and model config, but no weights."""
    return make_plan(prepare_tight_pass(config))


def run_tight_pass(config: TightPassConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it; parameters and errors as those of `run_study`."""
    return run_study(STUDY, config, out, quiet=quiet)


def _identity(prepared: PreparedTightPass) -> dict[str, Any]:
    return {"data": prepared.data_identity()}


def _steps(prepared: PreparedTightPass, worker: TightPassWorkerFactory) -> list[Step]:
    return [
        Step("spectra", prepared.spectrum_items(), worker, uses_model=True),
        Step("bring together", prepared.last_items(), worker, uses_model=True),
    ]


def _seeds(prepared: PreparedTightPass) -> dict[str, int]:
    return {"random weights, shuffles, probes, resamples": prepared.config.seed}


def _notes(prepared: PreparedTightPass, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stack": prepared.stack,
        "layers": list(prepared.layers),
        "width": prepared.width,
        "texts": [
            {"id": each.text.id, "category": each.text.category, "n_tokens": len(each.ids_T), "n_cut": each.n_cut}
            for each in prepared.texts
        ],
    }


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


STUDY = Study(
    prepare=prepare_tight_pass,
    plan=make_plan,
    identity=_identity,
    worker=TightPassWorkerFactory,
    steps=_steps,
    seeds=_seeds,
    notes=_notes,
    allocate=_allocate,
)
"""The parts of the job."""
