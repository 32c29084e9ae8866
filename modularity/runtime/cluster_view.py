"""What a Ray cluster has, what its autoscaler could bring, and whether a worker can ever run there.

Ray 2.60 tells of autoscalers in three ways, none of them complete. A cluster config with the kinds of nodes is there
only where the provider reports one. Autoscaler v2 (KubeRay) reports its state to the head, with the requests that no
kind of node satisfies, but not the kinds. Autoscaler v1 (`ray up`) writes a status with the kinds of the nodes that are
there; without an autoscaler the same status names a kind of its own for every node.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import ray
import ray.util.client
from ray._private.state import state
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client

from modularity.errors import InputError

UNLIMITED = 10**9
_READ_ONLY_KIND = "node_"
_STATUS_KEY = "__autoscaling_status"
_REMEDY = "lower runtime.cpus_per_worker or runtime.gpus_per_worker, or add such a node"


@dataclass(frozen=True)
class Needs:
    """Resources of one worker."""

    cpus: float
    gpus: float

    def count(self, resources: Mapping[str, float]) -> int:
        """Workers that a node with these resources holds."""
        asked = [("CPU", self.cpus), *([("GPU", self.gpus)] if self.gpus else [])]
        return min(int(resources.get(name, 0.0) / value + 1e-9) for name, value in asked)

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


@dataclass(frozen=True)
class NodeType:
    """A kind of node that an autoscaler can start."""

    name: str
    resources: Mapping[str, float]
    max_count: int


@dataclass(frozen=True)
class ClusterView:
    """A cluster at one moment."""

    nodes: tuple[Mapping[str, float], ...]
    """Resources of each node that is there, whether they are in use or not."""
    node_types: tuple[NodeType, ...] = ()
    """Kinds of nodes that can be started, as far as Ray knows them."""
    autoscales: bool = False
    """An autoscaler is there."""
    refused: tuple[Mapping[str, float], ...] = ()
    """Requests that the autoscaler says no kind of node can satisfy."""

    def capacity(self, needs: Needs) -> int:
        """Workers that the nodes hold together, with those that can still be started."""
        present = sum(needs.count(resources) for resources in self.nodes)
        if not self.autoscales:
            return present
        if not self.node_types:
            return UNLIMITED
        return max(present, sum(needs.count(kind.resources) * kind.max_count for kind in self.node_types))

    def fits_present(self, needs: Needs) -> bool:
        """Whether a node that is there can hold a worker."""
        return any(needs.count(resources) for resources in self.nodes)

    def check(self, needs: Needs) -> None:
        """InputError when no node and no kind of node can hold a worker."""
        refused = not self.capacity(needs) or any(_asks_for(request, needs) for request in self.refused)
        if refused and not self.fits_present(needs):
            none = "no node has them, and the autoscaler can start none" if self.autoscales else "no node has them"
            raise InputError(f"a worker needs {needs}, but {none} ({self.describe()}); {_REMEDY}")

    def describe(self) -> str:
        """Nodes and kinds of nodes with their CPUs and GPUs."""
        nodes = "; ".join(_cpus_and_gpus(resources) for resources in self.nodes) or "none"
        if not self.node_types:
            return f"nodes: {nodes}"
        kinds = "; ".join(f"{kind.name}, {_cpus_and_gpus(kind.resources)}" for kind in self.node_types)
        return f"nodes: {nodes}; kinds that can be started: {kinds}"


def read_cluster() -> ClusterView:
    """The cluster of this process's Ray session."""
    nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
    if ray.util.client.ray.is_connected():  # a ray:// driver sees the nodes only
        return ClusterView(nodes)
    if types := _reported_types():
        return ClusterView(nodes, types, autoscales=True)
    if is_autoscaler_v2(fetch_from_server=True):
        return ClusterView(nodes, autoscales=True, refused=_refused_requests())
    return ClusterView(nodes, autoscales=_names_kinds())


def _reported_types() -> tuple[NodeType, ...]:
    """Kinds of nodes in the cluster config, where the provider reports one."""
    config = state.get_cluster_config()
    groups = [] if config is None else config.node_group_configs
    return tuple(
        NodeType(group.name, dict(group.resources), UNLIMITED if group.max_count < 0 else group.max_count)
        for group in groups
        if group.max_count and group.resources
    )


def _refused_requests() -> tuple[dict[str, float], ...]:
    """What autoscaler v2 cannot satisfy; nothing while nodes start, when it refuses all that they will not hold."""
    reply = GetClusterStatusReply()
    reply.ParseFromString(internal_kv_get_gcs_client().get_cluster_status(timeout_s=10))
    told = reply.autoscaling_state
    if told.pending_instances or told.pending_instance_requests:
        return ()
    return tuple(dict(request.resources_bundle) for request in told.infeasible_resource_requests)


def _names_kinds() -> bool:
    """Whether autoscaler v1 runs: it knows kinds of nodes, where a cluster without one has a kind for every node."""
    report = json.loads(_internal_kv_get(_STATUS_KEY) or b"{}").get("autoscaler_report") or {}
    of_nodes = (report.get("node_type_mapping") or {}).values()
    kinds = {*(report.get("active_nodes") or {}), *(report.get("idle_nodes") or {}), *of_nodes}
    return any(not kind.startswith(_READ_ONLY_KIND) for kind in kinds)


def _asks_for(request: Mapping[str, float], needs: Needs) -> bool:
    asked = {"CPU": needs.cpus, "GPU": needs.gpus}
    return all(abs(request.get(name, 0.0) - value) < 1e-4 for name, value in asked.items())


def _cpus_and_gpus(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
