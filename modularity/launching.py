"""Starting a job from its values: validate them, print the plan or run it, write the report.

Imports of what takes seconds (torch, transformers) wait until the values are known to be valid.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from modularity.config import Key, validate_config
from modularity.errors import AllowanceError, InputError, WorkError

if TYPE_CHECKING:
    from modularity.pipelines.plan import Loads
    from modularity.store.space import Space

STUDIES = {
    "graph_modularity": "GraphModularityConfig",
    "moefication": "MoeficationConfig",
    "perturbation": "PerturbationConfig",
    "pruning": "PruningConfig",
    "restricted_routing": "RestrictedRoutingConfig",
    "similarity": "SimilarityConfig",
    "tight_pass": "TightPassConfig",
}
"""Jobs that are run by `pipelines.run_<job>`, and the name of their config in `pipelines`."""
JOINT = "opt_modularity"
CONFIGS = {
    "emergent_modularity": "EmergentModularityConfig",
    **STUDIES,
    JOINT: "OptModularityConfig",
    "scan_checkpoints": "ScanConfig",
}
"""Every job, and the name of its config in `pipelines`."""
JOBS = tuple(CONFIGS)
OUT_MISSING = "--out is missing: name the folder or object-store URI for the run, e.g. --out runs/first"


def launch(
    values: Mapping[str, Any],
    *,
    out: str | None,
    plan: bool,
    reuse: str | None = None,
    lines: Mapping[Key, str] | None = None,
    series: Mapping[str, Any] | None = None,
    profiles: Sequence[str] | None = None,
) -> None:
    """Validate a job's values, then print its plan or run it.

    Parameters
    ----------
    values : the config of the job
    out : where the run is written
    plan : print its size, and stop
    reuse : run whose activations are taken over
    lines : where each key of the config stands, for messages
    series : config of a checkpoint scan that a single run brings along: written to `series` inside the run, after it,
        and shown as a section of its report
    profiles : kinds of machines that the plan is made for
    """
    check_profiles(profiles, plan=plan)
    job = known_job(values)
    with _told_where_it_goes_on(None if plan else out):
        if job == "scan_checkpoints":
            _launch_scan(values, out=out, plan=plan, reuse=reuse, lines=lines, profiles=profiles)
        elif job == JOINT:
            _launch_joint(values, out=out, plan=plan, reuse=reuse, lines=lines, profiles=profiles)
        elif job in STUDIES:
            _launch_study(values, out=out, plan=plan, reuse=reuse, lines=lines, profiles=profiles)
        else:
            _launch_single(values, out=out, plan=plan, reuse=reuse, lines=lines, series=series, profiles=profiles)


def _launch_single(
    values: Mapping[str, Any],
    *,
    out: str | None,
    plan: bool,
    reuse: str | None,
    lines: Mapping[Key, str] | None,
    series: Mapping[str, Any] | None,
    profiles: Sequence[str] | None,
) -> None:
    """Validate the values of one run, then print its plan or run it, and the scan that it brings along."""
    try:
        config = validated(values, lines)
    except InputError as error:
        raise InputError([*error.problems, *_out_problems(out, plan)]) from None
    if out is None and not plan:
        raise InputError(_out_problems(out, plan))
    from modularity.pipelines import plan_job, run_job  # seconds of torch and transformers, which a bad config skips
    from modularity.report import REPORT, write_report

    if plan or out is None:
        made = plan_job(config, reuse=reuse)
        print(made.text())
        made.check(config.allowance)
        tell_machines(made.loads, profiles, made.remedies.memory)
        if series is not None:
            _launch_scan(series, out=None if out is None else _series_of(out), plan=True, reuse=None, lines=None)
        return
    outcome = run_job(config, out, reuse=reuse)
    if series is None:
        if not (outcome.was_finished and outcome.run.space.exists(REPORT)):
            _tell_written(write_report(out))
        return
    scan = _series_of(out)
    is_compared = _is_compared(scan)
    if outcome.was_finished and is_compared and _shows_training(outcome.run.space):
        return
    if not is_compared:
        _tell_written(write_report(out))  # to look at while the checkpoints run
        _launch_scan(series, out=scan, plan=False, reuse=None, lines=None)
    _tell_written(write_report(out, scan=scan))


def known_job(values: Mapping[str, Any]) -> str:
    """Name of the job that a config is for; InputError if there is no such job."""
    job = values.get("job", JOBS[0])
    if job not in JOBS:
        raise InputError(f"job={job!r} is not known: expected one of {', '.join(JOBS)}")
    return str(job)


def validated(values: Mapping[str, Any], lines: Mapping[Key, str] | None = None) -> Any:
    """The config of a job from its values; InputError with everything that is wrong."""
    from modularity import pipelines

    return validate_config(getattr(pipelines, CONFIGS[known_job(values)]), values, lines)


def _shows_training(space: "Space") -> bool:
    """Whether the page of a run has the section about a scan."""
    from modularity.report import REPORT

    return space.exists(REPORT) and b'<section id="training">' in space.read(REPORT)


def _series_of(out: str) -> str:
    """Place of the scan that a run brings along."""
    from modularity.store import SERIES, open_space

    return open_space(out).join(SERIES).uri


def _is_compared(scan: str) -> bool:
    """Whether a scan is complete to its last step, the page."""
    from modularity.pipelines import is_scan_complete
    from modularity.report import REPORT
    from modularity.store import is_scan, open_space

    return is_scan(scan) and open_space(scan).exists(REPORT) and is_scan_complete(scan)


def _launch_scan(
    values: Mapping[str, Any],
    *,
    out: str | None,
    plan: bool,
    reuse: str | None,
    lines: Mapping[Key, str] | None,
    profiles: Sequence[str] | None = None,
) -> None:
    """Validate a scan's values, then print its plan or run it; its report is written even where checkpoints failed."""
    config = validated(values, lines)
    if reuse is not None:
        raise InputError(f"--reuse {reuse} is for single runs: a scan goes on with what lies at its own --out")
    if out is None and not plan:
        raise InputError(OUT_MISSING)
    from modularity.pipelines import plan_scan, run_scan
    from modularity.report import write_report
    from modularity.store import is_scan, read_scan

    if plan or out is None:
        made = plan_scan(config, out)
        print(made.text())
        made.whole.check(config.allowance)
        tell_machines(made.whole.loads, profiles, made.whole.remedies.memory)
        return
    try:
        run_scan(config, out)
    except WorkError:
        if is_scan(out) and read_scan(out).summary is not None:
            _tell_written(write_report(out))
        raise
    if read_scan(out).summary is not None:
        _tell_written(write_report(out))


def check_profiles(profiles: Sequence[str] | None, *, plan: bool) -> None:
    """Raise InputError for `--profile` without `--plan`, and for a profile that is not known."""
    if not profiles:
        return
    from modularity.pipelines.machines import read_profiles

    if not plan:
        raise InputError(f"--profile {' '.join(profiles)} is for a plan: add --plan")
    read_profiles(profiles)


def tell_machines(loads: "Loads | None", profiles: Sequence[str] | None, remedy: str) -> None:
    """Print how a planned job runs on machines of the profiles.

    Parameters
    ----------
    loads : what the job asks for
    profiles : names and files; nothing is printed without any
    remedy : what lowers its need of memory

    Raises
    ------
    AllowanceError
        It fits none of them.
    """
    if not profiles or loads is None:
        return
    from modularity.pipelines.machine_plan import check_machines, machines_text
    from modularity.pipelines.machines import read_profiles

    machines = read_profiles(profiles)
    print(machines_text(loads, machines))
    check_machines(loads, machines, remedy)


def _tell_written(paths: Sequence[str]) -> None:
    for path in paths:
        print(f"report: {path}", file=sys.stderr)


def _launch_study(
    values: Mapping[str, Any],
    *,
    out: str | None,
    plan: bool,
    reuse: str | None,
    lines: Mapping[Key, str] | None,
    profiles: Sequence[str] | None = None,
) -> None:
    """Validate the values of a study, then print its plan or run it."""
    from modularity import pipelines

    name = str(values["job"])
    problems = _out_problems(out, plan)
    if reuse is not None:
        problems.append(f"--reuse {reuse} is for runs of emergent_modularity, not of {name}")
    try:
        config = validated(values, lines)
    except InputError as error:
        raise InputError([*error.problems, *problems]) from None
    if problems:
        raise InputError(problems)
    if plan or out is None:
        made = getattr(pipelines, f"plan_{name}")(config)
        print(made.text())
        made.check(config.allowance)
        tell_machines(made.loads, profiles, made.remedies.memory)
        return
    _run_study(name, config, out)


def _run_study(name: str, config: Any, out: str) -> None:
    from modularity import pipelines
    from modularity.report import REPORT, write_report

    outcome = getattr(pipelines, f"run_{name}")(config, out)
    if not (outcome.was_finished and outcome.run.space.exists(REPORT)):
        _tell_written(write_report(out))


def _launch_joint(
    values: Mapping[str, Any],
    *,
    out: str | None,
    plan: bool,
    reuse: str | None,
    lines: Mapping[Key, str] | None,
    profiles: Sequence[str] | None = None,
) -> None:
    """Validate the parts of a joint study, print their plans, and run one after the other, each in its own folder."""
    from modularity import pipelines

    problems = [] if reuse is None else [f"--reuse {reuse} is for runs of emergent_modularity, not of {JOINT}"]
    problems += [OUT_MISSING] if out is None and not plan else []
    try:
        config = validated(values, lines)
    except InputError as error:
        raise InputError([*error.problems, *problems]) from None
    plans = {}
    for name, part in config.parts().items():
        problems += [] if out is None else _out_problems(_part_of(out, name), plan)
        try:
            plans[name] = getattr(pipelines, f"plan_{name}")(part)
        except InputError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    for name, made in plans.items():
        print(f"{name}: {made.text()}", file=sys.stdout if plan else sys.stderr)
    _check_parts(plans, lambda name: plans[name].check(config.parts()[name].allowance))
    if plan or out is None:
        _check_parts(plans, lambda name: _tell_machines_of_part(name, plans[name], profiles))
        return
    from modularity.report import write_joint_report
    from modularity.store import StudyRecord, write_study

    write_study(out, StudyRecord(job=JOINT, parts=tuple(plans), config=config.as_json()))
    for name, part in config.parts().items():
        print(f"part {name}", file=sys.stderr)
        _run_study(name, part, _part_of(out, name))
    _tell_written(write_joint_report(out, list(plans)))


def _check_parts(names: Iterable[str], check: Callable[[str], None]) -> None:
    """Check every part; one AllowanceError with all that is refused."""
    exceeded = []
    for name in names:
        try:
            check(name)
        except AllowanceError as error:
            exceeded.append(f"{name}: {error}")
    if exceeded:
        raise AllowanceError("\n".join(exceeded))


def _tell_machines_of_part(name: str, made: Any, profiles: Sequence[str] | None) -> None:
    if profiles:
        print(f"{name}:")
        tell_machines(made.loads, profiles, made.remedies.memory)


def _part_of(out: str, name: str) -> str:
    """Place of one part of a joint study."""
    from modularity.store import open_space

    return open_space(out).join(name).uri


@contextmanager
def _told_where_it_goes_on(out: str | None) -> Iterator[None]:
    """Add to an interruption what it leaves behind; nothing is added where nothing is written."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if out is None:
            raise
        cause = " ".join(map(str, interrupt.args)) or "by Ctrl-C"
        raise type(interrupt)(
            f"{cause}: finished work items stay recorded in {out}; the same command goes on"
        ) from None


def _out_problems(out: str | None, plan: bool) -> list[str]:
    """What is wrong with `--out`, whatever the config; a plan does not look at it."""
    if plan:
        return []
    if out is None:
        return [OUT_MISSING]
    from modularity.pipelines.place import place_problems

    return place_problems(out)
