"""What is packed and shipped holds `distill_ray` alone, whatever the links at the top of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this repository and the wheel built from that sdist, without network."""
    folder = tmp_path_factory.mktemp("dist")
    nowhere = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        env={**os.environ, "http_proxy": nowhere, "https_proxy": nowhere, "PATH": TOOLS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def top_levels(names: Iterable[str]) -> set[str]:
    return {name.split("/")[0] for name in names}


@pytest.mark.parametrize("name", ["cache", "steps"])
def test_the_links_point_into_the_package(name: str) -> None:
    assert (ROOT / name).is_symlink()
    assert (ROOT / name).readlink() == Path("distill_ray", name)
    assert (ROOT / name / "__init__.py").is_file()


@pytest.mark.parametrize("name", ["cache", "steps"])
def test_importing_through_a_link_is_refused_by_the_linter(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "TID251", "-"],
        cwd=ROOT,
        input=f"import {name}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"import distill_ray.{name}" in done.stdout, done.stdout + done.stderr


def test_a_wheel_built_through_the_sdist_holds_every_module_and_no_other_top_level_name(
    built: Path,
) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if name.startswith("distill_ray/") and name.endswith(".py")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "distill_ray").rglob("*.py")}
    assert packed == modules
    assert any(name.startswith("distill_ray/cache/") for name in packed)
    assert any(name.startswith("distill_ray/steps/") for name in packed)
    (metadata,) = top_levels(names) - {"distill_ray"}
    assert metadata.endswith(".dist-info")


def test_the_wheel_says_that_it_is_typed_and_carries_licence_and_command(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert "distill_ray/py.typed" in names
    (licence,) = (name for name in names if name.endswith("/LICENSE"))
    assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    (commands,) = (name for name in names if name.endswith("/entry_points.txt"))
    assert b"distill-ray = distill_ray.cli.main:main" in archive.read(commands)


def test_the_sdist_holds_the_package_once(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    inner = top_levels(name for name in names if name)
    assert "distill_ray" in inner
    assert not inner & {"cache", "steps"}


def test_what_ray_uploads_as_working_dir_has_no_top_level_cache_or_steps(tmp_path: Path) -> None:
    # What `ray job submit --working-dir .` calls; Ray has no public name for it.
    from ray._private.runtime_env.packaging import create_package

    package = tmp_path / "working_dir.zip"
    create_package(str(ROOT), package, include_gitignore=True)
    names = zipfile.ZipFile(package).namelist()
    assert "distill_ray/cache/__init__.py" in names
    assert "distill_ray/steps/__init__.py" in names
    assert not top_levels(names) & {"cache", "steps", "tests", ".git", ".venv"}
    assert package.stat().st_size < 2 << 20
