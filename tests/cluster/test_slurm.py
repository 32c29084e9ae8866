"""The Slurm script: its exit code is that of the command, with stand-ins for srun and scontrol, and real Ray once."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent.parent
SCRIPT = REPO / "cluster" / "slurm" / "modularity.sbatch"

SRUN = """#!/usr/bin/env bash
echo "$*" >>"$TEST_LOG/srun"
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$*" >>"$TEST_LOG/scontrol"
if [ "$1 $2" = "show hostnames" ]; then printf '%s\\n' "${TEST_HEAD:-10.0.0.7}" node2; fi
"""
RAY = """#!/usr/bin/env bash
echo "$* mode=$RAY_AUTH_MODE wait=$RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT" >>"$TEST_LOG/ray"
stat -c %a "$RAY_AUTH_TOKEN_PATH" >"$TEST_LOG/token-mode"
wc -c <"$RAY_AUTH_TOKEN_PATH" >"$TEST_LOG/token-size"
while [ "$1" != "--" ]; do shift; done
shift
{behaviour}
"""
RUNS = '"$@"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("bin", "log", "submit"):
        (tmp_path / name).mkdir()
    write(tmp_path / "bin" / "srun", SRUN)
    write(tmp_path / "bin" / "scontrol", SCONTROL)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def environment(folder: Path, **changes: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    slurm = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_SUBMIT_DIR": str(folder / "submit")}
    return {
        **kept, **slurm, "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "TEST_LOG": str(folder / "log"), **changes,
    }  # fmt: skip


def submit(folder: Path, *command: str, ray: str | None = RUNS, **changes: str) -> subprocess.CompletedProcess[str]:
    if ray is not None:
        write(folder / "bin" / "ray", RAY.replace("{behaviour}", ray))
    return subprocess.run(
        ["bash", str(SCRIPT), *command], env=environment(folder, **changes), cwd=folder, capture_output=True, text=True,
        check=False, timeout=280,
    )  # fmt: skip


def test_starts_one_cluster_with_a_token_of_its_own(folder: Path) -> None:
    done = submit(folder, "echo", "two words", SLURM_JOB_NUM_NODES="2", SLURM_CPUS_ON_NODE="16", SLURM_GPUS_ON_NODE="4")
    assert done.returncode == 0, done.stderr
    assert "two words" in done.stdout
    started = (folder / "log" / "ray").read_text()
    assert started.startswith("symmetric-run --address 10.0.0.7:6379 --min-nodes 2 --num-cpus=16 --num-gpus=4 -- ")
    assert "mode=token wait=600" in started
    assert (folder / "log" / "token-mode").read_text().strip() == "600"
    assert int((folder / "log" / "token-size").read_text()) == 64
    step = (folder / "log" / "srun").read_text()
    assert all(flag in step for flag in ("--nodes=2", "--ntasks=2", "--cpus-per-task=16", "--cpu-bind=none"))
    assert list((folder / "submit").iterdir()) == []  # token and verdict are gone


def test_a_head_whose_name_means_loopback_is_reached_by_its_address(folder: Path) -> None:
    assert submit(folder, "true", TEST_HEAD="localhost").returncode == 0
    address = (folder / "log" / "ray").read_text().split()[2].partition(":")[0]
    shown = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    assert address == shown[0]


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_is_that_of_the_command(folder: Path, code: int) -> None:
    assert submit(folder, "bash", "-c", f"exit {code}").returncode == code


def test_ray_that_cannot_start_and_ends_with_zero_is_a_failure(folder: Path) -> None:
    done = submit(folder, "echo", "never", ray="echo 'Failed to start Ray' >&2; exit 0")
    assert done.returncode == 3
    assert "never" not in done.stdout
    assert "the command never ran or never ended; srun ended with 0" in done.stderr


def test_a_command_that_is_killed_with_its_node_is_a_failure(folder: Path) -> None:
    done = submit(folder, "sleep", "2", ray='"$@" & sleep 1; kill -9 $!; exit 0')
    assert done.returncode == 3


def test_a_finished_command_counts_even_if_another_node_complains(folder: Path) -> None:
    assert submit(folder, "true", ray='"$@"; exit 7').returncode == 0


@pytest.mark.parametrize(("requeue", "asked"), [("0", False), ("1", True)])
def test_sigterm_reaches_the_command_and_its_code_comes_back(folder: Path, requeue: str, asked: bool) -> None:
    write(folder / "bin" / "ray", RAY.replace("{behaviour}", RUNS))
    work = "trap 'echo handed back; exit 130' TERM; echo begun; for i in $(seq 300); do sleep 0.1; done"
    with subprocess.Popen(
        ["bash", str(SCRIPT), "bash", "-c", work], env=environment(folder, MODULARITY_REQUEUE=requeue), cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as job:  # fmt: skip
        assert job.stdout is not None
        assert job.stdout.readline() == "begun\n"
        job.send_signal(signal.SIGTERM)
        out, _ = job.communicate(timeout=60)
    assert out == "handed back\n"
    assert job.returncode == 130
    assert ("requeue 77" in (folder / "log" / "scontrol").read_text()) is asked


def test_a_wrong_call_is_refused(folder: Path) -> None:
    assert "no command given" in submit(folder).stderr
    done = submit(folder, "true", SLURM_JOB_ID="")
    assert (done.returncode, "submit this file with sbatch" in done.stderr) == (2, True)
    done = submit(folder, "true", MODULARITY_SCRATCH=str(folder / "absent"))
    assert (done.returncode, "set MODULARITY_SCRATCH" in done.stderr) == (3, True)


def test_two_jobs_of_one_folder_do_not_meet(folder: Path) -> None:
    (folder / "submit" / ".modularity-77-0").mkdir()
    assert submit(folder, "true").returncode == 3
    assert submit(folder, "true", SLURM_JOB_ID="78").returncode == 0
    assert submit(folder, "true", SLURM_RESTART_COUNT="1").returncode == 0


@pytest.fixture
def apart() -> Iterator[list[str]]:
    """Command that puts a process in a process namespace and a temporary folder of its own.

    `ray symmetric-run` ends with `ray stop`, which ends every Ray that it sees; sockets of Ray need a short path.
    """
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no process namespaces here")
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        yield [
            "env",
            f"RAY_TMPDIR={folder}",
            *command,
            "bash",
            "-c",
            "'\"$@\"; exit $?'",
            "first",
        ]  # bash reaps orphans


@pytest.mark.slow
def test_a_real_cluster_of_one_node_runs_the_command_and_passes_its_code(folder: Path, apart: list[str]) -> None:
    real = f'"{sys.executable}" "{Path(sys.executable).parent / "ray"}" "$@"'
    inside = f'[ "$1" = symmetric-run ] || exec {real}  # which starts and stops Ray by calling `ray`'
    write(folder / "bin" / "ray", f"#!/usr/bin/env bash\n{inside}\nexec {' '.join(apart)} {real}\n")
    code = (
        "import os, ray, sys; ray.init(address=os.environ['RAY_ADDRESS'], log_to_driver=False);"
        "print('nodes', len(ray.nodes()), ray.get(ray.remote(lambda: 42).remote())); ray.shutdown(); sys.exit(5)"
    )
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"  # the first `ray` is the one above
    port = str(20000 + os.getpid() % 10000)
    settings = {"MODULARITY_PORT": port, "SLURM_CPUS_ON_NODE": "2", "PATH": path, "TEST_HEAD": "localhost"}
    done = submit(folder, sys.executable, "-c", code, ray=None, **settings)
    if "timed out during startup" in done.stdout + done.stderr:  # 30 s, which nothing changes
        assert done.returncode == 3
        pytest.skip("Ray gave up starting on this busy machine, and the script said so")
    assert done.returncode == 5, f"{done.stdout}\n{done.stderr}"
    assert "nodes 1 42" in done.stdout
