"""The plan for machines elsewhere, by hand: does it fit, over how many GPUs, how many machines, how long."""

from dataclasses import replace

import pytest

from modularity.errors import AllowanceError
from modularity.pipelines.machine_plan import GPU_SHARE, check_machines, fit, gpus_needed, machines_text
from modularity.pipelines.machines import GpuProfile, MachineProfile
from modularity.pipelines.plan import Load, Loads

GIB = 2**30
GPU = GpuProfile(name="G", count=4, memory_gib=10, float32_tflops=10, half_tflops=100)
MACHINE = MachineProfile(name="four", cpus=32, memory_gib=64, store_gbit_s=8, gpu=GPU)
HOST = MachineProfile(name="host", cpus=8, memory_gib=16, store_gbit_s=8)
LOAD = Load(
    on_gpu=True,
    n_parallel=40,
    forward_flops=4e15,
    dtype="bfloat16",
    weight_bytes=4 * GIB,
    device_bytes=5 * GIB,
    worker_bytes=6 * GIB,
    store_bytes=10**9,
    analysis_seconds=3200.0,
    flops_per_cpu=1e10,
)
LOADS = Loads(LOAD, replace(LOAD, on_gpu=False, device_bytes=0, worker_bytes=10 * GIB))


def loads(weights: float, other: float, **changes: object) -> Loads:
    gpu = replace(LOAD, weight_bytes=int(weights * GIB), device_bytes=int((weights + other) * GIB))
    return replace(LOADS, gpu=gpu, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "other", "needed"),
    [(4, 1, 1), (8, 1, 1), (8, 1.1, 2), (16, 1, 3), (26, 1, 4), (1, 9, None), (0.2, 8.5, 1), (0.8, 8.5, 2)],
)
def test_gpus_needed_hold_the_weights_and_what_is_computed(weights: float, other: float, needed: int | None) -> None:
    assert gpus_needed(loads(weights, other).gpu, 10 * GIB) == needed


def test_one_worker_for_each_gpu_with_its_share_of_the_cpus() -> None:
    found = fit(LOADS, MACHINE)
    assert (found.workers, found.gpus_per_worker, found.cpus_per_worker) == (4, 1, 8)
    assert found.most_machines == 10
    assert found.problems == ()


def test_time_is_forward_or_writing_and_the_analysis() -> None:
    found = fit(LOADS, MACHINE)
    forward = 4e15 / 4 / (GPU_SHARE * 100e12)
    assert found.seconds(1) == pytest.approx(max(forward, 1.0) + 3200 / 32)
    assert found.seconds(10) == pytest.approx(forward / 10 + 10)
    assert found.bound_by() == "analysis"
    slow = fit(replace(LOADS, gpu=replace(LOAD, store_bytes=10**12)), MACHINE)
    assert slow.seconds(1) == pytest.approx(1000 + 100)
    assert slow.bound_by() == "writing"


def test_float32_goes_by_its_own_peak() -> None:
    found = fit(replace(LOADS, gpu=replace(LOAD, dtype="float32", analysis_seconds=0.0)), MACHINE)
    assert found.seconds(1) == pytest.approx(4e15 / 4 / (GPU_SHARE * 10e12))


def test_a_model_larger_than_a_gpu_is_spread() -> None:
    found = fit(loads(16, 1), MACHINE)
    assert (found.workers, found.gpus_per_worker) == (1, 3)
    text = found.text()
    assert "needs device_map over 3 GPUs: 18.3 GB, one has 10.7 GB" in text
    assert "--set model.device_map=auto --set runtime.gpus_per_worker=3" in text


def test_what_does_not_fit_is_told_with_numbers() -> None:
    found = fit(loads(60, 1), MACHINE)
    assert found.workers == 0
    assert "does not fit: a worker needs 65.5 GB of GPU memory" in found.text()
    assert "time" not in found.text()
    with pytest.raises(
        AllowanceError,
        match=r"(?s)fits no machine of four: a worker needs 65\.5 GB.*\n  lower tokens_per_batch, or name",
    ):
        check_machines(loads(60, 1), [MACHINE], "lower tokens_per_batch")
    check_machines(loads(60, 1), [MACHINE, HOST], "")  # one of them is enough


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus_per_worker": 8.0}, "runtime.gpus_per_worker=8, and the machine has 4"),
        ({"cpus_per_worker": 33.0}, "runtime.cpus_per_worker=33, and the machine has 32"),
        ({"gpus_per_worker": 0.25}, "puts 4 workers on a GPU, which need 21.5 GB of its 10.7 GB"),
    ],
)
def test_settings_that_do_not_fit_are_told(changes: dict[str, float], message: str) -> None:
    assert message in fit(replace(LOADS, **changes), MACHINE).text()  # type: ignore[arg-type]


def test_too_few_gpus_for_the_model_are_told() -> None:
    assert "runtime.gpus_per_worker=2, and the model needs 3" in fit(loads(16, 1, gpus_per_worker=2.0), MACHINE).text()


def test_fractions_share_a_gpu() -> None:
    found = fit(loads(2, 1, gpus_per_worker=0.5), MACHINE)
    assert (found.workers, found.cpus_per_worker) == (7, 4)  # host memory would be too small for the eighth
    assert "fits one GPU" in found.text()


def test_host_memory_limits_the_workers() -> None:
    small = MACHINE.replace(memory_gib=20)
    assert fit(LOADS, small).workers == 2
    assert "of host memory, 90% of" in fit(LOADS, MACHINE.replace(memory_gib=4)).text()


def test_without_a_gpu_one_worker_has_all_cpus() -> None:
    found = fit(LOADS, HOST)
    assert (found.workers, found.gpus_per_worker, found.cpus_per_worker) == (1, 0, 8)
    assert found.seconds(1) == pytest.approx(4e15 / 8e10 + 400)
    assert "model.device asks for a GPU" in fit(replace(LOADS, needs_gpu=True), HOST).text()
    assert fit(replace(LOADS, may_use_gpu=False), MACHINE).gpus_per_worker == 0


def test_runs_side_by_side_and_after_each_other() -> None:
    scan = LOADS.times(3).gpu
    assert (scan.n_parallel, scan.forward_flops, scan.store_bytes) == (3, 1.2e16, 3 * 10**9)
    both = LOADS.and_then(replace(LOADS, gpu=replace(LOAD, device_bytes=9 * GIB))).gpu
    assert (both.n_parallel, both.forward_flops, both.device_bytes) == (40, 8e15, 9 * GIB)


def test_the_text_names_machines_and_their_use() -> None:
    text = machines_text(LOADS, [MACHINE, HOST])
    assert "On four (32 CPUs, 68.7 GB, 4 × G of 10.7 GB)" in text
    assert "On host (8 CPUs, 17.2 GB)" in text
    assert "1 is enough; 40 items can run side by side, so more than 10 have no use" in text
    assert "--set runtime.gpus_per_worker=1 --set runtime.cpus_per_worker=8" in text
