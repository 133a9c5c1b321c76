"""gcp/cluster.yaml: Ray's cluster launcher and Compute Engine take it, and steps find what they ask for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
from ray.autoscaler._private.util import prepare_config, validate_config

from distill_ray.engine.on_ray.placement import check_placeable
from distill_ray.errors import ResourceError
from distill_ray.resources import StepResources
from tests.cluster_configs.configs import compute_schemas, read, run_checker, unlike_schema

CONFIG = read("gcp/cluster.yaml")
NODE_TYPES = CONFIG["available_node_types"]
WORKERS = sorted(NODE_TYPES.keys() - {"head"})


@pytest.fixture(scope="module")
def prepared() -> Any:
    """The configuration as `ray up` sees it, with Ray's defaults for Google Cloud filled in."""
    return prepare_config(copy.deepcopy(CONFIG))


def test_ray_takes_it(prepared: Any) -> None:
    validate_config(prepared)


@pytest.mark.parametrize("name", NODE_TYPES)
def test_compute_engine_takes_its_machines(name: str) -> None:
    schemas = compute_schemas()
    node = NODE_TYPES[name]["node_config"]
    assert list(unlike_schema(node, schemas["Instance"], schemas, name)) == []


def test_a_mistake_in_a_machine_is_noticed() -> None:
    schemas = compute_schemas()
    wrong = {"machine": "n2", "scheduling": {"provisioningModel": "Spot"}, "disks": {}, "tags": [1]}
    complaints = list(unlike_schema(wrong, schemas["Instance"], schemas, "node"))
    assert complaints.pop(1).startswith(
        "node.scheduling.provisioningModel is 'Spot', none of ['FLEX_START', "
    )
    assert complaints == ["node has no field machine", "node.disks is no list", "node.tags is no object"]


def test_no_step_runs_on_the_head() -> None:
    with pytest.raises(ResourceError):
        check_placeable("load", StepResources(cpus=0.1), [NODE_TYPES["head"]["resources"]])


@pytest.mark.parametrize("kind", ["L4", "A100", "H100"])
def test_a_step_that_wants_a_kind_of_gpu_finds_a_place(kind: str) -> None:
    pool = [node["resources"] for name, node in NODE_TYPES.items() if name.startswith(kind.lower())]
    wanted = StepResources(cpus=4, gpus=1, memory=16 * 10**9, accelerator_type=kind)
    check_placeable("generate", wanted, pool)


@pytest.mark.parametrize(
    ("device", "kind"),
    [("NVIDIA L4", "L4"), ("NVIDIA A100-SXM4-40GB", "A100"), ("NVIDIA H100 80GB HBM3", "H100")],
)
def test_the_kinds_are_called_what_ray_calls_the_device(device: str, kind: str) -> None:
    assert NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(device) == kind
    assert any(f"accelerator_type:{kind}" in node["resources"] for node in NODE_TYPES.values())


@pytest.mark.parametrize("name", WORKERS)
def test_gpu_nodes_have_a_driver_an_image_for_it_and_do_not_move(name: str) -> None:
    node = NODE_TYPES[name]
    gpus = node["resources"].get("GPU", 0)
    image = node.get("docker", {}).get("worker_image", CONFIG["docker"]["image"])
    assert image.endswith("-gpu") == (gpus > 0)
    assert gpus == 0 or node["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"
    keys = {item["key"] for item in node["node_config"]["metadata"]["items"]}
    assert ("install-nvidia-driver" in keys) == (gpus > 0)


@pytest.mark.parametrize("name", WORKERS)
def test_spot_nodes_are_those_that_say_so(name: str) -> None:
    model = NODE_TYPES[name]["node_config"].get("scheduling", {}).get("provisioningModel", "STANDARD")
    assert (model == "SPOT") == name.endswith("_spot") == ("spot" in NODE_TYPES[name]["resources"])


def test_workers_cost_nothing_while_nobody_needs_them() -> None:
    assert {NODE_TYPES[name]["min_workers"] for name in WORKERS} == {0}
    assert all(NODE_TYPES[name]["max_workers"] <= CONFIG["max_workers"] for name in WORKERS)


def test_only_the_head_may_make_machines() -> None:
    accounts = {name: node["node_config"]["serviceAccounts"][0]["email"] for name, node in NODE_TYPES.items()}
    head = accounts.pop("head")
    assert head.startswith("distill-ray-head@")
    assert {account.partition("@")[0] for account in accounts.values()} == {"distill-ray-worker"}


def test_a_run_waits_for_nodes_of_which_there_are_none_at_first() -> None:
    assert "--env DISTILL_RAY_WAIT_FOR_RESOURCES=1800" in CONFIG["docker"]["run_options"]


def test_every_node_is_given_the_cache_root_and_asks_for_a_token() -> None:
    options = CONFIG["docker"]["run_options"]
    assert "--env DISTILL_RAY_CACHE_DIR=gs://my-bucket/cache" in options
    assert "--env RAY_AUTH_MODE=token" in options
    assert CONFIG["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_its_commands_are_sound(prepared: Any, tmp_path: Path) -> None:
    kinds = ("initialization", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    for kind in kinds:
        script = tmp_path / f"{kind}.sh"
        script.write_text("#!/bin/bash\n" + "\n".join(prepared[f"{kind}_commands"]) + "\n")
        # RAY_HEAD_IP is set by Ray, to an address.
        assert run_checker("shellcheck", "--exclude=SC2154,SC2086", str(script)) == ""
