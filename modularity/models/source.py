"""Where a checkpoint lies: a local folder or a hub repository, checked before anything is loaded.

huggingface_hub repeats a failing request six times with growing pauses, for every file: without a network it gives up
the config after 23 s and the tokenizer after 46 s. So one short request decides first whether the hub can be reached;
if not, only its local cache is read.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, try_to_load_from_cache
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from modularity.errors import InputError, ModelError, ModularityError
from modularity.models.config import ModelConfig

HUB_TIMEOUT_S = 5.0
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl")
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")


@dataclass(frozen=True)
class Source:
    """A local folder or a hub repository, and what is handed to every `from_pretrained`."""

    name: str
    folder: Path | None
    """The local folder; None for a hub repository."""
    offline: str | None
    """Why the hub cannot be reached; None if it can, or is not needed."""
    options: Mapping[str, Any]
    commit: str | None = None
    """Commit hash of the hub repository, known once a file of it is in the cache."""


def find_source(config: ModelConfig, name: str | None = None) -> Source:
    """Source of the checkpoint of `config`, or of `name` (a tokenizer) loaded in the same way.

    Raises
    ------
    InputError
        A path that is not an existing folder, or a name that cannot be a hub id.
    """
    name = config.name if name is None else name
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    path = Path(name).expanduser()
    if path.is_dir() and name == config.name and config.revision is not None:
        raise InputError(
            f"revision={config.revision!r} with the local folder {name!r}: a folder has no revisions; leave it out, "
            f"or give the hub id"
        )
    if path.is_dir():
        return Source(str(path), path, None, options)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        what = "is not a folder" if path.exists() else "does not exist"
        role = "model" if name == config.name else "tokenizer"
        raise InputError(
            f"{role} folder {name!r} {what}; give a folder with config.json, model.safetensors and tokenizer files, "
            f"or a hub id such as 'facebook/opt-125m'"
        )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII):
        raise InputError(
            f"model {name!r} is neither a local folder nor a hub id; a hub id is 'name' or 'owner/name' of letters, "
            f"digits, '-', '_' and '.', such as 'facebook/opt-125m'"
        )
    offline = _hub_problem()
    options |= {"cache_dir": config.cache_dir, "local_files_only": offline is not None}
    if name == config.name:
        options["revision"] = config.revision or "main"
    return Source(name, None, offline, options)


def _hub_problem() -> str | None:
    """Why the hub cannot be reached, None if it answers; one request, at most `HUB_TIMEOUT_S` seconds."""
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # the class depends on which HTTP client huggingface_hub is built on
        return f"{constants.ENDPOINT}: {type(error).__name__}: {error}"
    return None


@contextmanager
def explained(source: Source, what: str) -> Iterator[None]:
    """Turn what transformers raises while it reads `what` into a ModelError.

    `what` is `config`, `weights`, `tokenizer`, or the `model` that is built of the config alone.
    """
    try:
        with _quiet_transformers():
            yield
    except ModularityError:
        raise
    except Exception as error:  # what a broken config, weight or tokenizer file raises there has no common base
        raise ModelError(_explanation(source, what, error)) from error


def _explanation(source: Source, what: str, error: Exception) -> str:
    if source.offline is not None and isinstance(error, OSError):
        return (
            f"{what} of {source.name!r}: the Hugging Face hub cannot be reached ({source.offline}), and the local "
            f"cache does not hold it; there is no local folder {source.name!r} either. On a machine with a connection "
            f"run 'hf download {source.name} --local-dir FOLDER', copy FOLDER here and give it as the model's name"
        )
    reason = re.sub(r"\s+", " ", str(error)).strip()
    if len(reason) > 600:
        reason = reason[:600] + " …"
    place = "folder" if source.folder is not None else "hub repository"
    remedy = {
        "config": "check its config.json"
        if source.folder is not None
        else "check the name, and the revision if one is given; private and gated models need 'hf auth login'",
        "model": "check its config.json, and that the attention and dtype asked for suit this model",
        "weights": "check that the download is complete and that the attention and dtype asked for suit this model",
        "tokenizer": "check the tokenizer files, or give another one by tokenizer=<folder or hub id>",
    }[what]
    return f"{what} of {place} {source.name!r} cannot be loaded ({type(error).__name__}: {reason}); {remedy}"


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No load reports (they call expected head weights a problem), no progress bars, no conversion requests."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    conversion = os.environ.get("DISABLE_SAFETENSORS_CONVERSION")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        if conversion is None:
            del os.environ["DISABLE_SAFETENSORS_CONVERSION"]
        else:
            os.environ["DISABLE_SAFETENSORS_CONVERSION"] = conversion


def read_hf_config(source: Source) -> Any:
    """Configuration of the checkpoint; ModelError if it is missing or transformers does not know its model type."""
    if source.folder is not None and not (source.folder / "config.json").is_file():
        raise ModelError(
            f"folder {source.name!r} holds no config.json; give the folder that save_pretrained or 'hf download' wrote"
        )
    with explained(source, "config"):
        return AutoConfig.from_pretrained(source.name, **source.options)


def pinned(source: Source) -> Source:
    """Source at the commit whose config is in the cache: weights and tokenizer are then of the same commit.

    A branch can move between two downloads. Folders, and sources without a revision, stay as they are.
    """
    if source.folder is not None or "revision" not in source.options:
        return source
    revision = source.options["revision"]
    path = try_to_load_from_cache(source.name, "config.json", source.options["cache_dir"], revision)
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(path))
    if found is None:
        return source
    return replace(source, commit=found[1], options={**source.options, "revision": found[1]})


def check_weight_files(source: Source, *, allow_pickle: bool) -> None:
    """ModelError unless a local folder holds whole safetensors weights, or pickled ones that are allowed."""
    if source.folder is None:
        return
    files = sorted(source.folder.glob("*.safetensors"))
    for path in files:
        safetensors_header(path)
    if files:
        _check_shards(source.folder)
        return
    pickled = sorted(path.name for pattern in _PICKLED for path in source.folder.glob(pattern))
    if not pickled:
        raise ModelError(
            f"folder {source.name!r} holds no weights (model.safetensors); complete the download, "
            f"or set weights='random' to study the architecture with fresh weights"
        )
    if not allow_pickle:
        raise ModelError(
            f"folder {source.name!r} holds pickled weights only ({', '.join(pickled)}), which can run code while "
            f"loading; convert them to safetensors, or set allow_pickle=True if you trust their source"
        )


def safetensors_header(path: Path) -> dict[str, Any]:
    """Dtype, shape and place of every tensor in a safetensors file, by name; ModelError if the file is not whole."""
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= n_bytes - 8 else b""
    try:
        header: dict[str, Any] = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        declared = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ModelError(
            f"{str(path)!r} of {n_bytes:,} bytes has no header of a safetensors file; complete the download"
        ) from None
    if declared != n_bytes:
        raise ModelError(
            f"{str(path)!r} has {n_bytes:,} bytes, expected {declared:,} as its header says; complete the download"
        )
    return entries


def _check_shards(folder: Path) -> None:
    """ModelError where the index of weights in several files names one that is not there."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{str(index)!r} is damaged ({type(error).__name__}: {error}); complete the download"
        ) from None
    absent = sorted(name for name in named if not (folder / name).exists())
    if absent:
        raise ModelError(
            f"folder {str(folder)!r} lacks {', '.join(absent)}, which {index.name} names; complete the download"
        )


def check_tokenizer_files(source: Source) -> None:
    """ModelError unless a local folder holds a vocabulary; transformers would build an empty tokenizer in silence."""
    if source.folder is None or any(any(source.folder.glob(pattern)) for pattern in _VOCABULARIES):
        return
    raise ModelError(
        f"folder {source.name!r} holds no tokenizer (tokenizer.json, vocab.* or *.model); "
        f"copy the tokenizer files there, or give another one by tokenizer=<folder or hub id>"
    )
