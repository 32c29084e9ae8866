"""Rules of KubeRay 1.7 and of this project that no schema holds, as one function that lists what is wrong.

The rules between fields are those that the operator checks when it reads a RayCluster or a RayJob
(ray-operator/controllers/ray/utils/validation.go); the others are ours: nothing runs as root, requests equal limits,
authentication is written out everywhere.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

Manifest = Mapping[str, Any]
MAX_NAME = 47
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
IDENTITY_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_SECRET")


def cluster_spec(manifest: Manifest) -> Manifest | None:
    """Spec of the Ray cluster in a RayCluster or RayJob."""
    spec = manifest["spec"]
    return spec if manifest["kind"] == "RayCluster" else spec.get("rayClusterSpec")


def groups(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Head and worker groups with their names."""
    spec = cluster_spec(manifest) or {}
    if "headGroupSpec" in spec:
        yield "head", spec["headGroupSpec"]
    for group in spec.get("workerGroupSpecs", ()):
        yield group.get("groupName", "?"), group


def pods(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Every pod spec with its name: head, workers, submitter."""
    for name, group in groups(manifest):
        yield name, group["template"]["spec"]
    if "submitterPodTemplate" in manifest["spec"]:
        yield "submitter", manifest["spec"]["submitterPodTemplate"]["spec"]


def containers(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Every container with its name, the autoscaler included, which is declared by its options alone."""
    for name, pod in pods(manifest):
        for container in pod["containers"]:
            yield f"{name}/{container['name']}", container
    spec = cluster_spec(manifest) or {}
    if spec.get("enableInTreeAutoscaling"):
        yield "head/autoscaler", spec.get("autoscalerOptions", {})


def environment(container: Manifest) -> dict[str, Any]:
    """Environment of a container by name."""
    return {entry["name"]: entry.get("value") for entry in container.get("env", ())}


def problems(manifest: Manifest) -> list[str]:
    """Everything that the operator would refuse or that breaks a rule of this project; empty if all is well."""
    found = [*_names(manifest), *_cluster(manifest), *_security(manifest), *_resources(manifest)]
    if manifest["kind"] == "RayJob":
        found += [*_job(manifest["spec"]), *_queue(manifest)]
    return found


def _names(manifest: Manifest) -> Iterator[str]:
    name = manifest["metadata"]["name"]
    if len(name) > MAX_NAME or not DNS_1035.fullmatch(name):
        yield f"name {name!r} is no DNS-1035 label of at most {MAX_NAME} characters"
    names = [group for group, _ in groups(manifest)]
    if len(names) != len(set(names)):
        yield f"groups {names} are not named apart"


def _cluster(manifest: Manifest) -> Iterator[str]:
    spec = cluster_spec(manifest)
    if spec is None:
        return
    scales = spec.get("enableInTreeAutoscaling", False)
    options = spec.get("autoscalerOptions", {})
    head = spec["headGroupSpec"]
    head_environment = environment(head["template"]["spec"]["containers"][0])
    if spec.get("authOptions", {}).get("mode") != "token":
        yield "authOptions.mode is not token"
    if not re.fullmatch(r"2\.(5[2-9]|[6-9]\d)\.\d+", str(spec.get("rayVersion", ""))):
        yield f"rayVersion {spec.get('rayVersion')!r}: token authentication needs one of at least 2.52.0 written out"
    if scales and options.get("version") != "v2":
        yield "autoscalerOptions.version is not v2"
    if "RAY_enable_autoscaler_v2" in head_environment:
        yield "RAY_enable_autoscaler_v2 is set beside autoscalerOptions.version"
    if "RAY_REDIS_ADDRESS" in head_environment and "gcsFaultToleranceOptions" not in spec:
        yield "RAY_REDIS_ADDRESS is set without gcsFaultToleranceOptions"
    if head.get("rayStartParams", {}).get("num-cpus") != "0":
        yield "the head runs work items: rayStartParams num-cpus is not '0'"
    for name, group in groups(manifest):
        parameters = group.get("rayStartParams", {})
        if any(not isinstance(value, str) for value in parameters.values()):
            yield f"{name}: rayStartParams are text, so numbers need quotes"
        if group.get("resources") and parameters.keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
            yield f"{name}: resources are set in rayStartParams and in resources"
        if parameters.keys() & {"num-gpus", "memory", "labels"}:
            yield f"{name}: num-gpus, memory and labels are taken from the pod, not from rayStartParams"
        if scales and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield f"{name}: restartPolicy must be Never or absent with autoscaler v2"
        if scales and group.get("suspend"):
            yield f"{name}: a group cannot be suspended while autoscaling"
        if name != "head" and not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{name}: replicas lie outside minReplicas..maxReplicas"


def _security(manifest: Manifest) -> Iterator[str]:
    for name, pod in pods(manifest):
        security = pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
            yield f"{name}: runs as root or as nobody in particular"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: seccompProfile is not RuntimeDefault"
        if pod.get("hostNetwork") or pod.get("hostPID") or pod.get("hostIPC"):
            yield f"{name}: shares a namespace with the node"
        if any("hostPath" in volume for volume in pod.get("volumes", ())):
            yield f"{name}: mounts a path of the node"
        if "serviceAccountName" not in pod:
            yield f"{name}: has no service account, so no identity for the object store"
        mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", ())}
        absent = mounted - {volume["name"] for volume in pod.get("volumes", ())}
        if absent:
            yield f"{name}: mounts volumes that are not there: {sorted(absent)}"
    for name, container in containers(manifest):
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
            yield f"{name}: may gain privileges"
        if security.get("capabilities", {}).get("drop") != ["ALL"] or security.get("capabilities", {}).get("add"):
            yield f"{name}: keeps capabilities"
        given = environment(container)
        if given.get("RAY_AUTH_MODE") != "token":
            yield f"{name}: RAY_AUTH_MODE is not written out as token"
        if given.keys() & set(IDENTITY_KEYS):
            yield f"{name}: keys of the object store in the environment instead of workload identity"


def _resources(manifest: Manifest) -> Iterator[str]:
    for name, container in containers(manifest):
        resources = container.get("resources", {})
        if not resources.get("limits") or resources.get("requests") != resources.get("limits"):
            yield f"{name}: requests differ from limits"
        if not {"cpu", "memory"} <= resources.get("limits", {}).keys():
            yield f"{name}: CPUs and memory are not limited"
    for name, group in groups(manifest):
        limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
        tolerated = {each.get("key") for each in group["template"]["spec"].get("tolerations", ())}
        if "nvidia.com/gpu" in limits and "nvidia.com/gpu" not in tolerated:
            yield f"{name}: asks for a GPU but does not tolerate the taint of GPU nodes"


def _job(spec: Manifest) -> Iterator[str]:
    selects = bool(spec.get("clusterSelector"))
    mode = spec.get("submissionMode", "K8sJobMode")
    retries = spec.get("backoffLimit", 0)
    if not spec.get("rayClusterSpec") and not selects:
        yield "neither rayClusterSpec nor clusterSelector is set"
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if "deletionStrategy" in spec and (spec.get("shutdownAfterJobFinishes") or spec.get("ttlSecondsAfterFinished")):
        yield "deletionStrategy excludes shutdownAfterJobFinishes and ttlSecondsAfterFinished"
    if retries and (selects or mode == "InteractiveMode"):
        yield "backoffLimit is for a cluster that the job starts itself"
    if mode == "SidecarMode" and (selects or "submitterPodTemplate" in spec or "submitterConfig" in spec):
        yield "SidecarMode excludes clusterSelector, submitterPodTemplate and submitterConfig"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(key, 1) <= 0:
            yield f"{key} must be positive"
    if spec.get("suspend") and (selects or not spec.get("shutdownAfterJobFinishes")):
        yield "a suspended job needs shutdownAfterJobFinishes and a cluster of its own"
    if spec.get("rayClusterSpec", {}).get("authOptions", {}).get("enableK8sTokenAuth"):
        yield "enableK8sTokenAuth is not supported for a RayJob"
    if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict):
        yield "runtimeEnvYAML is no mapping"


def _queue(manifest: Manifest) -> Iterator[str]:
    """What Kueue asks of a RayJob that waits in a queue."""
    if "kueue.x-k8s.io/queue-name" not in manifest["metadata"].get("labels", {}):
        return
    spec = manifest["spec"]
    if not spec.get("shutdownAfterJobFinishes"):
        yield "a job in a queue needs shutdownAfterJobFinishes"
    if spec.get("clusterSelector"):
        yield "a job in a queue starts its own cluster"
    if spec.get("rayClusterSpec", {}).get("enableInTreeAutoscaling"):
        yield "a job in a queue does not scale by itself"
    if len(spec.get("rayClusterSpec", {}).get("workerGroupSpecs", ())) > 17:
        yield "a job in a queue has at most 17 worker groups"
