"""Machine profiles: what a kind of machine has, as data, so that a job can be planned for machines that are elsewhere.

The profiles are the YAML files of `cluster/profiles`; the wheel carries a copy beside this module.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from modularity.config import Config, read_config_file, validate_config
from modularity.errors import InputError

ALL = "all"
_FOLDERS = (
    Path(__file__).parent / "profiles",
    Path(__file__).parent.parent.parent / "cluster" / "profiles",
)
"""In an installed package; in a checkout."""


class GpuProfile(Config):
    """The GPUs of a machine, all of one kind."""

    name: str = Field(min_length=1)
    """Product name."""
    count: int = Field(ge=1)
    """GPUs of one machine."""
    memory_gib: float = Field(gt=0)
    """Memory of one GPU in GiB, as the driver tells it."""
    float32_tflops: float = Field(gt=0)
    """Peak of float32 products without tensor cores, which is what PyTorch uses unless told otherwise."""
    half_tflops: float = Field(gt=0)
    """Peak of dense bfloat16 and float16 products."""


class MachineProfile(Config):
    """One kind of machine."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """What `--profile` calls it."""
    description: str = ""
    """In a few words."""
    cpus: int = Field(ge=1)
    """CPUs that jobs may use."""
    memory_gib: float = Field(gt=0)
    """Host memory in GiB."""
    store_gbit_s: float = Field(gt=0)
    """Bits per second, in units of 10^9, that the machine writes to the store: its network or its disk."""
    gpu: GpuProfile | None = None
    """None: no GPU."""

    @property
    def memory_bytes(self) -> int:
        """Host memory."""
        return int(self.memory_gib * 2**30)

    @property
    def gpu_bytes(self) -> int:
        """Memory of one GPU; 0 without one."""
        return 0 if self.gpu is None else int(self.gpu.memory_gib * 2**30)


def profile_files() -> dict[str, Path]:
    """Files of the profiles that come with the package, by name."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_profile(name: str) -> MachineProfile:
    """Profile of this name, or in this file.

    Raises
    ------
    InputError
        No such profile; the known ones are named. Or the file is not one.
    """
    known = profile_files()
    path = known.get(name, Path(name))
    if name not in known and not path.is_file():
        raise InputError(f"--profile {name!r} is not known: expected a file, {', '.join(known)}, or {ALL}")
    values, lines = read_config_file(path)
    return validate_config(MachineProfile, values, lines)


def read_profiles(names: Sequence[str]) -> tuple[MachineProfile, ...]:
    """Profiles of these names and files, each once; `all` stands for those that come with the package.

    Raises
    ------
    InputError
        With everything that is wrong.
    """
    wanted = [each for name in names for each in (profile_files() if name == ALL else [name])]
    found: list[MachineProfile] = []
    problems: list[str] = []
    for name in dict.fromkeys(wanted):
        try:
            found.append(read_profile(name))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return tuple(found)
