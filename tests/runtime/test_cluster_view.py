"""What fits where: on nodes that are there, on kinds of nodes that can be started, and nowhere."""

import json

import pytest
import ray
from ray.core.generated.autoscaler_pb2 import ClusterConfig

from modularity.errors import InputError
from modularity.runtime import cluster_view
from modularity.runtime.cluster_view import UNLIMITED, ClusterView, Needs, NodeType, read_cluster

SMALL, LARGE = {"CPU": 2.0}, {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("needs", "count"),
    [((1, 0), 16), ((4, 1), 4), ((8, 1), 2), ((1, 0.1), 16), ((0.5, 0.1), 32), ((0.1, 0.1), 40), ((1, 8), 0)],
)
def test_workers_of_a_node(needs: tuple[float, float], count: int) -> None:
    assert Needs(*needs).count(LARGE) == count


def test_without_an_autoscaler_the_nodes_are_all_there_is() -> None:
    view = ClusterView((SMALL, LARGE))
    assert view.capacity(Needs(1, 0)) == 18
    view.check(Needs(4, 1))
    with pytest.raises(
        InputError,
        match=r"needs 4 CPUs and 8 GPUs, but no node has them \(nodes: 2 CPUs and 0 GPUs; 16 CPUs and 4 GPUs\); lower",
    ):
        view.check(Needs(4, 8))


def test_kinds_of_nodes_that_can_be_started_count() -> None:
    view = ClusterView((SMALL,), (NodeType("gpu", LARGE, 3),), autoscales=True)
    assert view.capacity(Needs(4, 1)) == 12
    view.check(Needs(4, 1))
    with pytest.raises(InputError, match=r"can start none .*kinds that can be started: gpu, 16 CPUs and 4 GPUs"):
        view.check(Needs(32, 1))


def test_an_autoscaler_that_does_not_tell_its_kinds_is_asked() -> None:
    view = ClusterView((SMALL,), autoscales=True)
    assert view.capacity(Needs(4, 1)) == UNLIMITED
    view.check(Needs(4, 1))
    refusing = ClusterView((SMALL,), autoscales=True, refused=({"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0}))
    refusing.check(Needs(4, 2))
    refusing.check(Needs(1, 0))  # refused only because the node is busy
    with pytest.raises(InputError, match="a worker needs 4 CPUs and 1 GPUs, but no node has them, and the autoscaler"):
        refusing.check(Needs(4, 1))


@pytest.mark.usefixtures("local_ray")
def test_a_local_ray_has_no_autoscaler() -> None:
    view = read_cluster()
    assert (view.autoscales, view.node_types, view.refused, len(view.nodes)) == (False, (), (), 1)
    assert view.nodes[0]["CPU"] == 2


@pytest.mark.usefixtures("local_ray")
def test_a_reported_cluster_config_names_the_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClusterConfig()
    config.node_group_configs.add(resources={"CPU": 16, "GPU": 4}, max_count=3, name="gpu")
    config.node_group_configs.add(resources={"CPU": 8}, max_count=-1, name="cpu")
    config.node_group_configs.add(resources={"CPU": 8}, max_count=0, name="head")
    monkeypatch.setattr(cluster_view.state, "get_cluster_config", lambda: config)
    view = read_cluster()
    assert [(kind.name, kind.max_count) for kind in view.node_types] == [("gpu", 3), ("cpu", UNLIMITED)]


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("report", "autoscales"),
    [
        (None, False),
        ({"active_nodes": {"node_ab12": 1}, "node_type_mapping": {"10.0.0.1": "node_ab12"}, "idle_nodes": None}, False),
        ({"active_nodes": {"head": 1, "gpu": 2}}, True),
        ({"active_nodes": {}, "node_type_mapping": {"10.0.0.1": "head"}}, True),
    ],
)
def test_autoscaler_v1_is_known_by_its_kinds(
    report: dict[str, object] | None, autoscales: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = json.dumps({"autoscaler_report": report}).encode()
    monkeypatch.setattr(cluster_view, "_internal_kv_get", lambda key: status)
    assert read_cluster().autoscales is autoscales
    assert ray.is_initialized()
