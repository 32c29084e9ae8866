"""From the command to the first forward that is recorded: in process, on a Ray of its own, submitted to a Ray head.

    python benchmarks/first_forward.py                # three rounds, some five minutes
    python benchmarks/first_forward.py --rounds 1 --json

The job is the study of the last checkpoint of the series that ships with the package; its first item captures some
thousand tokens, well below a second. Each command is a process of its own, as a user types it, so that imports, the
start of Ray, that of the worker, and loading the model count. The head runs on this machine, with token
authentication, and is there already; submitted is with the code of the package, which the cluster then unpacks.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def job(runtime: str) -> dict[str, object]:
    """The study of the last checkpoint of the series."""
    from modularity.data import planted_functions, series_path

    return {
        "job": "emergent_modularity",
        "model": {"name": str(series_path() / "step00002000"), "dtype": "float32"},
        "functions": [each.as_json() for each in planted_functions() if each.name == "planted_relations"],
        "predictivity": {"n_permutations": 20},
        "analyses": ["predictivity"],
        "runtime": {"executor": runtime, "cpus_per_worker": 1},
    }


def free_ports(n: int) -> list[int]:
    """Ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def ray_head(token: str) -> Iterator[str]:
    """Dashboard of a Ray head of two CPUs on loopback, with a home, a token and temporary files of its own."""
    folder = Path(tempfile.mkdtemp(prefix="mray-"))  # short: paths of sockets may have 107 characters
    gcs, dashboard, agent, client = free_ports(4)
    environment = os.environ | {
        "HOME": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPO),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    options = {
        "node-ip-address": "127.0.0.1", "port": gcs, "dashboard-host": "127.0.0.1", "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent, "ray-client-server-port": client, "num-cpus": 2, "temp-dir": folder / "r",
        "object-store-memory": 100_000_000, "include-dashboard": "true",
    }  # fmt: skip
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    with (folder / "log").open("w") as log:
        head = subprocess.Popen(
            [*ray, *(f"--{name}={value}" for name, value in options.items())],
            env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{dashboard}", token, head, folder / "log")
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str, token: str, head: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until jobs can be submitted."""
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    for _ in range(600):
        assert head.poll() is None, log.read_text()
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(request):
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def seconds_to_first(command: list[str], out: Path) -> float:
    """From the start of a command to the first item that it records; then waits until the run is finished."""
    started = time.time()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        _, said = process.communicate()
    assert process.returncode == 0, said
    while not (out / "run.json").exists() or json.loads((out / "run.json").read_text())["state"] != "finished":
        time.sleep(0.2)
    return min(path.stat().st_mtime for path in (out / "commits").glob("capture-*.json")) - started


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, by way; the ways take turns."""
    token = secrets.token_hex(32)
    modularity = [sys.executable, "-m", "modularity"]
    found: dict[str, list[float]] = {"in process": [], "on a Ray of its own": [], "submitted": []}
    with tempfile.TemporaryDirectory() as name, ray_head(token) as address:
        folder = Path(name)
        for way, runtime in (("in process", "inprocess"), ("on a Ray of its own", "ray"), ("submitted", "ray")):
            (folder / f"{way}.json").write_text(json.dumps(job(runtime)))
        for number in range(rounds + 1):
            for way, seconds in found.items():
                out, file = folder / f"{way} {number}", str(folder / f"{way}.json")
                command = [*modularity, "run", file, "--out", str(out)]
                if way == "submitted":
                    command = [*modularity, "submit", file, "--out", str(out), "--address", address, "--token", token]
                took = seconds_to_first(command, out)
                if number:  # the first round fills caches
                    seconds.append(took)
    return found


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.rounds)
    if asked.json:
        print(json.dumps(found))
        return
    base = statistics.median(found["in process"])
    for way, seconds in found.items():
        middle = statistics.median(seconds)
        print(f"{way:22}{middle:6.1f} s [{min(seconds):.1f}, {max(seconds):.1f}]  {middle / base:.1f} times")


if __name__ == "__main__":
    main()
