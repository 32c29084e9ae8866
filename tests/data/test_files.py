import gzip
from pathlib import Path

import fsspec
import pytest

from modularity.data import FunctionConfig, sample_names
from modularity.data.files import SourceFile, open_file, source_files
from modularity.errors import InputError


def files_of(source: object) -> list[SourceFile]:
    found = list(source_files(FunctionConfig(name="demo", source=source)))
    return [file for file in found if isinstance(file, SourceFile)]


def test_globs_are_sorted_and_lists_keep_their_order(workdir: Path) -> None:
    for name in ("b2.jsonl", "b10.jsonl", "a.jsonl"):
        (workdir / name).write_text(name)
    assert [file.place for file in files_of("b*.jsonl")] == ["b10.jsonl", "b2.jsonl"]
    assert [file.place for file in files_of(["b2.jsonl", "a.jsonl"])] == ["b2.jsonl", "a.jsonl"]
    assert files_of("a.jsonl")[0].read() == b"a.jsonl"
    assert [file.place for file in files_of(str(workdir / "a*"))] == ["a.jsonl"]


def test_a_file_that_exists_is_no_glob_and_no_chain(workdir: Path) -> None:
    for name in ("a[1].jsonl", "b::c.jsonl", "d e ü#%20.jsonl"):
        (workdir / name).write_text(name)
        (found,) = files_of(name)
        assert (found.place, found.read()) == (name, name.encode())


def test_halves_of_the_source(workdir: Path) -> None:
    for name in ("train.csv", "dev.csv", "test.csv"):
        (workdir / name).write_text("")
    found = files_of({"selection": "train.csv", "evaluation": ["dev.csv", "test.csv"]})
    assert [(file.place, file.half) for file in found] == [
        ("train.csv", "selection"),
        ("dev.csv", "evaluation"),
        ("test.csv", "evaluation"),
    ]


def test_any_file_system_of_fsspec() -> None:
    with fsspec.open("memory://data-room/x.jsonl", "wb") as file:
        file.write(b"{}")
    (one,) = files_of("memory://data-room/*.jsonl")
    assert one.place == "memory:///data-room/x.jsonl"
    assert one.read() == b"{}"
    assert open_file("memory://data-room/x.jsonl").read() == b"{}"


def test_compressed_files_are_unpacked(workdir: Path) -> None:
    (workdir / "x.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    assert open_file("x.jsonl.gz").read() == b"{}"


def test_a_name_that_leads_nowhere_stands_in_its_place(workdir: Path) -> None:
    (workdir / "a.jsonl").write_text("")
    found = list(source_files(FunctionConfig(name="demo", source=["no*.jsonl", "a.jsonl", "sample:no-such"])))
    assert [type(file) for file in found] == [InputError, SourceFile, InputError]


def test_a_damaged_archive_names_file_and_cause(workdir: Path) -> None:
    (workdir / "x.jsonl.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"'x.jsonl.gz' cannot be read \(BadGzipFile"):
        open_file("x.jsonl.gz").read()
    with pytest.raises(InputError, match="stands for 2 files, expected one"):
        (workdir / "y.jsonl.gz").write_bytes(b"")
        open_file("*.gz")


def test_samples_are_named_without_ending() -> None:
    assert all("." not in name for name in sample_names())
    assert list(sample_names()) == sorted(sample_names())
