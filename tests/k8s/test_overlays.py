"""Every overlay builds, is valid, keeps the rules between fields, and names the versions of this project."""

import copy
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import kuberay_rules as rules

from modularity.config import validate_config
from modularity.pipelines import EmergentModularityConfig

REPO = Path(__file__).parent.parent.parent
K8S = REPO / "k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
STUDIES = [name for name in OVERLAYS if name.startswith("study")]
KUBERAY_VALIDATOR = REPO.parent / "shared" / "checks" / "validate_kuberay.py"
KUBECTL = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
IMAGE = re.compile(r"[\w.-]+(?:/[\w.-]+)+:(?P<tag>[\w.-]+)-(?:cpu|gpu)")


@functools.cache
def _text(overlay: str) -> str:
    built = subprocess.run(
        ["kubectl", "kustomize", str(K8S / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""  # deprecations are told there
    return built.stdout


def build(overlay: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(_text(overlay)) if document]


def of_kind(overlay: str, kind: str) -> list[dict[str, Any]]:
    return [document for document in build(overlay) if document["kind"] == kind]


def ray_object(overlay: str) -> dict[str, Any]:
    [found] = [document for document in build(overlay) if document["apiVersion"] == "ray.io/v1"]
    return found


def pinned(package: str) -> str:
    lines = (REPO / "constraints.txt").read_text().splitlines()
    [version] = [line.partition("==")[2] for line in lines if line.startswith(f"{package}==")]
    return version


@KUBECTL
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_are_named_once_and_have_their_namespace(overlay: str) -> None:
    objects = [(each["kind"], each["metadata"]["name"]) for each in build(overlay)]
    assert objects
    assert len(objects) == len(set(objects))
    wide = {"Namespace", "ResourceFlavor", "ClusterQueue"}
    for each in build(overlay):
        assert each["metadata"].get("namespace") == (None if each["kind"] in wide else "modularity"), each["kind"]


@KUBECTL
@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "queues"])
def test_ray_objects_keep_the_rules(overlay: str) -> None:
    assert rules.problems(ray_object(overlay)) == []


@KUBECTL
@pytest.mark.skipif(not KUBERAY_VALIDATOR.exists(), reason="no validator with KubeRay's schemas beside the checkout")
def test_ray_objects_fit_the_schemas_of_kuberay(tmp_path: Path) -> None:
    for overlay in OVERLAYS:
        if overlay != "queues":
            (tmp_path / f"{overlay}.yaml").write_text(_text(overlay))
    checked = subprocess.run(
        [sys.executable, str(KUBERAY_VALIDATOR), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@KUBECTL
def test_other_objects_fit_the_schemas_of_kubernetes() -> None:
    checked = 0
    for overlay in OVERLAYS:
        for each in build(overlay):
            group = each["apiVersion"].partition("/")[0]
            if ("." in group and not group.endswith(".k8s.io")) or group.startswith("kueue."):
                continue  # resources of operators
            kubernetes_validate.validate(each, "1.33", strict=True)
            checked += 1
    assert checked > 10


@KUBECTL
@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "queues"])
def test_versions_are_those_of_the_lock_and_the_project(overlay: str) -> None:
    manifest = ray_object(overlay)
    spec = rules.cluster_spec(manifest)
    assert spec is not None
    assert spec["rayVersion"] == pinned("ray")
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    images = {container["image"] for name, container in rules.containers(manifest) if name != "head/autoscaler"}
    for image in images:
        match = IMAGE.fullmatch(image)
        assert match is not None, image
        assert match["tag"] == project
    for name, container in rules.containers(manifest):
        asks = "nvidia.com/gpu" in container["resources"]["limits"]
        assert container.get("image", "-cpu").endswith("-gpu" if asks else "-cpu"), name


@KUBECTL
@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "queues"])
def test_the_namespace_is_closed(overlay: str) -> None:
    [namespace] = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(overlay, "NetworkPolicy")}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():  # nothing is open to every pod of every namespace
        for rule in policy.get("ingress", ()):
            assert all(peer.get("podSelector") for peer in rule["from"]), name
    manifest = ray_object(overlay)
    selected = policies["ray"]["podSelector"]["matchLabels"].items()
    for name, group in rules.groups(manifest):
        assert selected <= group["template"]["metadata"]["labels"].items(), name
    if manifest["kind"] == "RayJob":
        assert selected <= manifest["spec"]["submitterPodTemplate"]["metadata"]["labels"].items()


@KUBECTL
@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "queues"])
def test_pods_reach_the_object_store_by_identity(overlay: str) -> None:
    accounts = {each["metadata"]["name"]: each for each in of_kind(overlay, "ServiceAccount")}
    for name, pod in rules.pods(ray_object(overlay)):
        annotations = accounts[pod["serviceAccountName"]]["metadata"]["annotations"]
        assert annotations.keys() & {"eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account"}, name
    assert accounts["modularity-worker"]["automountServiceAccountToken"] is False
    assert not of_kind(overlay, "Secret")


@KUBECTL
@pytest.mark.parametrize("overlay", STUDIES)
def test_a_study_runs_its_config_and_goes_on_after_a_retry(overlay: str) -> None:
    [configs] = of_kind(overlay, "ConfigMap")
    job = ray_object(overlay)
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["modularity", "run"]
    assert words[3] == "--out"
    assert words[4].startswith(("s3://", "gs://"))  # a place that outlives the cluster
    assert job["spec"]["backoffLimit"] > 0
    folder, _, file = words[2].rpartition("/")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    [mount] = [each for each in head["containers"][0]["volumeMounts"] if each["mountPath"] == folder]
    [volume] = [each for each in head["volumes"] if each["name"] == mount["name"]]
    assert volume["configMap"]["name"] == configs["metadata"]["name"]
    config = validate_config(EmergentModularityConfig, yaml.safe_load(configs["data"][file]))
    assert config.runtime.address == "auto"
    limits = [group["template"]["spec"]["containers"][0]["resources"]["limits"] for _, group in rules.groups(job)]
    assert max(int(each.get("nvidia.com/gpu", 0)) for each in limits) >= (config.runtime.gpus_per_worker or 0)
    assert max(int(each["cpu"]) for each in limits[1:]) >= (config.runtime.cpus_per_worker or 1)


@KUBECTL
def test_the_second_study_of_the_docs_has_a_name_a_config_and_a_place_of_its_own(tmp_path: Path) -> None:
    [example] = re.findall(
        r"^```yaml\n(.*?)^```", (REPO / "docs" / "kubernetes.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "kustomization.yaml").write_text(
        example.replace("../study", os.path.relpath(K8S / "overlays" / "study", tmp_path.resolve()))
    )
    shutil.copy(K8S / "overlays" / "study" / "study.yaml", tmp_path)
    built = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    documents = list(yaml.safe_load_all(built.stdout))
    [job] = [each for each in documents if each["kind"] == "RayJob"]
    assert rules.problems(job) == []
    assert job["metadata"]["name"] == "study-b"
    assert job["spec"]["entrypoint"].endswith("/runs/b")
    volumes = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    assert [each["configMap"]["name"] for each in volumes if "configMap" in each] == ["study-b"]
    assert "study-b" in {each["metadata"]["name"] for each in documents if each["kind"] == "ConfigMap"}


@KUBECTL
def test_the_queue_covers_all_that_the_pods_ask_for() -> None:
    [queue] = of_kind("queues", "ClusterQueue")
    [local] = of_kind("queues", "LocalQueue")
    job = ray_object("study-kueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    asked = {name for _, container in rules.containers(job) for name in container["resources"]["requests"]}
    [group] = queue["spec"]["resourceGroups"]
    assert asked <= set(group["coveredResources"])
    for flavor in group["flavors"]:
        assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]
        assert flavor["name"] in {each["metadata"]["name"] for each in of_kind("queues", "ResourceFlavor")}
    for name, worker in list(rules.groups(job))[1:]:
        assert worker["minReplicas"] == worker["replicas"] == worker["maxReplicas"], name


@KUBECTL
def test_the_monitor_selects_the_pods_and_only_prometheus_may_read() -> None:
    [monitor] = of_kind("cluster", "PodMonitor")
    [policy] = [each for each in of_kind("cluster", "NetworkPolicy") if each["metadata"]["name"] == "metrics"]
    assert monitor["spec"]["selector"]["matchLabels"] == policy["spec"]["podSelector"]["matchLabels"]
    assert [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]] == [8080]


def _valid_job() -> dict[str, Any]:
    return copy.deepcopy(ray_object("study"))


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Change that sets `path` in a RayJob; None removes the key."""

    def change(job: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        node: Any = job
        for part in parents:
            node = node[part]
        if value is None:
            del node[last]
        else:
            node[last] = value

    return change


CLUSTER = "spec/rayClusterSpec"
GPU = f"{CLUSTER}/workerGroupSpecs/0"
HEAD_POD = f"{CLUSTER}/headGroupSpec/template/spec"
BROKEN = {
    "long name": (_set("metadata/name", "x" * 48), "DNS-1035"),
    "number first": (_set("metadata/name", "1study"), "DNS-1035"),
    "no version": (_set(f"{CLUSTER}/rayVersion", None), "rayVersion None"),
    "old version": (_set(f"{CLUSTER}/rayVersion", "2.51.0"), "2.52.0"),
    "no token": (_set(f"{CLUSTER}/authOptions/mode", "disabled"), "authOptions.mode"),
    "autoscaler v1": (_set(f"{CLUSTER}/autoscalerOptions/version", "v1"), "not v2"),
    "restarting pods": (_set(f"{GPU}/template/spec/restartPolicy", "Always"), "gpu: restartPolicy"),
    "suspended group": (_set(f"{GPU}/suspend", True), "gpu: a group cannot be suspended"),
    "work on the head": (_set(f"{CLUSTER}/headGroupSpec/rayStartParams/num-cpus", "4"), "the head runs work"),
    "number as parameter": (_set(f"{GPU}/rayStartParams/object-store-memory", 5), "numbers need quotes"),
    "resources twice": (_set(f"{GPU}/rayStartParams/num-gpus", "1"), "taken from the pod"),
    "replicas": (_set(f"{GPU}/replicas", 9), "gpu: replicas lie outside"),
    "same name": (_set(f"{CLUSTER}/workerGroupSpecs/1/groupName", "gpu"), "not named apart"),
    "root": (_set(f"{HEAD_POD}/securityContext/runAsNonRoot", False), "head: runs as root"),
    "seccomp": (_set(f"{HEAD_POD}/securityContext/seccompProfile/type", "Unconfined"), "head: seccompProfile"),
    "host network": (_set(f"{HEAD_POD}/hostNetwork", True), "head: shares a namespace"),
    "host path": (_set(f"{HEAD_POD}/volumes/0/hostPath", {"path": "/"}), "head: mounts a path of the node"),
    "no volume": (_set(f"{HEAD_POD}/volumes/1", None), "head: mounts volumes that are not there"),
    "privileges": (_set(f"{HEAD_POD}/containers/0/securityContext/privileged", True), "may gain privileges"),
    "capabilities": (_set(f"{HEAD_POD}/containers/0/securityContext/capabilities/drop", []), "keeps capabilities"),
    "autoscaler": (_set(f"{CLUSTER}/autoscalerOptions/securityContext", None), "head/autoscaler: may gain privileges"),
    "auth mode": (_set(f"{HEAD_POD}/containers/0/env/0/value", "disabled"), "RAY_AUTH_MODE"),
    "keys": (
        _set(f"{HEAD_POD}/containers/0/env/1", {"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}),
        "keys of the object store",
    ),
    "submitter": (_set("spec/submitterPodTemplate/spec/containers/0/env", []), "submitter/ray-job-submitter: RAY_AUTH"),
    "more than asked": (
        _set(f"{GPU}/template/spec/containers/0/resources/limits/memory", "64Gi"),
        "gpu/ray-gpu: requests differ from limits",
    ),
    "taint": (_set(f"{GPU}/template/spec/tolerations", []), "gpu: asks for a GPU"),
    "ttl": (_set("spec/shutdownAfterJobFinishes", False), "ttlSecondsAfterFinished needs"),
    "deletion": (_set("spec/deletionStrategy", {"deletionRules": []}), "deletionStrategy excludes"),
    "other cluster": (_set("spec/clusterSelector", {"ray.io/cluster": "a"}), "backoffLimit is for a cluster"),
    "sidecar": (_set("spec/submissionMode", "SidecarMode"), "SidecarMode excludes"),
    "deadline": (_set("spec/activeDeadlineSeconds", 0), "activeDeadlineSeconds must be positive"),
    "k8s tokens": (_set(f"{CLUSTER}/authOptions/enableK8sTokenAuth", True), "not supported for a RayJob"),
    "runtime environment": (_set("spec/runtimeEnvYAML", "- a"), "runtimeEnvYAML is no mapping"),
}


@KUBECTL
@pytest.mark.parametrize("name", BROKEN)
def test_the_rules_find_what_breaks_them(name: str) -> None:
    change, message = BROKEN[name]
    job = _valid_job()
    change(job)
    assert any(message in problem for problem in rules.problems(job)), rules.problems(job)


@KUBECTL
def test_a_scaling_job_in_a_queue_is_found() -> None:
    job = _valid_job()
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "modularity"
    assert rules.problems(job) == ["a job in a queue does not scale by itself"]


def test_every_file_belongs_to_a_kustomization() -> None:
    named = set()
    for path in K8S.rglob("kustomization.yaml"):
        values = yaml.safe_load(path.read_text())
        files = [*values.get("resources", []), *values.get("components", [])]
        files += [file for each in values.get("configMapGenerator", []) for file in each["files"]]
        named |= {path, *((path.parent / file).resolve() for file in files)}
    assert sorted(set(K8S.rglob("*.yaml")) - named) == []
    components = {path for path in named if path.is_dir() and "components" in path.parts}
    assert sorted({path.parent for path in K8S.glob("components/**/kustomization.yaml")} - components) == []
    assert {"cluster", "study", "study-kueue", "queues"} <= set(OVERLAYS)
