"""Machine profiles: those that ship are valid and named, files of one's own are read, wrong ones are refused."""

from pathlib import Path

import pytest

from modularity.errors import InputError
from modularity.pipelines.machines import profile_files, read_profile, read_profiles

NAMES = ["a10g", "l4", "a100-40", "a100-80", "h100", "h200", "laptop"]


def test_the_profiles_that_ship_are_named_as_their_files() -> None:
    assert set(profile_files()) == set(NAMES)
    for name in NAMES:
        profile = read_profile(name)
        assert profile.name == name
        assert profile.description
        if profile.gpu is not None:
            assert profile.gpu.half_tflops > profile.gpu.float32_tflops
            assert profile.cpus >= profile.gpu.count


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "desk.yaml"
    path.write_text("name: desk\ncpus: 4\nmemory_gib: 8\nstore_gbit_s: 1\n")
    assert read_profile(str(path)).memory_bytes == 8 * 2**30
    assert [profile.name for profile in read_profiles([str(path), "l4", "l4"])] == ["desk", "l4"]
    assert len(read_profiles(["all"])) == len(NAMES)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "desk.yaml"
    path.write_text("name: desk\ncpus: 0\nmemory_gib: 8\nstore_gbit_s: 1\ngpus: 2\n")
    with pytest.raises(InputError) as caught:
        read_profiles(["a11g", str(path)])
    said = str(caught.value)
    assert "--profile 'a11g' is not known: expected a file, a10g, a100-40" in said or "a100-40" in said
    assert "desk.yaml:2: cpus=0" in said
    assert "desk.yaml:5: gpus: unknown key; did you mean 'gpu'?" in said
