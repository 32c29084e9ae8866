"""The commands that speak with a Ray cluster elsewhere: submit, status, logs, stop.

What a job has done is read from its run; the cluster is asked only what it alone knows, whether the job runs there.
"""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from modularity.cli_options import (
    TERMINATED,
    AddressOption,
    JobFile,
    OutOption,
    PlanOption,
    ProfileOption,
    SetOption,
    TokenOption,
    read_job,
    readable_errors,
)
from modularity.errors import InputError, ModularityError
from modularity.launching import launch

if TYPE_CHECKING:
    from modularity.runtime.submission import Cluster, Submission

Name = Annotated[str, typer.Argument(help="Id of a submitted job, or the folder or URI of its run.", metavar="ID|RUN")]
EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        help="Environment variable of the job, shown on the dashboard: no secrets. May be repeated.",
        metavar="NAME=VALUE",
    ),
]


def submit(
    file: JobFile,
    address: AddressOption = None,
    out: OutOption = None,
    token: TokenOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print what the job prints, until it has ended.")] = False,
    shared: Annotated[
        bool, typer.Option("--shared", help="Every machine of the cluster has local paths, too.")
    ] = False,
    code: Annotated[
        bool, typer.Option("--code/--no-code", help="Send this package, or run the one that is installed there.")
    ] = True,
    pip: Annotated[
        bool, typer.Option("--pip", help="Have the cluster install the versions of dependencies that are here.")
    ] = False,
    environment: EnvOption = None,
    plan: PlanOption = False,
    profile: ProfileOption = None,
    overrides: SetOption = None,
) -> None:
    """Submit a job to a Ray cluster; a run that was stopped or failed goes on.

    The plan is made first, and nothing is submitted if it is refused. With --follow the exit code is that of the job.

    Example: modularity submit job.yaml --address http://127.0.0.1:8265 --out s3://bucket/run --follow
    """
    with readable_errors():
        from modularity.submitting import Shipping, submit_job

        values, lines = read_job(file, overrides)
        shipping = Shipping(code, pip, tuple(_variable(text) for text in environment or ()))
        if plan:
            launch(values, out=out, plan=True, lines=lines, profiles=profile)
            return
        cluster = _cluster(address, token)
        submission_id = submit_job(
            values,
            cluster,
            out=out,
            lines=lines,
            shared=shared,
            shipping=shipping,
            before=lambda: launch(values, out=out, plan=True, lines=lines, profiles=profile),
        )
        print(f"submitted: {submission_id}")
        if follow:
            _follow(cluster, submission_id)
        else:
            print(f"look at it: modularity status {submission_id} --address {cluster.address}", file=sys.stderr)


def status(
    name: Annotated[
        str, typer.Argument(help="Folder or URI of a run; with --address also the id of a job.", metavar="RUN")
    ],
    address: Annotated[
        str | None,
        typer.Option("--address", help="Also ask the Ray cluster there, e.g. http://127.0.0.1:8265.", metavar="URL"),
    ] = None,
    token: TokenOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how far a run is: state, items done by kind, pace, time left, tables and arrays, from its store alone.

    With --address it also says what the cluster knows of the job.

    Example: modularity status runs/first
    """
    with readable_errors():
        if address is None:
            from modularity.pipelines import status_of

            run = status_of(name)
            print(json.dumps(run.as_json(), indent=2) if as_json else run.text())
        else:
            _tell_submission(_cluster(address, token), name, as_json=as_json)


def _tell_submission(cluster: "Cluster", name: str, *, as_json: bool) -> None:
    """Print what the cluster knows of a job, and how far its run is where that can be read from here."""
    from modularity.pipelines import status_of
    from modularity.submitting import OUT, find_submission

    found = find_submission(cluster, name)
    place = found.metadata.get(OUT)
    try:
        run = None if place is None else status_of(place)
    except ModularityError as error:
        run = None
        print(f"the run of {found.id} cannot be read from here: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps({"submission": asdict(found), "run": None if run is None else run.as_json()}, indent=2))
        return
    print(f"{'cluster':<10}{found.text()}")
    if found.status == "FAILED":
        print(f"{'message':<10}{(found.message.strip() or 'none').splitlines()[0]}")
    if run is not None:
        print(run.text())


def logs(
    name: Name,
    address: AddressOption = None,
    token: TokenOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")] = False,
) -> None:
    """Print what a submitted job has printed. With --follow the exit code is that of the job.

    Example: modularity logs emergent-modularity-0123456789ab-1 --address http://127.0.0.1:8265 --follow
    """
    with readable_errors():
        from modularity.submitting import find_submission

        cluster = _cluster(address, token)
        found = find_submission(cluster, name)
        if follow:
            _follow(cluster, found.id)
        else:
            sys.stdout.write(cluster.logs(found.id))


def stop(name: Name, address: AddressOption = None, token: TokenOption = None) -> None:
    """Stop a submitted job. What it recorded stays, and submitting it again goes on.

    Example: modularity stop s3://bucket/run --address http://127.0.0.1:8265
    """
    with readable_errors():
        from modularity.submitting import OUT, find_submission

        cluster = _cluster(address, token)
        found = find_submission(cluster, name)
        if not found.has_ended:
            cluster.stop(found.id)
            found = cluster.wait(found.id)
        print(found.text())
        _tell_run(found.metadata.get(OUT))


def _cluster(address: str | None, token: str | None) -> "Cluster":
    if address is None:
        raise InputError(
            "--address is missing: name the dashboard of the cluster, such as http://127.0.0.1:8265, here or in "
            "RAY_API_SERVER_ADDRESS"
        )
    from modularity.runtime.submission import Cluster

    return Cluster(address, token)


def _follow(cluster: "Cluster", submission_id: str) -> None:
    """Print the log of a job until it has ended, and end as it did."""

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        ended = cluster.follow(submission_id, write)
    except KeyboardInterrupt as interrupt:
        raise type(interrupt)(
            f"following {submission_id}: the job itself goes on; `modularity stop {submission_id} --address "
            f"{cluster.address}` stops it"
        ) from None
    print(ended.text(), file=sys.stderr)
    code = exit_code(ended)
    if code:
        raise typer.Exit(code)


def exit_code(ended: "Submission") -> int:
    """What the verdict on a job is as an exit code: that of its command where it failed, 143 where it was stopped."""
    if ended.status == "SUCCEEDED":
        return 0
    return TERMINATED if ended.status == "STOPPED" else ended.exit_code or 1


def _tell_run(place: str | None) -> None:
    """State of the run of a job, as far as it can be read from here."""
    if place is None:
        return
    from modularity.pipelines import status_of

    try:
        found = status_of(place)
    except ModularityError as error:
        print(f"its run cannot be read from here: {error}", file=sys.stderr)
    else:
        print(f"run {place}: {found.state}")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--env {text!r}: expected NAME=VALUE, e.g. --env AWS_REGION=eu-central-1")
    return name, value
