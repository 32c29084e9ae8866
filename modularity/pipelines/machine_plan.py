"""How a job would run on machines of a profile: does the model fit, how many machines have work, how long it takes.

Arithmetic on the plan of the job and on the numbers of the profile; nothing is measured on such a machine. So times are
a range, wider than those of `plan`, and memory keeps a reserve.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modularity.errors import AllowanceError
from modularity.pipelines.machines import MachineProfile
from modularity.pipelines.plan import Load, Loads
from modularity.pretraining import PretrainConfig, PretrainPlan
from modularity.runtime.memory import resident_bytes
from modularity.runtime.progress import format_bytes, format_duration

USABLE = 0.9
"""Share of the memory of a GPU or a machine that is planned with; the rest is for driver, allocator and Ray."""
CUDA_HOST_BYTES = 2_000_000_000
"""Host memory of a process that has opened a GPU, about: context and libraries."""
GPU_SHARE = 0.35
"""Share of a GPU's peak that forward passes of some thousand tokens reach, about; assumed, not measured here."""
UNEVEN = 1.2
"""Layers are spread whole over GPUs, so one of them gets more than its share."""
TIME_RANGE = (0.5, 3.0)
"""Estimates for other machines lie within these multiples of the time that jobs take."""


@dataclass(frozen=True)
class Fit:
    """A job on machines of one profile."""

    machine: MachineProfile
    load: Load
    gpus_per_worker: float
    """GPUs of each worker that runs the model; 0 on machines without, and where the job says so."""
    cpus_per_worker: float
    """CPUs of each such worker."""
    workers: int
    """Such workers of one machine."""
    problems: tuple[str, ...] = ()
    """Why it does not fit; empty if it does."""
    has_settings: bool = True
    """Whether the job has a `runtime` section."""

    @property
    def most_machines(self) -> int:
        """Machines beyond which some have none of these items."""
        return max(1, math.ceil(self.load.n_parallel / self.workers)) if self.workers else 0

    def seconds(self, n_machines: int) -> float | None:
        """Estimated time on `n_machines`; None if it is not estimated for other machines."""
        parts = self._parts(n_machines)
        return None if parts is None else max(parts["forward"], parts["writing"]) + parts["analysis"]

    def bound_by(self) -> str:
        """What takes longest on one machine."""
        parts = self._parts(1) or {}
        return max(parts, key=lambda name: parts[name]) if parts else ""

    def _parts(self, n_machines: int) -> dict[str, float] | None:
        load = self.load
        if load.flops_per_cpu is None or not self.workers:
            return None
        rounds = math.ceil(load.n_parallel / (self.workers * n_machines))
        return {
            "forward": rounds * load.forward_flops / max(load.n_parallel, 1) / self._worker_flops(load.flops_per_cpu),
            "writing": 8 * load.store_bytes / (1e9 * self.machine.store_gbit_s * n_machines),
            "analysis": load.analysis_seconds / (self.machine.cpus * n_machines),
        }

    def _worker_flops(self, flops_per_cpu: float) -> float:
        gpu = self.machine.gpu
        if gpu is None or not self.gpus_per_worker:
            return flops_per_cpu * self.cpus_per_worker
        peak = gpu.float32_tflops if self.load.dtype in ("float32", "float64") else gpu.half_tflops
        return GPU_SHARE * 1e12 * peak * min(1.0, self.gpus_per_worker)  # with device_map one GPU computes at a time

    def text(self) -> str:
        """The fit as lines of text."""
        machine = self.machine
        gpu = machine.gpu
        has = f"{machine.cpus} CPUs, {format_bytes(machine.memory_bytes)}"
        if gpu is not None:
            has += f", {gpu.count} × {gpu.name} of {format_bytes(machine.gpu_bytes)}"
        rows = [("model", self._model_text())]
        if not self.problems:
            rows += [
                ("workers", self._workers_text()),
                ("machines", self._machines_text()),
                ("time", self._time_text()),
                ("settings", self._settings_text()),
            ]
        return "\n".join([f"On {machine.name} ({has})", *(f"  {name:<11}{value}" for name, value in rows)])

    def _model_text(self) -> str:
        if self.problems:
            return "does not fit: " + "; ".join(self.problems)
        if not self.gpus_per_worker:
            return f"fits the host: {format_bytes(self.load.worker_bytes)} of {format_bytes(self.machine.memory_bytes)}"
        needed, memory = format_bytes(self.load.device_bytes), format_bytes(self.machine.gpu_bytes)
        if self.gpus_per_worker <= 1:
            return f"fits one GPU: {needed} of {memory}"
        return f"needs device_map over {self.gpus_per_worker:g} GPUs: {needed}, one has {memory}"

    def _workers_text(self) -> str:
        gpus = (
            f"{self.gpus_per_worker:g} {'GPU' if self.gpus_per_worker <= 1 else 'GPUs'}, "
            if self.gpus_per_worker
            else ""
        )
        memory = format_bytes(_host_bytes(self.load))
        return f"{self.workers} on each machine, with {gpus}{self.cpus_per_worker:g} CPUs and {memory} of memory each"

    def _machines_text(self) -> str:
        n = self.load.n_parallel
        what = "there is 1 item" if n == 1 else f"{n:,} items can run side by side"
        return f"1 is enough; {what}, so more than {self.most_machines:,} have no use"

    def _time_text(self) -> str:
        if self.load.flops_per_cpu is None:
            return "not estimated for other machines: the plan above is measured here"
        counts = sorted({1, self.most_machines})
        times = [
            f"{_range_text(self.seconds(n) or 0.0)} on {n:,} {'machine' if n == 1 else 'machines'}" for n in counts
        ]
        return f"{', '.join(times)}; most of it is {self.bound_by()}"

    def _settings_text(self) -> str:
        if not self.has_settings:
            return "none"
        settings = [f"runtime.cpus_per_worker={self.cpus_per_worker:g}"]
        if self.gpus_per_worker:
            settings.insert(0, f"runtime.gpus_per_worker={self.gpus_per_worker:g}")
        if self.gpus_per_worker > 1:
            settings.insert(0, "model.device_map=auto")
        return " ".join(f"--set {setting}" for setting in settings)


def _range_text(seconds: float) -> str:
    low, high = (format_duration(factor * seconds) for factor in TIME_RANGE)
    return f"{low} to {high}" if low != high else f"about {low}"


def _host_bytes(load: Load) -> int:
    return load.worker_bytes + (CUDA_HOST_BYTES if load.on_gpu else 0)


def gpus_needed(load: Load, gpu_bytes: int) -> int | None:
    """Fewest GPUs of `gpu_bytes` that hold the model of a worker; None where no number does.

    Weights are spread, what is computed with them is on each GPU in turn, so it has to fit all of them.
    """
    usable = USABLE * gpu_bytes
    others = load.device_bytes - load.weight_bytes
    if load.device_bytes <= usable:
        return 1
    if others >= usable:
        return None
    return max(2, math.ceil(UNEVEN * load.weight_bytes / (usable - others)))


def fit(loads: Loads, machine: MachineProfile) -> Fit:
    """How the job runs on machines of a profile."""
    gpu = machine.gpu
    if gpu is None or not loads.may_use_gpu:
        return _fit_host(loads, machine)
    load, problems = loads.gpu, []
    needed = gpus_needed(load, machine.gpu_bytes)
    asked = loads.gpus_per_worker or needed or 1
    if needed is None or needed > gpu.count:
        problems.append(
            f"a worker needs {format_bytes(load.device_bytes)} of GPU memory, of which device_map can spread the "
            f"{format_bytes(load.weight_bytes)} of weights; there are {gpu.count} × {format_bytes(machine.gpu_bytes)}"
        )
    elif asked > gpu.count:
        problems.append(f"runtime.gpus_per_worker={asked:g}, and the machine has {gpu.count}")
    elif max(asked, 1) < needed:
        problems.append(f"runtime.gpus_per_worker={asked:g}, and the model needs {needed}")
    elif asked < 1 and load.device_bytes / asked > USABLE * machine.gpu_bytes:
        problems.append(
            f"runtime.gpus_per_worker={asked:g} puts {int(1 / asked)} workers on a GPU, which need "
            f"{format_bytes(load.device_bytes / asked)} of its {format_bytes(machine.gpu_bytes)}"
        )
    return _placed(loads, load, machine, gpus=asked, most=int(gpu.count / asked), problems=problems)


def _fit_host(loads: Loads, machine: MachineProfile) -> Fit:
    """On the CPUs of a machine: one worker with all of them unless the job says otherwise."""
    problems = ["model.device asks for a GPU, and the machine has none"] if loads.needs_gpu else []
    cpus = loads.cpus_per_worker or float(machine.cpus)
    return _placed(loads, loads.host, machine, gpus=0.0, most=int(machine.cpus / cpus), problems=problems)


def _placed(
    loads: Loads, load: Load, machine: MachineProfile, *, gpus: float, most: int, problems: Sequence[str]
) -> Fit:
    """Workers side by side as CPUs and host memory allow."""
    problems = list(problems)
    by_memory = int(USABLE * machine.memory_bytes // _host_bytes(load))
    cpus = loads.cpus_per_worker or float(max(1, machine.cpus // max(1, most)))
    workers = min(most, by_memory, int(machine.cpus / cpus))
    if loads.workers is not None:
        workers = min(workers, loads.workers)
    if not by_memory:
        problems.append(
            f"a worker needs {format_bytes(_host_bytes(load))} of host memory, {USABLE:.0%} of "
            f"{format_bytes(machine.memory_bytes)} can be used"
        )
    if cpus > machine.cpus:
        problems.append(f"runtime.cpus_per_worker={cpus:g}, and the machine has {machine.cpus}")
    return Fit(machine, load, gpus, cpus, 0 if problems else workers, tuple(problems), loads.has_settings)


def training_loads(config: PretrainConfig, plan: PretrainPlan) -> Loads:
    """Loads of a training of a small model: one process, whose memory is that of the process that planned it."""
    memory = resident_bytes()  # the plan has built the model and taken steps

    def load(on_gpu: bool) -> Load:
        return Load(
            on_gpu=on_gpu,
            n_parallel=1,
            forward_flops=0.0,
            dtype="float32",
            weight_bytes=4 * plan.n_parameters,
            device_bytes=memory if on_gpu else 0,
            worker_bytes=memory,
            store_bytes=plan.checkpoint_bytes * len(plan.checkpoints),
            analysis_seconds=0.0,
            flops_per_cpu=None,
        )

    may = config.device != "cpu"
    needs = config.device.startswith("cuda")
    return Loads(load(True), load(False), may_use_gpu=may, needs_gpu=needs, has_settings=False)


def machines_text(loads: Loads, machines: Sequence[MachineProfile]) -> str:
    """The job on each kind of machine, as lines of text."""
    return "\n".join(fit(loads, machine).text() for machine in machines)


def check_machines(loads: Loads, machines: Sequence[MachineProfile], remedy: str) -> None:
    """Raise AllowanceError, with what lowers the need of memory, if the job fits none of the machines."""
    fits = [fit(loads, machine) for machine in machines]
    if fits and all(each.problems for each in fits):
        raise AllowanceError(
            "the job fits no machine of "
            + "\n  ".join(f"{each.machine.name}: {'; '.join(each.problems)}" for each in fits)
            + f"\n  {remedy}, or name larger machines with --profile"
        )
