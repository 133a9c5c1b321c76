"""What tests share: one local Ray for the session, and a cache of each test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from distill_ray.cache.store import CacheStore
    from distill_ray.pipeline.running import Engine

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("DISTILL_RAY_PROGRESS", "none")
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

pytest_plugins = [
    "tests.clusters",
    "tests.gcs_server",
    "tests.s3_server",
    "tests.azure_server",
    "tests.faulty_proxy",
]


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache root that no other test sees; pipelines without `cache_dir` use it."""
    root = tmp_path / "cache"
    monkeypatch.setenv("DISTILL_RAY_CACHE_DIR", str(root))
    return root


@pytest.fixture
def store(tmp_path: Path) -> CacheStore:
    """A cache in a folder that is not there yet."""
    from distill_ray.cache.store import CacheStore
    from distill_ray.storage import open_storage

    return CacheStore(open_storage(str(tmp_path / "root")))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A local Ray with four CPUs, started once."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _system_config={"metrics_report_interval_ms": 2_000},  # Ray's own ten seconds are long for a test
    )
    yield
    ray.shutdown()


@pytest.fixture(params=["inline", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn: what a pipeline gives must not depend on it."""
    chosen: Engine = request.param
    if chosen == "ray":
        request.getfixturevalue("local_ray")
    return chosen
