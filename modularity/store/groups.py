"""Groups of a run: arrays that share coordinates, created once by the coordinator before any item writes.

The metadata of a group is written last, and holds the hashes of everything before it: the values of the coordinates,
the metadata of the arrays, and its own attributes. Creating the group again with the same content does nothing; with
other content it is refused. Where its metadata was deleted, all but the data of the arrays is written anew.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from modularity.errors import DataError, IdentityError, StoreError
from modularity.store.arrays import StoredArray, default_threads, parallel_map
from modularity.store.documents import (
    METADATA,
    ArraySpec,
    array_document,
    coordinate_objects,
    coordinate_sha256,
    group_attributes,
    group_document,
    opened_array,
)
from modularity.store.ledger import Ledger
from modularity.store.manifest import differing_keys
from modularity.store.space import MissingObjectError, Space
from modularity.types import content_digest

GROUP_FORMAT = 1
_DOCUMENTS, _SEAL = "modularity:documents", "modularity:seal"
Coordinates = Mapping[str, tuple[tuple[str, ...], np.ndarray]]


@dataclass(frozen=True)
class GroupSpec:
    """Everything about a group except the data of its arrays."""

    arrays: Mapping[str, ArraySpec]
    coordinates: Coordinates
    """Name -> (dimensions, values)."""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, coordinates by their hashes."""
        hashes = {name: coordinate_sha256(values) for name, (_, values) in self.coordinates.items()}
        return {
            "arrays": {name: spec.as_dict() for name, spec in self.arrays.items()},
            "coordinates": hashes,
            "attributes": dict(self.attributes),
        }


@dataclass(frozen=True)
class StoredGroup:
    """A group, opened: its metadata was read and is what was written."""

    space: Space
    path: str
    attributes: Mapping[str, Any]

    @property
    def content(self) -> Mapping[str, Any]:
        """`GroupSpec.as_dict` of the group; empty for one of another writer."""
        return self.attributes.get("modularity:content", {"arrays": {}, "coordinates": {}})

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the data arrays."""
        return tuple(self.content["arrays"])

    def array(self, ledger: Ledger, name: str) -> StoredArray:
        """One data array; StoreError where its metadata is missing or not what was written."""
        address = self.space.address(f"{self.path}/{name}/{METADATA}")
        document = self._document(name)
        try:
            metadata = opened_array({METADATA: document})
        except Exception as error:
            # zarr raises ValueError, KeyError, TypeError and others for damaged metadata.
            raise StoreError(f"{address} is damaged ({error}); {_remedy(self.path)}") from error
        return StoredArray(self.space, ledger, f"{self.path}/{name}", metadata)

    def coordinate(self, name: str) -> xr.Variable:
        """Dimensions and values of a coordinate; StoreError where they are not what was written."""
        expected = self.content["coordinates"][name]
        where = self.space.address(f"{self.path}/{name}")
        document = self._document(name)
        try:
            array = opened_array({METADATA: document})
            if array.size:
                chunk = "/".join(["c", *("0" for _ in array.shape)])
                array = opened_array({METADATA: document, chunk: self.space.read(f"{self.path}/{name}/{chunk}")})
            values = np.asarray(array[...])
            dims = tuple(array.metadata.dimension_names)
        except MissingObjectError as error:
            raise StoreError(f"{error}; {_remedy(self.path)}") from None
        except StoreError:
            raise
        except Exception as error:
            # zarr and its codecs raise RuntimeError, ValueError, KeyError and others for damaged bytes.
            raise StoreError(f"{where} is damaged ({error}); {_remedy(self.path)}") from error
        if coordinate_sha256(values) != expected:
            raise StoreError(f"{where} does not match its recorded hash; {_remedy(self.path)}")
        if values.dtype.kind in "OT":
            values = np.array(values.tolist(), dtype=str).reshape(values.shape)
        return xr.Variable(dims, values)

    def coordinates(self) -> dict[str, xr.Variable]:
        """All coordinates, verified, by name."""
        return {name: self.coordinate(name) for name in self.content["coordinates"]}

    def _document(self, name: str) -> bytes:
        """The `zarr.json` of an array or coordinate; StoreError where it is not what was written."""
        path = f"{self.path}/{name}/{METADATA}"
        try:
            document = self.space.read(path)
        except MissingObjectError as error:
            raise StoreError(f"{error}; {_remedy(self.path)}") from None
        expected = self.attributes.get(_DOCUMENTS, {}).get(name)
        if expected not in (None, hashlib.sha256(document).hexdigest()):
            raise StoreError(f"{self.space.address(path)} does not match its recorded hash; {_remedy(self.path)}")
        return document


def open_group(space: Space, path: str, problem: str) -> StoredGroup:
    """A group; StoreError with `problem` when there is none, and one that says what to do when it is damaged."""
    address = space.address(f"{path}/{METADATA}")
    try:
        attributes = group_attributes(space.read(f"{path}/{METADATA}"))
    except MissingObjectError:
        raise StoreError(problem) from None
    except ValueError as error:
        raise StoreError(f"{address} is damaged ({error}); {_remedy(path)}") from None
    others = {name: value for name, value in attributes.items() if name != _SEAL}
    sealed = _SEAL in attributes or _DOCUMENTS in attributes
    if sealed and attributes.get(_SEAL) != content_digest(others):
        raise StoreError(f"{address} does not match its own digest; {_remedy(path)}")
    return StoredGroup(space, path, attributes)


def create_group(space: Space, path: str, spec: GroupSpec) -> None:
    """Create a group with its arrays (no data) and coordinates; does nothing when it exists with the same content.

    Raises
    ------
    DataError
        A coordinate does not have the size of its dimensions, or two arrays give one dimension two sizes.
    IdentityError
        The group exists with other content; the message lists what differs.
    """
    sizes = _dimension_sizes(path, spec)
    for name, (dims, values) in spec.coordinates.items():
        if values.shape != tuple(sizes.get(dim, -1) for dim in dims):
            wanted = {dim: sizes.get(dim, "unknown") for dim in dims}
            raise DataError(f"coordinate {name!r} of {path} has shape {values.shape}, expected {wanted}")
    wanted = spec.as_dict()
    for parent in _parents(path):
        space.create(parent, group_document({}))
    if space.exists(f"{path}/{METADATA}"):
        recorded = open_group(space, path, f"{space.address(path)} holds no group")
        _check_same(space.address(path), recorded.content, wanted)
        return
    objects = {f"{name}/{METADATA}": array_document(array) for name, array in spec.arrays.items()}
    for name, (dims, values) in spec.coordinates.items():
        objects |= {f"{name}/{part}": data for part, data in coordinate_objects(dims, values).items()}
    parallel_map(lambda part: space.write(f"{path}/{part}", objects[part]), list(objects), default_threads(space))
    attributes = {
        **spec.attributes,
        "coordinates": " ".join(name for name in spec.coordinates if " " not in name),
        "modularity:format": GROUP_FORMAT,
        "modularity:content": wanted,
        "modularity:spec": content_digest(wanted),
        _DOCUMENTS: {
            name: hashlib.sha256(objects[f"{name}/{METADATA}"]).hexdigest()
            for name in (*spec.arrays, *spec.coordinates)
        },
    }
    attributes[_SEAL] = content_digest(attributes)
    space.write(f"{path}/{METADATA}", group_document(attributes))


def group_paths(space: Space) -> tuple[str, ...]:
    """Paths of all groups that hold arrays: `activations/<function>/<stack>` and `results/<name>`."""
    return tuple(path for path in _group_folders(space) if space.exists(f"{path}/{METADATA}"))


def group_digests(space: Space) -> list[tuple[str, str]]:
    """(path, spec digest) of every group, sorted."""
    found = []
    for path in group_paths(space):
        attributes = open_group(space, path, f"{space.address(path)} holds no group").attributes
        if "modularity:spec" in attributes:
            found.append((path, str(attributes["modularity:spec"])))
    return sorted(found)


def missing_metadata(space: Space) -> tuple[str, ...]:
    """Paths of the `zarr.json` of groups that are not there although something lies in their folders."""
    folders = _group_folders(space)
    wanted = {f"{path}/{METADATA}" for path in folders} | {parent for path in folders for parent in _parents(path)}
    paths = sorted(wanted)
    there = parallel_map(space.exists, paths, default_threads(space))
    return tuple(path for path, exists in zip(paths, there) if not exists)


def parent_problems(space: Space) -> dict[str, str]:
    """Damaged metadata of the folders above groups, by path: what is wrong, and what to do."""
    found = {}
    for path in sorted({parent for group in _group_folders(space) for parent in _parents(group)}):
        try:
            intact = group_attributes(space.read(path)) == {}
        except MissingObjectError:
            continue  # `missing_metadata` tells
        except ValueError:
            intact = False
        if not intact:
            found[path] = f"{space.address(path)} is damaged; delete it and run the job again, which writes it anew"
    return found


def _group_folders(space: Space) -> tuple[str, ...]:
    stacks = [stack for function in space.list_folders("activations") for stack in space.list_folders(function)]
    return (*stacks, *space.list_folders("results"))


def _parents(path: str) -> tuple[str, ...]:
    """Paths of the metadata of the groups above one, from the root."""
    parts = path.split("/")
    return tuple("/".join([*parts[:depth], METADATA]) for depth in range(len(parts)))


def _remedy(path: str) -> str:
    return f"delete {path}/{METADATA} and run the job again, which writes the metadata and coordinates there anew"


def _check_same(address: str, recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    lines = [f"  {key}: recorded {old}, now {new}" for key, old, new in differing_keys(recorded, wanted)]
    if lines:
        shown = "\n".join(lines[:20])
        raise IdentityError(
            f"{address} was created for other data:\n{shown}\n"
            "choose another --out, or resume with the recorded data and config"
        )


def _dimension_sizes(path: str, spec: GroupSpec) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, array in spec.arrays.items():
        for dim, size in zip(array.dims, array.shape):
            if sizes.setdefault(dim, size) != size:
                raise DataError(f"dimension {dim!r} of {path} has size {sizes[dim]}, but {size} in array {name!r}")
    for dims, values in spec.coordinates.values():
        for dim, size in zip(dims, values.shape):
            sizes.setdefault(dim, size)
    return sizes
