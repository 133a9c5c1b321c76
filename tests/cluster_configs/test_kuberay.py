"""kuberay/: Kubernetes, KubeRay and Ray's autoscaler take the manifests; steps find what they ask for."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml
from lightkube.models.core_v1 import Namespace, PodTemplateSpec, ServiceAccount
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from distill_ray.engine.on_ray.placement import check_placeable
from distill_ray.errors import ResourceError
from distill_ray.resources import StepResources
from tests.cluster_configs.configs import CONFIGS, read, run_checker, unlike_model

CLUSTER = read("kuberay/ray-cluster.yaml")
JOB = read("kuberay/ray-job.yaml")
GROUPS = {group["groupName"]: group for group in CLUSTER["spec"]["workerGroupSpecs"]}
NAMESPACE, ACCOUNT = yaml.safe_load_all((CONFIGS / "kuberay/identity.yaml").read_text(encoding="utf-8"))


def fields(required: str, **kinds: Any) -> dict[str, Any]:
    """The JSON schema of an object that has these fields and no others."""
    names = {name: {"type": kind} if isinstance(kind, str) else kind for name, kind in kinds.items()}
    return {
        "type": "object",
        "properties": names,
        "required": required.split(),
        "additionalProperties": False,
    }


TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
POD = {"type": "object"}  # by Kubernetes' own classes, below
METADATA = fields("namespace", name="string", generateName="string", namespace="string", labels=TEXTS)
HEAD_GROUP = fields("rayStartParams template", rayStartParams=TEXTS, template=POD)
WORKER_GROUP = fields(
    "groupName minReplicas maxReplicas rayStartParams template",
    groupName={"type": "string", "pattern": "^[a-z][a-z0-9-]*$"},
    replicas="integer",
    minReplicas="integer",
    maxReplicas="integer",
    idleTimeoutSeconds="integer",
    rayStartParams=TEXTS,
    template=POD,
)
RAY_CLUSTER_SPEC = fields(
    "headGroupSpec rayVersion",
    rayVersion="string",
    authOptions=fields("mode", mode={"enum": ["token", "disabled"]}),
    enableInTreeAutoscaling="boolean",
    autoscalerOptions=fields(
        "",
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds="integer",
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    ),
    headGroupSpec=HEAD_GROUP,
    workerGroupSpecs={"type": "array", "items": WORKER_GROUP},
)
RAY_JOB_SPEC = fields(
    "entrypoint rayClusterSpec",
    entrypoint="string",
    shutdownAfterJobFinishes="boolean",
    ttlSecondsAfterFinished="integer",
    activeDeadlineSeconds="integer",
    backoffLimit="integer",
    submitterConfig=fields("", backoffLimit="integer"),
    runtimeEnvYAML="string",
    rayClusterSpec=RAY_CLUSTER_SPEC,
)
"""The fields of KubeRay's ray.io/v1 that the manifests use or may use; a misspelled one is none of them."""


def resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a resource of KubeRay's."""
    known = {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}}
    return fields("apiVersion kind metadata spec", **known, metadata=METADATA, spec=spec)


@pytest.mark.parametrize(
    ("manifest", "schema"),
    [
        pytest.param(CLUSTER, resource("RayCluster", RAY_CLUSTER_SPEC), id="RayCluster"),
        pytest.param(JOB, resource("RayJob", RAY_JOB_SPEC), id="RayJob"),
    ],
)
def test_kuberay_knows_its_fields(manifest: Any, schema: dict[str, Any]) -> None:
    jsonschema.validate(manifest, schema)


@pytest.mark.parametrize("group", [CLUSTER["spec"]["headGroupSpec"], *GROUPS.values()])
def test_kubernetes_takes_its_pods(group: dict[str, Any]) -> None:
    assert list(unlike_model(group["template"], PodTemplateSpec, "template")) == []


def test_kubernetes_takes_the_namespace_and_the_account() -> None:
    assert list(unlike_model(NAMESPACE, Namespace, "namespace")) == []
    assert list(unlike_model(ACCOUNT, ServiceAccount, "account")) == []


def test_a_mistake_in_a_pod_is_noticed() -> None:
    container = {"image": "x", "env": {"A": "b"}, "ports": [{"containerPort": "80"}], "volumeMount": []}
    assert sorted(unlike_model({"spec": {"containers": [container]}}, PodTemplateSpec, "pod")) == [
        "pod.spec.containers[0] has no field volumeMount",
        "pod.spec.containers[0] lacks name",
        "pod.spec.containers[0].env is no list",
        "pod.spec.containers[0].ports[0].containerPort is '80', no int",
    ]


@pytest.fixture(scope="module")
def node_types() -> Any:
    """What Ray's autoscaler makes of the groups, as it does in a cluster."""
    return _derive_autoscaling_config_from_ray_cr(CLUSTER)["available_node_types"]


def test_ray_reads_each_group_as_a_kind_of_node(node_types: Any) -> None:
    assert node_types.keys() == {"headgroup", *GROUPS}
    assert {kind["min_workers"] for kind in node_types.values()} == {0}


def test_no_step_runs_on_the_head(node_types: Any) -> None:
    with pytest.raises(ResourceError):
        check_placeable("load", StepResources(cpus=0.1), [node_types["headgroup"]["resources"]])


@pytest.mark.parametrize("kind", ["L4", "A100", "H100"])
def test_a_step_that_wants_a_kind_of_gpu_finds_a_place(node_types: Any, kind: str) -> None:
    pool = [node["resources"] for name, node in node_types.items() if name.startswith(kind.lower())]
    wanted = StepResources(cpus=4, gpus=1, memory=16 * 2**30, accelerator_type=kind)
    check_placeable("generate", wanted, pool)


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_lands_on_its_pool_and_has_its_image(node_types: Any, name: str) -> None:
    pod = GROUPS[name]["template"]["spec"]
    tolerated = {toleration["key"] for toleration in pod.get("tolerations", ())}
    gpus, spot = node_types[name]["resources"].get("GPU", 0), name.endswith("-spot")
    selected = pod["nodeSelector"]
    assert ("cloud.google.com/gke-accelerator" in selected) == (gpus > 0) == ("nvidia.com/gpu" in tolerated)
    assert spot == ("cloud.google.com/gke-spot" in tolerated) == ("spot" in node_types[name]["resources"])
    assert pod["containers"][0]["image"].endswith("-gpu") == (gpus > 0)
    requested = pod["containers"][0]["resources"]
    assert requested["requests"] == requested["limits"], "what Ray counts with is what the pod may use"


@pytest.mark.parametrize("group", [CLUSTER["spec"]["headGroupSpec"], *GROUPS.values()])
def test_every_pod_is_the_account_that_may_use_the_bucket_and_no_more(group: dict[str, Any]) -> None:
    pod = group["template"]["spec"]
    assert pod["serviceAccountName"] == ACCOUNT["metadata"]["name"]
    assert (
        CLUSTER["metadata"]["namespace"] == JOB["metadata"]["namespace"] == ACCOUNT["metadata"]["namespace"]
    )
    assert pod["nodeSelector"]["iam.gke.io/gke-metadata-server-enabled"] == "true"
    container = pod["containers"][0]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables["DISTILL_RAY_CACHE_DIR"] == "gs://my-bucket/cache"
    assert float(variables["DISTILL_RAY_WAIT_FOR_RESOURCES"]) > 0, "there are no workers when a run starts"
    assert container["securityContext"]["runAsNonRoot"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]


def test_the_job_runs_on_the_same_cluster() -> None:
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]


def test_the_job_runs_the_script_that_is_mounted_and_leaves_no_cluster_behind() -> None:
    assert JOB["spec"]["entrypoint"] == "python -m distill_ray run /home/ray/pipeline/pipeline.py"
    (mount,) = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == "/home/ray/pipeline"
    assert JOB["spec"]["shutdownAfterJobFinishes"]
    # `kubectl create` names each run anew: a finished RayJob of the same name would not run again.
    assert "name" not in JOB["metadata"]


def test_the_dockerfile_is_sound() -> None:
    assert run_checker("hadolint", str(CONFIGS / "kuberay" / "Dockerfile")) == ""
