"""Submitting a job to a Ray cluster elsewhere, with what is easily forgotten done for the user.

The id of a submission is `<job>-<digest>-<attempt>`, where the digest stands for config and place of the run. So the
same job is not submitted twice while it runs, and a later attempt goes on with the run of the earlier one.
"""

import glob
import json
import math
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import distribution, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modularity
from modularity.config import Config, Key
from modularity.errors import InputError
from modularity.launching import JOBS, OUT_MISSING, validated
from modularity.types import content_digest

if TYPE_CHECKING:
    from modularity.runtime.submission import Cluster, Submission

STOP_WAIT_S = 60
"""Time from SIGTERM to SIGKILL of a job that is stopped; Ray's default of 3 s cuts off what is being written."""
STOP_MARGIN_S = 30
"""By how much that time exceeds at least `runtime.grace_s`, so that the end of the job is recorded, too."""
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
PACKAGE = "modularity"
CONFIG_FILE = "job.json"
NOT_SENT = ("__pycache__", "*.pyc", "*.nbi", "*.nbc")
OUT, DIGEST = "out", "digest"
"""Keys of a submission's metadata."""
PLACES = ("source", "folder", "folders", "export")
"""Keys of configs below which the places of data and runs stand."""


@dataclass(frozen=True)
class Shipping:
    """What goes to the cluster besides the config."""

    code: bool = True
    """This package, as it is here; without it the cluster's own is run."""
    pip: bool = False
    """Have the cluster install the versions of the dependencies that are here."""
    environment: tuple[tuple[str, str], ...] = ()
    """Environment variables of the job and its workers."""

    def with_time_to_stop(self, grace_s: float) -> "Shipping":
        """Grant a job that is stopped more time than the grace of its running items, which is in seconds."""
        granted = str(max(STOP_WAIT_S, math.ceil(grace_s) + STOP_MARGIN_S))
        asked = dict(self.environment).get(STOP_WAIT, granted)
        if not asked.isdigit() or int(asked) <= grace_s:
            raise InputError(
                f"--env {STOP_WAIT}={asked}: expected whole seconds, and more than runtime.grace_s={grace_s:g}, after "
                "which the job still records how it ended; leave it away, or lower runtime.grace_s"
            )
        return replace(self, environment=((STOP_WAIT, granted), *self.environment))


def _grace_s(config: Any) -> float:
    """The longest grace that a job, or one of its parts, grants to running items."""
    parts = config.parts().values() if hasattr(config, "parts") else (config,)
    return max(part.runtime.grace_s for part in parts)


def submit_job(
    values: Mapping[str, Any],
    cluster: "Cluster",
    *,
    out: str | None,
    lines: Mapping[Key, str] | None = None,
    shared: bool = False,
    shipping: Shipping = Shipping(),
    before: Callable[[], None] = lambda: None,
) -> str:
    """Submit a job; returns the id of the submission.

    Parameters
    ----------
    values : config of the job; paths in it may be relative to the present folder
    cluster : where it is to run
    out : folder or object-store URI of the run
    lines : where each key of the config stands, for messages
    shared : every machine of the cluster has the local paths, too
    shipping : what else is sent
    before : called when nothing stands against it any more; what it raises keeps the job from being submitted

    Raises
    ------
    InputError
        The config is wrong, a place cannot be reached from the cluster, or the job runs there already.
    """
    grace_s = _grace_s(validated(values, lines))
    if out is None:
        raise InputError(OUT_MISSING)
    shipping = shipping.with_time_to_stop(grace_s)
    place, sent = _absolute(out), _with_absolute_places(values)
    reachable = shared or cluster.is_this_machine()
    problems = [] if reachable else _unreachable(place, values, cluster.address)
    if problems:
        raise InputError(problems)
    digest = job_digest(validated(sent), place)
    submission_id = _next_id(cluster, str(values.get("job", JOBS[0])), digest, place)
    before()
    with runtime_environment(sent, shipping) as environment:
        cluster.submit(
            f"exec python -m {PACKAGE} run {CONFIG_FILE} --out {shlex.quote(place)}",
            submission_id=submission_id,
            runtime_env=environment,
            metadata={OUT: place, DIGEST: digest},
        )
    return submission_id


def job_digest(config: Config, out: str) -> str:
    """12 hexadecimal digits that stand for what a job computes and where it writes it; machines do not count."""
    from modularity.pipelines.place import recorded_config

    return content_digest([recorded_config(config), out])[:12]


def find_submission(cluster: "Cluster", name: str) -> "Submission":
    """The job of this id, or the latest one that writes the run at this place; InputError where there is none."""
    place = _absolute(name)
    found = [each for each in cluster.submissions() if each.metadata.get(OUT) == place]
    running = [each for each in found if not each.has_ended]
    if found:
        return (running or found)[0]
    return cluster.submission(name)


@contextmanager
def runtime_environment(values: Mapping[str, Any], shipping: Shipping = Shipping()) -> Iterator[dict[str, Any]]:
    """Ray's runtime environment of a job; the files that it names are there for the time of a `with` block.

    The job starts in a folder with its config. The code lies elsewhere, under a path that stands for its content: so it
    is sent once, and what numba has compiled for one job serves the next.
    """
    with tempfile.TemporaryDirectory(prefix="modularity-submit-") as name:
        folder = Path(name, "job")
        folder.mkdir()
        (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        environment: dict[str, Any] = {
            "working_dir": str(folder),
            "env_vars": dict(shipping.environment),
        }
        if shipping.code:
            environment["py_modules"] = [str(path) for path in _code(Path(name, "code"))]
        if shipping.pip:
            environment["pip"] = pinned_requirements()
        yield environment


def _code(folder: Path) -> tuple[Path, Path]:
    """Copies of this package, and of the name and version that it is installed under."""
    package, installed = folder / PACKAGE, folder / f"{PACKAGE}-{version(PACKAGE)}.dist-info"
    shutil.copytree(Path(modularity.__file__).parent, package, ignore=shutil.ignore_patterns(*NOT_SENT))
    installed.mkdir()
    (installed / "METADATA").write_text(distribution(PACKAGE).read_text("METADATA") or "", encoding="utf-8")
    return package, installed


def pinned_requirements() -> list[str]:
    """Dependencies of the package in the versions that are here; Ray is left out, the cluster runs its own."""
    found = []
    for requirement in requires(PACKAGE) or []:
        needed, _, marker = requirement.partition(";")
        name = re.split(r"[^\w.-]", needed.strip(), maxsplit=1)[0]
        if "extra" not in marker and name != "ray":
            found.append(f"{name}=={version(name).partition('+')[0]}")  # without +cpu, which no index of PyPI has
    return found


def _absolute(place: str) -> str:
    """URI of a place; a local path as an absolute one."""
    from modularity.store import open_space

    return open_space(place).uri


def _unreachable(place: str, values: Mapping[str, Any], address: str) -> list[str]:
    """What the config reads or writes on this machine, which the cluster does not see."""
    from modularity.store import open_space

    remedy = f"which the cluster at {address} does not see; name an object store, or a folder that every machine has, "
    remedy += "and add --shared"
    problems = [f"--out {place!r} is on this machine, {remedy}"] if open_space(place).is_local else []
    return problems + [
        f"{'.'.join(map(str, key))}={text!r} is on this machine, {remedy}" for key, text in _local(values)
    ]


def _local(values: Mapping[str, Any]) -> list[tuple[Key, str]]:
    """Keys and texts of a config that name files or folders of this machine."""
    return [(key, text) for key, text in _texts(values, ()) if _is_place(key) and _is_here(key, text)]


def _texts(node: Any, key: Key) -> Iterator[tuple[Key, str]]:
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, Mapping):
        for name, child in node.items():
            yield from _texts(child, (*key, name))
    elif isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from _texts(child, (*key, index))


def _is_place(key: Key) -> bool:
    return any(part in PLACES for part in key) or key[-2:] == ("model", "name")


def _is_here(key: Key, text: str) -> bool:
    """Whether a path is written to, or is there; a hub id, a URI and a name of samples are not."""
    return "://" not in text and ("export" in key or Path(text).exists() or bool(glob.glob(text)))


def _with_absolute_places(values: Mapping[str, Any]) -> dict[str, Any]:
    """Config in which paths do not depend on the present folder."""
    here = dict(_local(values))

    def changed(node: Any, key: Key) -> Any:
        if isinstance(node, Mapping):
            return {name: changed(child, (*key, name)) for name, child in node.items()}
        if isinstance(node, list | tuple):
            return [changed(child, (*key, index)) for index, child in enumerate(node)]
        return str(Path(node).absolute()) if key in here else node

    return {name: changed(child, (name,)) for name, child in values.items()}


def _next_id(cluster: "Cluster", job: str, digest: str, place: str) -> str:
    """Id of the next attempt; InputError while another one runs, or another job writes to the same place."""
    submissions = cluster.submissions()
    for each in submissions:
        if not each.has_ended and each.metadata.get(OUT) == place:
            which = "this job" if each.metadata.get(DIGEST) == digest else "another job with the same --out"
            raise InputError(
                f"{which} is {each.status} as {each.id}: follow it by `modularity logs {each.id} --address "
                f"{cluster.address} --follow`, or stop it by `modularity stop {each.id} --address {cluster.address}`"
            )
    stem = f"{job.replace('_', '-')}-{digest}-"
    attempts = [each.id.removeprefix(stem) for each in submissions if each.id.startswith(stem)]
    return f"{stem}{1 + max((int(attempt) for attempt in attempts if attempt.isdigit()), default=0)}"
