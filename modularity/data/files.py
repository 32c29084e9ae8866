"""Find and open the files of a source: local paths, globs, fsspec URIs and the samples that ship with the package."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from modularity.data.function_part import SourceHalves
from modularity.data.functions import FunctionConfig, Half
from modularity.errors import InputError

SAMPLE = "sample:"
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of compressed files."""
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    place: str
    """How messages call it: as the user wrote it, or the match of a glob."""
    half: Half | None
    """The half that the source declares."""
    system: Any
    """fsspec file system; None for a shipped sample."""
    path: str
    """Path in that file system, or the file name of the sample."""
    inside: str = ""
    """Path below the folder that was named; empty where a file was named."""

    @property
    def is_compressed(self) -> bool:
        """Whether the ending says so; such a file is read from its beginning only."""
        return self.path.lower().endswith(COMPRESSED)

    def read(self) -> bytes:
        """Whole content, decompressed; InputError as from `opened`."""
        with self.opened() as file:
            content: bytes = file.read()
            return content

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Its bytes as a stream, decompressed where the ending says so (.gz, .bz2, .xz, .zst).

        Raises
        ------
        InputError
            Missing, a folder, or unreadable; the message has the cause and the remedy.
        """
        try:
            if self.system is None:
                with (resources.files("modularity.data") / "samples" / self.path).open("rb") as file:
                    yield file
            else:
                with self.system.open(self.path, "rb", compression="infer") as file:
                    yield file
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(
                f"{self.place!r} does not exist; name a file, a glob or a URI{_whereabouts(self.place)}"
            ) from None
        except IsADirectoryError:
            raise InputError(
                f"{self.place!r} is a folder; name its files, e.g. {self.place.rstrip('/')}/*.jsonl"
            ) from None
        except Exception as error:  # remote file systems raise classes of their own
            raise InputError(
                f"{self.place!r} cannot be read ({type(error).__name__}: {error}); check the path, the permissions "
                "and the network"
            ) from error


def _whereabouts(name: str) -> str:
    return "" if "://" in name or os.path.isabs(name) else f" (relative paths start at {os.getcwd()!r})"


def source_files(config: FunctionConfig) -> Iterator[SourceFile | InputError]:
    """Files of a source in order, globs sorted; a name that leads nowhere gives an InputError in its place."""
    source = config.source
    parts: list[tuple[Half | None, Any]] = [(None, source)]
    if isinstance(source, SourceHalves):
        parts = [("selection", source.selection), ("evaluation", source.evaluation)]
    for half, names in parts:
        for name in (names,) if isinstance(names, str) else names:
            try:
                yield from named_files(name, half)
            except InputError as error:
                yield error


def open_file(name: str) -> SourceFile:
    """The one file that `name` (path, URI or `sample:<name>`) stands for; InputError when it is a glob of several."""
    files = named_files(name, None)
    if len(files) != 1:
        raise InputError(f"{name!r} stands for {len(files)} files, expected one")
    return files[0]


def sample_names() -> tuple[str, ...]:
    """Names of the shipped samples, sorted; each is a source `sample:<name>`."""
    folder = resources.files("modularity.data") / "samples"
    if not folder.is_dir():
        return ()
    return tuple(sorted(file.name.removesuffix(".jsonl") for file in folder.iterdir() if file.name.endswith(".jsonl")))


def files_below(name: str, half: Half | None = None) -> list[SourceFile]:
    """Files below a folder, however deep, in the order of their paths; hidden ones are left out.

    A name that is no folder gives what `named_files` does.

    Raises
    ------
    InputError
        As `named_files`; a folder without files.
    """
    if name.startswith(SAMPLE) or _WILDCARDS & set(name):
        return named_files(name, half)
    try:
        system, root = fsspec.core.url_to_fs(os.path.expanduser(name))
        paths = sorted(system.find(root)) if system.isdir(root) else None
    except Exception as error:
        raise InputError(_not_opened(name, error)) from error
    if paths is None:
        return named_files(name, half)
    inner = {path: path.removeprefix(root).lstrip("/") for path in paths}
    found = [
        SourceFile(f"{name.rstrip('/')}/{inside}", half, system, path, inside)
        for path, inside in inner.items()
        if not any(part.startswith(".") for part in inside.split("/"))
    ]
    if not found:
        raise InputError(f"folder {name!r} holds no files; expected at least one")
    return found


def id_prefixes(places: Sequence[str]) -> dict[str, str]:
    """Short names of the files for default ids, so that ids do not depend on where the data lie."""
    short = [os.path.basename(place) for place in places]
    if len(set(short)) == len(set(places)):
        return dict(zip(places, short))
    return {place: f"{number}/{name}" for number, (place, name) in enumerate(zip(places, short))}


def _not_opened(name: str, error: Exception) -> str:
    """Message for an unknown protocol, a missing package of it, or no connection."""
    return (
        f"{name!r} cannot be opened ({type(error).__name__}: {error}); expected a path or a URI that fsspec knows, "
        "with the package of its scheme, and a connection where it is remote"
    )


def named_files(name: str, half: Half | None) -> list[SourceFile]:
    """The file or sample of this name, or the files that a glob matches, sorted.

    Raises
    ------
    InputError
        No such sample, no match, or a URI that cannot be opened.
    """
    if name.startswith(SAMPLE):
        sample = name.removeprefix(SAMPLE)
        if sample not in sample_names():
            raise InputError(f"{name!r} is not a shipped sample; known: {', '.join(sample_names()) or 'none'}")
        return [SourceFile(name, half, None, f"{sample}.jsonl")]
    local = os.path.expanduser(name)
    if "://" not in name and os.path.lexists(local):  # "a[1].jsonl" is a file, not a glob
        return [SourceFile(name, half, LocalFileSystem(), os.path.abspath(local))]
    try:
        system, path = fsspec.core.url_to_fs(local)
        if not _WILDCARDS & set(name):
            return [SourceFile(name, half, system, path)]
        matches = sorted(system.glob(path))
    except Exception as error:
        raise InputError(_not_opened(name, error)) from error
    if not matches:
        raise InputError(f"{name!r} matches no file{_whereabouts(name)}")
    return [SourceFile(_shown(system, match), half, system, match) for match in matches]


def _shown(system: Any, path: str) -> str:
    if "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)):
        relative = os.path.relpath(path)
        return path if relative.startswith("..") else relative
    shown: str = system.unstrip_protocol(path)
    return shown
