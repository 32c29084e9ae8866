"""The finished run that a further job starts from: what it lacks, its data read again, its model with the LM head.

Perturbation and restricted routing both change the model of a run of `emergent_modularity`, and measure its tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from modularity.capture import Capturer
from modularity.errors import IdentityError, InputError, ModelError, StoreError
from modularity.models import HeadModel, MatmulMode, ModelConfig, apply_matmul_mode, load_head_model
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.perturbation_tasks import TaskName
from modularity.pipelines.prepare import UNLIMITED_MODEL_TOKENS, PreparedJob, prepare
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.pipelines.verification import RELATIVE_TOLERANCE, row_difference
from modularity.store import Run, open_run
from modularity.types import Site, StackName

N_CHECKED_ROWS = 2
Result = TypeVar("Result")


def finished_run(uri: str) -> Run:
    """The run at `uri`; InputError where there is none, or another than a finished one of `emergent_modularity`."""
    try:
        run = open_run(uri)
    except StoreError as error:
        raise InputError(f"source: {error}") from None
    manifest = run.manifest
    if manifest.job != "emergent_modularity" or manifest.state != "finished":
        raise InputError(
            f"source: {run.uri} is a {manifest.state} run of {manifest.job}; expected a finished one of "
            "emergent_modularity"
        )
    return run


def analysed_ffn(run: Run, default_stack: StackName = "encoder") -> Site:
    """The site `ffn.neurons` that a finished run has analysed; InputError where it analysed other neurons."""
    site = Site.parse(str(run.manifest.notes["analysed"]), default_stack)
    if site.name != "ffn.neurons":
        raise InputError(f"source: {run.uri} has analysed {site}; give a run with analysed=ffn.neurons")
    return site


def ranking_problems(run: Run) -> list[str]:
    """A problem where a finished run has not ranked neurons."""
    if "predictivity" in run.manifest.config["analyses"]:
        return []
    return [f"source: {run.uri} ranks no neurons; run it with analyses=[predictivity, experts]"]


def subfunctions_of(run: Run) -> list[tuple[str, str]]:
    """(function, sub-function) pairs that a run has ranked neurons for."""
    return [
        (function["name"], name)
        for function in run.manifest.config["functions"]
        for name in run.results(function["name"])["subfunction"].values.tolist()
    ]


def source_job(
    model: ModelConfig | None, source: Run, declared: EmergentModularityConfig, names: Sequence[TaskName]
) -> PreparedJob:
    """The job of the finished run, its data read again and compared with what the run has recorded.

    Parameters
    ----------
    model : how the checkpoint is loaded; None = as in the run
    source, declared : the finished run and its config
    names : tasks; functions without one are left out

    Raises
    ------
    InputError
        The data or the tokenizer have changed.
    """
    wanted = {each.function for each in names}
    functions = [function.as_json() for function in declared.functions if function.name in wanted]
    changes = {"functions": functions, "model": (model or declared.model).as_json()}
    job = prepare(declared.replace(**changes, reductions=ReductionsConfig().as_json()))  # corpora are not read again
    recorded = source.manifest.identity["data"]
    problems = [
        f"the data or tokenizer of function {name!r} are not those of the run: fingerprint {found}, recorded is "
        f"{recorded.get(name)}; give the run's data, or make the run anew"
        for name, found in job.data_identity().items()
        if recorded.get(name) != found
    ]
    if problems:
        raise InputError(problems)
    return job


def longest_text(job: PreparedJob) -> int:
    """Tokens from which on texts of a task lose their end."""
    limits = (job.config.capture.max_tokens, job.description.max_positions)
    return min((limit for limit in limits if limit is not None), default=UNLIMITED_MODEL_TOKENS)


def load_source_model(job: PreparedJob, source: Run) -> HeadModel:
    """The model of a finished run with its LM head, and the arithmetic of the run."""
    model = load_head_model(job.config.model)
    mode = source.manifest.notes.get("matmul")
    if mode is not None:
        apply_matmul_mode(MatmulMode(**{**mode, "shape": tuple(mode["shape"])}), device=model.base.device)
    return model


def identify_source_model(model: HeadModel, job: PreparedJob, source: Run) -> dict[str, Any]:
    """Who the model is; IdentityError where its activations are not those of the finished run."""
    capture, base = job.config.capture, model.base
    capturer = Capturer(base, tuple(job.shapes), layers=capture.layers, expert_variant=capture.expert_variant)
    dtypes = capture.dtype, base.identity.dtype, source.manifest.identity["model"]["dtype"]
    allowed = max(RELATIVE_TOLERANCE[dtype] for dtype in dtypes)
    name, table = next(iter(job.tables.items()))
    for row in range(min(N_CHECKED_ROWS, table.n_rows)):
        difference, place = row_difference(source, job, capturer, name, row, base.pad_id)
        if not difference <= allowed:
            raise IdentityError(
                f"model {base.identity.name!r} is not the one of {source.uri}: row {row} of function {name!r} differs "
                f"at {place} by {difference:.1e} of its largest value, allowed is {allowed:.0e}; give the checkpoint "
                "of the run"
            )
    return {"identity": asdict(base.identity), "device": str(base.device), "head": model.kind}


def collect(action: Callable[[], Result], problems: list[str]) -> Result | None:
    """Outcome of an action; what it refuses is added to `problems`, so that all is told at once."""
    try:
        return action()
    except InputError as error:
        problems.extend(error.problems)
    except ModelError as error:
        problems.append(str(error))
    return None
