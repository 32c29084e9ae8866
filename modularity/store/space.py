"""A folder on disk or a prefix of an object store, by one URI, with the few operations that a run needs.

Everything goes through obstore, whose `mode="create"` is atomic on local folders (hard link) and on object stores
(conditional PUT): that is what lets several workers agree who committed first. Credentials and endpoints come from the
environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, ...) and are never recorded.

What an object store does not answer is asked again: errors 5xx and 429, connections that are refused, reset or cut, and
requests that time out. `RETRIES` and `CLIENT` say for how long.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from modularity.errors import InputError, StoreError, UnavailableError

_PROBE = "write-check"
_FULL = ("No space left", "Disk quota exceeded", "File too large")
_REMOTE_CHECKS = "the address, and credentials in the environment"
_CUT = ("response body error", "error sending request", "timed out")
_UNANSWERED = (*_CUT, "status code: 5", "status code: 429")
REMOTE_SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
RETRIES: Mapping[str, Any] = {
    "max_retries": 1000,  # so that the time decides
    "retry_timeout": timedelta(minutes=4, seconds=30),  # obstore asks for less than 5 minutes: credentials expire
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 4},
}
"""How an object store is asked again. Each pause is drawn between 0.1 seconds and `base` times the one before, at most
15: they grow only where `base` exceeds e; with 2 they stay at some 0.3 seconds."""
CUT_ANSWERS = 3
"""How often a request is repeated whose answer ends too early, within the time of `RETRIES`."""
CLIENT: Mapping[str, Any] = {"connect_timeout": "10s", "read_timeout": "2m", "timeout": "10m"}
"""Time to connect, between two answers, and for a whole request: a shard of 144 MiB needs 2 minutes at 10 Mbit/s."""
_T = TypeVar("_T")


class MissingObjectError(StoreError):
    """No object has the path that was asked for."""


class Space:
    """A folder or an object-store prefix; paths inside are relative, with `/`.

    Parameters
    ----------
    uri : local path, `file:///path`, or `s3://bucket/prefix` (also gs://, az://, abfs://)

    Raises
    ------
    InputError
        The scheme is not known, or the URI holds a user name or password.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri: str = _normal_uri(os.fspath(uri))
        self.is_local: bool = "://" not in self.uri
        self._store: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Only the address travels to other processes; each opens its own client."""
        return {**self.__dict__, "_store": None}

    def __repr__(self) -> str:
        return f"Space({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def join(self, path: str) -> "Space":
        """The space below `path`."""
        return type(self)(f"{self.uri}/{path}")

    def address(self, path: str) -> str:
        """Full address of an object, for messages."""
        return f"{self.uri}/{path}" if path else self.uri

    def read(self, path: str) -> bytes:
        """Whole object; MissingObjectError if there is none."""
        with self._reading(path):
            return self._asked_again(lambda: bytes(obstore.get(self._opened(), path).bytes()))

    def read_range(self, path: str, start: int, stop: int) -> memoryview:
        """Bytes start..stop of an object; MissingObjectError if there is none."""
        with self._reading(path):
            part = self._asked_again(lambda: obstore.get_range(self._opened(), path, start=start, end=stop))
            return memoryview(part)

    def read_tail(self, path: str, n_bytes: int) -> memoryview:
        """Last `n_bytes` bytes of an object (all of it when shorter); MissingObjectError if there is none."""
        with self._reading(path):
            tail: Any = {"range": {"suffix": n_bytes}}
            return memoryview(self._asked_again(lambda: obstore.get(self._opened(), path, options=tail).bytes()))

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write or replace an object; readers see the old or the new one, never a part."""
        with self._failing("writing", path):
            store = self._opened(create=True)
            self._asked_again(lambda: obstore.put(store, path, data, use_multipart=False))

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless it exists; True for at most one of several racing callers.

        False for all of them where a request was carried out and its answer was lost: compare what is there.
        """
        with self._failing("creating", path):
            store = self._opened(create=True)
            try:
                self._asked_again(lambda: obstore.put(store, path, data, mode="create", use_multipart=False))
            except AlreadyExistsError:
                return False
            return True

    def exists(self, path: str) -> bool:
        """Whether an object has this path."""
        try:
            with self._reading(path):
                obstore.head(self._opened(), path)
        except MissingObjectError:
            return False
        return True

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Sorted paths of all objects below the folder `prefix`, at any depth; empty if there is none."""
        return tuple(sorted(self.sizes(prefix)))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Bytes of all objects below the folder `prefix`, by path, from one listing."""
        return {str(entry["path"]): int(entry["size"]) for entry in self._entries(prefix)}

    def times(self, prefix: str = "") -> dict[str, float]:
        """When each object below the folder `prefix` was written, seconds since 1970, by path, from one listing."""
        return {str(entry["path"]): entry["last_modified"].timestamp() for entry in self._entries(prefix)}

    def _entries(self, prefix: str) -> tuple[Any, ...]:
        if self.is_local and not Path(self.uri).is_dir():
            return ()
        with self._failing("listing", prefix):
            entries = self._asked_again(
                lambda: [e for batch in obstore.list(self._opened(), prefix or None) for e in batch]
            )
            return tuple(entries)

    def list_folders(self, prefix: str = "") -> tuple[str, ...]:
        """Sorted paths of the folders directly below `prefix`; empty if there is none."""
        if self.is_local and not Path(self.uri).is_dir():
            return ()
        with self._failing("listing", prefix):
            found = self._asked_again(lambda: obstore.list_with_delimiter(self._opened(), prefix or None))
            return tuple(sorted(str(path).rstrip("/") for path in found["common_prefixes"]))

    def is_empty(self) -> bool:
        """Whether no object lies anywhere in the space; InputError if it is a file."""
        if self.is_local:
            folder = Path(self.uri)
            if folder.is_file():
                raise InputError(f"{self.uri} is a file, expected the folder of a run; name a folder")
            return not (folder.exists() and any(folder.iterdir()))
        with self._failing("listing", ""):
            return self._asked_again(lambda: not any(len(batch) for batch in obstore.list(self._opened(), None)))

    def check_writable(self) -> None:
        """InputError if nothing can be written here; in an object store a small object is written and deleted."""
        if not self.is_local:
            try:
                self.write(_PROBE, b"")
                self.delete(_PROBE)
            except StoreError as error:
                raise InputError(f"{self.uri} cannot be written: {error}") from None
            return
        folder = next(path for path in (Path(self.uri), *Path(self.uri).parents) if os.path.exists(path))
        if not folder.is_dir():
            raise InputError(f"{self.uri} cannot be written: {folder} is a file; name another folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{self.uri} cannot be written: {folder} may not be changed; name another folder")

    def copy_from(self, source: "Space", path: str) -> None:
        """Have the same object as `source` at `path`: by a hard link between folders where possible, else a copy."""
        if self.is_local and source.is_local:
            old, new = Path(source.uri, path), Path(self.uri, path)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            try:
                os.link(old, new)
            except OSError:  # another file system, or one without links
                pass
            else:
                return
        self.write(path, source.read(path))

    def delete(self, path: str) -> None:
        """Remove an object; nothing happens if there is none."""
        try:
            with self._reading(path):
                obstore.delete(self._opened(), path)
        except MissingObjectError:
            return

    def _opened(self, *, create: bool = False) -> Any:
        if self._store is None:
            if not self.is_local:
                self._store = from_url(self.uri, client_options=_client_options(), retry_config=dict(RETRIES))
            elif create or Path(self.uri).is_dir():
                self._store = LocalStore(self.uri, mkdir=True)
            else:
                raise FileNotFoundError(self.uri)
        return self._store

    def _asked_again(self, action: Callable[[], _T]) -> _T:
        """What a request gives; repeated where its answer is lost or ends too early, which obstore does not repeat."""
        end = time.monotonic() + RETRIES["retry_timeout"].total_seconds()
        for _ in range(0 if self.is_local else CUT_ANSWERS):
            try:
                return action()
            except BaseError as error:
                if time.monotonic() > end or not any(sign in str(error) for sign in _CUT):
                    raise
        return action()

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        try:
            with self._failing("reading", path):
                yield
        except (FileNotFoundError, NotADirectoryError):
            raise MissingObjectError(f"{self.address(path)} does not exist") from None

    @contextmanager
    def _failing(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            if verb == "reading":
                raise
            raise StoreError(f"{verb} {self.address(path)} failed: a part of the path is no folder") from None
        except (BaseError, PermissionError, OSError, ValueError) as error:
            raise self._error(f"{verb} {self.address(path)} failed", str(error).split("\n", 1)[0]) from None

    def _error(self, what: str, cause: str) -> StoreError:
        """Error for the cause that the store gave, with the remedy."""
        told = f"{what}: {without_secrets(cause)}"
        if any(full in cause for full in _FULL):
            return UnavailableError(f"{told}; make room there and run the job again: what is recorded stays")
        if not self.is_local and any(sign in cause for sign in _UNANSWERED):
            return UnavailableError(f"{told}; run the job again when the store answers: what is recorded stays")
        return StoreError(f"{told}; check {'the path and its permissions' if self.is_local else _REMOTE_CHECKS}")


def open_space(uri: str | os.PathLike[str]) -> Space:
    """The folder or object-store prefix at `uri`; nothing is read or created."""
    return Space(uri)


def _normal_uri(uri: str) -> str:
    if not _is_text(uri):
        raise InputError(
            f"{uri!r} is no place to keep a run: it holds a NUL or bytes that are not UTF-8, which no record can name; "
            "choose another name"
        )
    parts = urlsplit(uri)
    if "://" not in uri:
        return str(Path(uri).expanduser().absolute()) if uri else _refuse(uri)
    if parts.scheme == "file":
        return str(Path(unquote(parts.path)).absolute())
    if parts.scheme not in REMOTE_SCHEMES or not parts.netloc:
        _refuse(uri)
    if "@" in parts.netloc and parts.scheme not in ("abfs", "abfss"):
        raise InputError(
            f"URI of bucket {parts.hostname!r} holds a user name or password; leave them out and set the "
            "credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://)"
        )
    return uri.rstrip("/")


def _is_text(uri: str) -> bool:
    try:
        uri.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in uri


def _refuse(uri: str) -> str:
    known = ", ".join(f"{scheme}://" for scheme in REMOTE_SCHEMES)
    raise InputError(
        f"{without_secrets(uri)!r} is no place to keep a run: "
        f"expected a local path, file://, or bucket/prefix after {known}"
    )


def _client_options() -> dict[str, Any]:
    # As a plain keyword `allow_http` breaks the pickling of an obstore client; as a client option it does not.
    endpoint = (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or os.environ.get("AWS_ENDPOINT", "")
    )
    return {**CLIENT, **({"allow_http": True} if endpoint.startswith("http://") else {})}


def without_secrets(text: str) -> str:
    """A message without user names and passwords in addresses, signatures, and credentials of the environment."""
    for name, value in os.environ.items():
        if _SECRET_NAME.fullmatch(name) and len(value) >= 8:
            text = text.replace(value, "***")
    return _SIGNATURE.sub(r"\1***", _USER.sub("://***@", text))


_SECRET_NAME = re.compile(r"(AWS|AZURE|GOOGLE|GCS)_.*(KEY|SECRET|TOKEN|PASSWORD|SAS).*")
_USER = re.compile(r"://[^/\s@]+@")
_SIGNATURE = re.compile(r"([?&](?:sig|X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token)=)[^&\s]+", re.IGNORECASE)
