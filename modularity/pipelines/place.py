"""Where a run is written and what lies there: everything that can be refused before a model is loaded."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeVar

from modularity.config import Config
from modularity.errors import IdentityError, InputError, ModelError, ModularityError, StoreError
from modularity.pipelines.config import EmergentModularityConfig
from modularity.store import Run, check_same_run, find_run, is_complete, open_space

IDENTIFYING_PACKAGES = ("modularity", "torch", "transformers")
RESULTS_REVISION = 5
"""Raised when the same config gives other numbers than before, so that no run mixes the two."""
NOT_IDENTIFYING = ("runtime", "allowance")
"""Parts of the config that may change between two starts of one run."""

Result = TypeVar("Result")


def recorded_config(config: Config) -> dict[str, Any]:
    """The part of a config that a run records, and that identifies it."""
    return {key: value for key, value in config.as_json().items() if key not in NOT_IDENTIFYING}


def software_identity() -> dict[str, Any]:
    """What results depend on besides model, data and config."""
    return {
        "software": {package: version(package) for package in IDENTIFYING_PACKAGES},
        "results_revision": RESULTS_REVISION,
    }


def place_problems(out: str) -> list[str]:
    """What keeps any run from being written to `out`; a run that lies there is none."""
    errors: list[ModularityError] = []
    attempt(lambda: run_at(out), errors)
    return problems_of(errors)


def run_at(out: str) -> Run | None:
    """The run at `out`, None where one may begin; InputError where other things lie or nothing can be written."""
    try:
        run = find_run(out)
    except StoreError as error:
        raise InputError(str(error)) from None
    if run is None or run.manifest.state != "finished":
        open_space(out).check_writable()
    return run


def check_recorded(run: Run, config: EmergentModularityConfig, data: dict[str, str] | None) -> bool:
    """Whether the run at --out is finished and of this config and data, so that nothing is left to do.

    A finished run of which commit records or metadata were deleted, as the messages about damage advise, is not.

    Parameters
    ----------
    data : fingerprints of the functions; None where they could not be read: the config alone is compared

    Raises
    ------
    IdentityError
        It was made from another config, data or software; the model's parameters are compared when it is loaded.
    """
    recorded = run.manifest
    known: dict[str, Any] = {} if data is None else {"data": data}
    if recorded.state != "finished":
        known |= software_identity()
    wanted = recorded.replace(job=config.job, config=recorded_config(config), identity={**recorded.identity, **known})
    check_same_run(recorded, wanted, run.uri)
    return data is not None and is_complete(run)


def attempt(action: Callable[[], Result], errors: list[ModularityError]) -> Result | None:
    """Outcome of an action; what it refuses is collected, so that all is told at once."""
    try:
        return action()
    except (InputError, IdentityError, ModelError) as error:
        errors.append(error)
        return None


def problems_of(errors: list[ModularityError]) -> list[str]:
    """One message for each thing that is wrong, however often it was found."""
    told = (error.problems if isinstance(error, InputError) else (str(error),) for error in errors)
    return list(dict.fromkeys(problem for problems in told for problem in problems))


def raise_all(errors: list[ModularityError]) -> None:
    """Raise a single error as it is, several as one InputError with every problem; nothing where there is none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise InputError(problems_of(errors))
