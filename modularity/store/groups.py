"""Groups of a run: arrays that share coordinates, created once by the coordinator before any item writes.

A group is sealed by its attribute `modularity:spec`, a digest of all metadata and coordinates, which is written last.
Creating it again with the same content does nothing; with other content it is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
import zarr

from modularity.errors import DataError, IdentityError, StoreError
from modularity.store.arrays import (
    ArraySpec,
    StoredArray,
    coordinate_sha256,
    create_array,
    open_group,
    read_coordinates,
    write_coordinate,
)
from modularity.store.ledger import Ledger
from modularity.store.manifest import differing_keys
from modularity.store.space import Space
from modularity.types import content_digest

GROUP_FORMAT = 1
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
    recorded = _sealed_spec(space, path)
    if recorded is not None:
        _check_same(space.address(path), recorded, wanted)
        return
    for depth in range(path.count("/") + 1):
        parent = "/".join(path.split("/")[:depth])
        _ensure_group(space, parent)
    for name, array in spec.arrays.items():
        create_array(space, f"{path}/{name}", array)
    for name, (dims, values) in spec.coordinates.items():
        write_coordinate(space, f"{path}/{name}", dims, values)
    attributes = {
        **spec.attributes,
        "coordinates": " ".join(name for name in spec.coordinates if " " not in name),
        "modularity:format": GROUP_FORMAT,
        "modularity:content": wanted,
        "modularity:spec": content_digest(wanted),
    }
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    space.write(f"{path}/zarr.json", json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode())


def group_paths(space: Space) -> tuple[str, ...]:
    """Paths of all groups that hold arrays: `activations/<function>/<stack>` and `results/<name>`."""
    stacks = [stack for function in space.list_folders("activations") for stack in space.list_folders(function)]
    return tuple(path for path in (*stacks, *space.list_folders("results")) if space.exists(f"{path}/zarr.json"))


def group_digests(space: Space) -> list[tuple[str, str]]:
    """(path, spec digest) of every sealed group, sorted."""
    found = []
    for path in group_paths(space):
        attributes = open_group(space, path, f"{space.address(path)} holds no group").attrs
        if "modularity:spec" in attributes:
            found.append((path, str(attributes["modularity:spec"])))
    return sorted(found)


def open_array(space: Space, ledger: Ledger, group: Any, path: str, name: str) -> StoredArray:
    """One data array of an opened group."""
    try:
        metadata = group[name]
    except (KeyError, ValueError, TypeError) as error:
        raise StoreError(
            f"{space.address(path)}/{name}/zarr.json is missing or damaged ({error}); restore it"
        ) from None
    return StoredArray(space, ledger, f"{path}/{name}", metadata)


def coordinate_variables(space: Space, group: Any, path: str) -> dict[str, xr.Variable]:
    """The verified coordinates of a group as xarray variables."""
    return {name: xr.Variable(dims, values) for name, dims, values in read_coordinates(space, group, path)}


def _sealed_spec(space: Space, path: str) -> Any:
    if not space.exists(f"{path}/zarr.json"):
        return None
    attributes = open_group(space, path, f"{space.address(path)} holds no group").attrs
    return attributes.get("modularity:content")


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


def _ensure_group(space: Space, path: str) -> None:
    if not space.exists(f"{path}/zarr.json" if path else "zarr.json"):
        zarr.create_group(space.zarr_store(), path=path or None, zarr_format=3, attributes={})
