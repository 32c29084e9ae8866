"""Jobs on a Ray cluster elsewhere, by its Jobs API: submit, look at, follow and stop them.

The end of a log is no verdict: a log also ends where the connection does. So the status of the job is asked for, again
and again, until it has one that does not change any more.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from modularity.errors import InputError, WorkError

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
POLL_S = 1.0
LOST_S = 60.0
"""A cluster that does not answer for so long is given up."""
N_TRIES = 15
"""A cluster does not know its nodes in the first seconds."""
N_NAMED = 5
TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers of Ray that tell of every upload and connection."""


@dataclass(frozen=True)
class Submission:
    """A submitted job as the cluster knows it."""

    id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str
    metadata: Mapping[str, str]
    exit_code: int | None
    """Of the job's command; None as long as it runs, and where a signal ended it."""
    started: str | None
    """UTC, ISO 8601."""

    @property
    def has_ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ENDED

    def text(self) -> str:
        """One line for the terminal."""
        parts = [f"{self.id}: {self.status}"]
        if self.started is not None:
            parts.append(f"started {self.started}")
        if self.exit_code:
            parts.append(f"exit code {self.exit_code}")
        return ", ".join(parts)


class Cluster:
    """The Jobs API of one Ray cluster.

    Parameters
    ----------
    address : of the cluster's dashboard, such as `http://host:8265`
    token : of the cluster; None: as Ray finds it itself, with RAY_AUTH_MODE=token in RAY_AUTH_TOKEN or
        ~/.ray/auth_token

    Raises
    ------
    InputError
        The address is none, nothing answers there, or the token is missing or wrong.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        scheme, separator, _ = address.partition("://")
        if separator and scheme not in ("http", "https"):
            raise InputError(
                f"--address {address!r}: expected that of the cluster's dashboard, such as http://host:8265"
            )
        self.address = address if separator else f"http://{address}"
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        headers = {"Authorization": f"Bearer {token}"} if token else None
        with self._speaking():
            self._client: Any = JobSubmissionClient(self.address, headers=headers)

    def submit(
        self, entrypoint: str, *, submission_id: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        """Submit a job; InputError where the id is taken."""
        with self._speaking(submission_id):
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env=dict(runtime_env),
                metadata=dict(metadata),
            )

    def submission(self, submission_id: str) -> Submission:
        """One job; InputError where there is none of this id, with some that are there."""
        with self._speaking(submission_id):
            return _submission(self._client.get_job_info(submission_id))

    def submissions(self) -> list[Submission]:
        """All submitted jobs, the latest first."""
        with self._speaking():
            found = [_submission(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda each: each.started or "", reverse=True)

    def logs(self, submission_id: str) -> str:
        """What a job has printed so far."""
        with self._speaking(submission_id):
            return str(self._client.get_job_logs(submission_id))

    def stop(self, submission_id: str) -> None:
        """Ask a job to end; it gets SIGTERM and then the time that its runtime environment grants."""
        with self._speaking(submission_id):
            self._client.stop_job(submission_id)

    def follow(self, submission_id: str, write: Callable[[str], object]) -> Submission:
        """Hand over what a job prints until it has ended; returns how.

        Raises
        ------
        InputError
            There is no such job.
        WorkError
            The cluster was lost on the way.
        """
        self.submission(submission_id)
        n_written = 0

        def note(text: str) -> None:
            nonlocal n_written
            n_written += len(text)
            write(text)

        def tail() -> None:
            with suppress(RuntimeError, OSError, aiohttp.ClientError):  # of the connection: the status decides
                asyncio.run(self._tail(submission_id, note, n_written))

        def look() -> Submission:
            # In a thread of its own: that of a notebook has a running event loop.
            thread = threading.Thread(target=tail, daemon=True)
            thread.start()
            thread.join()
            return self.submission(submission_id)

        return self._until_ended(submission_id, look)

    def wait(self, submission_id: str) -> Submission:
        """Wait until a job has ended; returns how. Errors as of `follow`."""
        return self._until_ended(submission_id, lambda: self.submission(submission_id))

    def is_this_machine(self) -> bool:
        """Whether every node of the cluster is this machine, so that a path here is a path there."""
        for _ in range(N_TRIES):
            with self._speaking():
                nodes = self._client._do_request("GET", "/nodes?view=summary").json()["data"]["summary"]
            raylets = [node.get("raylet", {}) for node in nodes]
            names = {each.get("nodeManagerHostname") for each in raylets if each.get("state") == "ALIVE"}
            if names:
                return names == {socket.gethostname()}
            time.sleep(POLL_S)
        return False

    def _until_ended(self, submission_id: str, look: Callable[[], Submission]) -> Submission:
        reached = time.monotonic()
        while True:
            try:
                found = look()
            except InputError as error:
                if time.monotonic() - reached > LOST_S:
                    raise WorkError(
                        f"{error}\n  {submission_id} may be lost with its cluster; work items that it recorded stay, "
                        "and submitting it again goes on"
                    ) from None
            else:
                reached = time.monotonic()
                if found.has_ended:
                    return found
            time.sleep(POLL_S)

    async def _tail(self, submission_id: str, write: Callable[[str], object], n_known: int) -> None:
        """Write what the log has beyond the characters that are known; a log is always sent from its beginning."""
        n_seen = 0
        async for text in self._client.tail_job_logs(submission_id):
            new = text[max(0, n_known - n_seen) :]
            n_seen += len(text)
            if new:
                write(new)

    @contextmanager
    def _speaking(self, submission_id: str | None = None) -> Iterator[None]:
        """Turn what can go wrong in a request into one message with the remedy."""
        try:
            yield
        except AuthenticationError as error:
            wrong = "the token is wrong" if "failed" in str(error) else "it asks for a token"
            raise InputError(
                f"the cluster at {self.address} refuses: {wrong}; give the one it was started with by --token, or by "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            ) from None
        except RuntimeError as error:
            if "status code 404" in str(error) and submission_id is not None:
                raise InputError(self._unknown(submission_id)) from None
            if "already exists" in str(error):
                raise InputError(
                    f"{submission_id} has been submitted already, perhaps just now; see `modularity status "
                    f"{submission_id} --address {self.address}`"
                ) from None
            raise InputError(f"the cluster at {self.address} refuses: {error}") from None
        except (OSError, KeyError) as error:  # those of requests are OSErrors
            raise InputError(
                f"no Ray cluster answers at {self.address} ({type(error).__name__}); give --address of its dashboard, "
                "such as http://host:8265 (a tunnel to it: `ray dashboard`, `kubectl port-forward`)"
            ) from None

    def _unknown(self, submission_id: str) -> str:
        known = [each.id for each in self.submissions()]
        more = f" and {len(known) - N_NAMED} more" if len(known) > N_NAMED else ""
        return (
            f"no job {submission_id!r} was submitted to {self.address}; there are "
            f"{', '.join(known[:N_NAMED]) or 'none'}{more}"
        )


def _submission(details: Any) -> Submission:
    started = details.start_time
    return Submission(
        id=str(details.submission_id),
        status=str(getattr(details.status, "value", details.status)),
        message=details.message or "",
        metadata=dict(details.metadata or {}),
        exit_code=details.driver_exit_code,
        started=None if not started else datetime.fromtimestamp(started / 1000, UTC).isoformat(timespec="seconds"),
    )
