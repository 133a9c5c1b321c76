"""The versions that the configurations pin are one version each, and one that distill_ray works with."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import distill_ray
from tests.cluster_configs.configs import CONFIGS, ROOT, read

FILES = sorted(path for path in CONFIGS.rglob("*") if path.is_file())
TEXTS = {str(path.relative_to(CONFIGS)): path.read_text(encoding="utf-8") for path in FILES}
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def found(pattern: str) -> dict[str, set[str]]:
    """What matches in which file."""
    matches = {name: set(re.findall(pattern, text)) for name, text in TEXTS.items()}
    return {name: texts for name, texts in matches.items() if texts}


def test_every_image_of_ray_is_pinned_to_one_version_of_ray_and_of_python() -> None:
    images = found(r"rayproject/ray:(\S+?)(?:-gpu)?(?=[\s`\",)]|$)")
    assert images.keys() >= {"gcp/cluster.yaml", "kuberay/Dockerfile"}
    assert len(set().union(*images.values())) == 1, images


def test_they_are_versions_that_distill_ray_works_with() -> None:
    (image,) = found(r"rayproject/ray:(\S+?)(?:-gpu)?(?=[\s`\",)]|$)")["gcp/cluster.yaml"]
    ray, _, python = image.partition("-py")
    (wanted,) = (Requirement(line) for line in re.findall(r'^  "(ray\[[^"]+)"', PYPROJECT, re.MULTILINE))
    assert wanted.specifier.contains(ray)
    (pythons,) = re.findall(r'^requires-python = "(.+)"$', PYPROJECT, re.MULTILINE)
    assert SpecifierSet(pythons).contains(f"{python[0]}.{python[1:]}")
    assert read("kuberay/ray-cluster.yaml")["spec"]["rayVersion"] == ray


def test_images_of_distill_ray_have_its_version() -> None:
    tags = found(r"distill-ray/distill-ray:([\w.]+?)(?:-gpu)?(?=[\s`\"]|$)")
    assert tags["kuberay/ray-cluster.yaml"] == tags["kuberay/ray-job.yaml"] == {distill_ray.__version__}


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_floats(name: str) -> None:
    assert not re.search(r":latest\b|:nightly", TEXTS[name])
