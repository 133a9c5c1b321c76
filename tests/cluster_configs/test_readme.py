"""The README's commands are sound Bash; its `sed` leaves nothing in the configurations to fill in."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster_configs.configs import CONFIGS, ROOT, run_checker

README = (CONFIGS / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n", 1)[0])
def test_a_block_is_sound(block: str, tmp_path: Path) -> None:
    script = tmp_path / "block.sh"
    script.write_text(f"#!/bin/bash\n{block}")
    # Of the variables some come from the blocks before; none of the values has blanks.
    assert run_checker("shellcheck", "--exclude=SC2154,SC2086,SC2155", str(script)) == ""


def filled_in(sed: str, target: str, folder: Path) -> str:
    """The text that a `sed` of the README makes, with made-up names."""
    (folder / ".ssh").mkdir()
    (folder / ".ssh" / "distill_ray.pub").write_text("ssh-ed25519 AAAA/BBBB+CC== a@b\n")
    settings = {
        "PROJECT": "team-project",
        "BUCKET": "team-bucket",
        "HOME": str(folder),
        "f": Path(target).stem,
    }
    made = subprocess.run(
        ["bash", "-c", sed],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    settled = "".join(line for line in made.splitlines(keepends=True) if not line.startswith("#"))
    assert not re.search("my-(project|bucket|public-key)", settled)
    return made


def seds() -> dict[str, str]:
    """Each `sed` of the README, by the file that it writes, without its writing it."""
    joined = "\n".join(BLOCKS).replace("\\\n", " ")
    return {target: sed for sed, target in re.findall(r"^ *(sed .*?) > (\S+)$", joined, re.MULTILINE)}


def test_ray_takes_the_configuration_that_is_filled_in(tmp_path: Path) -> None:
    config = yaml.safe_load(filled_in(seds()["my-cluster.yaml"], "", tmp_path))
    validate_config(prepare_config(config))
    head = config["available_node_types"]["head"]["node_config"]
    assert head["metadata"]["items"][0]["value"] == "ubuntu:ssh-ed25519 AAAA/BBBB+CC== a@b"
    assert head["serviceAccounts"][0]["email"] == "distill-ray-head@team-project.iam.gserviceaccount.com"


@pytest.mark.parametrize("name", ["identity", "ray-cluster", "ray-job"])
def test_nothing_is_left_to_fill_in_in_the_manifests(name: str, tmp_path: Path) -> None:
    made = filled_in(seds()["my-manifests/$f.yaml"], f"{name}.yaml", tmp_path)
    assert "team-project" in made
    assert list(yaml.safe_load_all(made))


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.iterdir() if path.is_dir()))
def test_each_folder_is_described(name: str) -> None:
    assert re.search(rf"^\| \[{name}\]\(", README, re.MULTILINE)
