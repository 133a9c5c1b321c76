"""Whatever dies beneath a run on several nodes, no row is lost, doubled, wrong, or joined from two samplings.

What dies: replicas of each step, nodes with work under way, nodes with rows that are stored nowhere else, the
only node of its kind, the driver, the whole cluster. When: while the step loads, early, in the middle, near
the end. The matrix is run, and the table in docs/reliability.md written, by ::

    DISTILL_RAY_WRITE_TABLES=1 pytest -m slow tests/acceptance/test_node_kills.py

Of which ``-k`` may choose a few: the table keeps the rows of the others. The usual suite kills replicas on
one node (tests/integration/test_engines.py).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.killed_pipeline import ROWS, STEPS
from tests.acceptance.killed_runs import WHENS, Cost, Root, Site, new_root
from tests.acceptance.measured_table import read_table, write_table
from tests.clusters import Cluster
from tests.gcs_server import GcsRoot

TABLE = "acceptance/test_node_kills.py"

AFTER_LOADING = ("early", "in the middle", "near the end")

REPLACED_SECONDS = 60
"""Within which a replica that died is replaced and works, on cores that others use, too."""

SPOT_SECONDS = 5
"""How long no node has what the step asks for."""

STORMS = 3
"""Runs beneath which one thing after the other is killed, at random."""

WORKER = {"cpus": 3}
"""A node for about half of the replicas."""


pytestmark = pytest.mark.timeout(500)


WHATS = (
    REPLICAS := "a replica of each step",
    NODE := "a node with work under way",
    UNSTORED := "a node with rows that are not stored yet",
    NODES := "all nodes, with rows that are not stored yet; others come",
    KIND := f"the only node of its kind; another comes {SPOT_SECONDS} s later",
    DRIVER := "the driver, which is started again",
    HEAD := "the head with the driver, which is started again on another cluster",
    NOTHING := "nothing; more is under way than object stores hold",
    FULL := "a node; more is under way than object stores hold",
    STORM := "up to six times any replica, or a node",
)
"""What is killed, in the order of the table."""


@dataclass
class Matrix:
    """What was measured, by what was killed and when."""

    cells: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def add(self, what: str, when: str, root: Root, cost: Cost) -> None:
        self.cells[what, when] = {
            "what is killed": what,
            "when": when,
            "root": "gs://" if root.url.startswith("gs://") else "local",
            "rows computed": cost.computed,
            "of these again": cost.twice,
            "rows lost": cost.lost,
            "wrong rows": len(cost.wrong),
            "a new replica gave rows after": _seconds(cost.replaced_after),
        }

    def write(self) -> None:
        """Put what was measured in the place of what the table had for the same."""
        whens = [*WHENS, *dict.fromkeys(when for _, when in self.cells)]
        rows = {(row["what is killed"], row["when"]): row for row in read_table(TABLE)} | self.cells
        known = {key: row for key, row in rows.items() if key[0] in WHATS}
        places = sorted(known, key=lambda key: (WHATS.index(key[0]), [*whens, key[1]].index(key[1])))
        write_table(TABLE, [known[place] for place in places])


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    matrix = Matrix()
    yield matrix
    if matrix.cells:
        matrix.write()


@pytest.fixture(scope="module")
def mortal() -> Iterator[Cluster]:
    """A head that runs no steps, and two nodes; who kills one puts another in its place."""
    with Cluster() as cluster:
        cluster.add_nodes(WORKER, WORKER)
        yield cluster


@pytest.fixture
def make_site(tmp_path: Path, mortal: Cluster, gcs_root: GcsRoot) -> Iterator[Callable[..., Site]]:
    """Gives a place for runs: on the cluster, with a root in a bucket or a folder."""
    sites: list[Site] = []

    def make(when: str, flush_seconds: float = 0.5, **settings: Any) -> Site:
        bucket = Root(gcs_root.url, gcs_root.storage_options)
        root = new_root(tmp_path, bucket if list(WHENS).index(when) % 2 else None)
        site = Site(tmp_path / "site", root, mortal, flush_seconds, settings)
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.end()


def check(cost: Cost, *, again: int = len(STEPS) * ROWS) -> None:
    """Every row is there, right, and made anew only where it could not be saved."""
    assert not cost.lost
    assert not cost.wrong
    assert cost.twice <= again
    assert (cost.replaced_after or 0) < REPLACED_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("when", WHENS)
def test_a_replica_of_each_step_is_killed(make_site: Callable[..., Site], matrix: Matrix, when: str) -> None:
    site = make_site(when)
    site.start()
    with ThreadPoolExecutor(len(STEPS)) as at_once:
        list(at_once.map(lambda step: site.kill_replica(step, when), STEPS))
    cost = site.finish()
    matrix.add(REPLICAS, when, site.root, cost)
    # What was under way, and what waited in line behind it.
    check(cost, again=len(STEPS) * ROWS // 2)


@pytest.mark.slow
@pytest.mark.parametrize("when", WHENS)
def test_a_node_is_killed_with_work_under_way(
    make_site: Callable[..., Site], mortal: Cluster, matrix: Matrix, when: str
) -> None:
    site = make_site(when)
    site.start()
    site.kill_node("say", when)
    mortal.add_node(**WORKER)
    cost = site.finish()
    matrix.add(NODE, when, site.root, cost)
    check(cost)


@pytest.mark.slow
@pytest.mark.parametrize("when", AFTER_LOADING)
def test_a_node_is_killed_with_rows_that_are_nowhere_else(
    make_site: Callable[..., Site], mortal: Cluster, matrix: Matrix, when: str
) -> None:
    """What ``left`` gives is fetched by nobody before all of it is there: only its node has it."""
    site = make_site(when, flush_seconds=60.0, resources={"left": {"keeper": 1.0}})
    keepers = mortal.add_nodes(*[{"cpus": 1, "resources": {"keeper": 1.0}}] * 2)
    try:
        site.start()
        assert site.kill_node("left", when) in keepers
        cost = site.finish()
    finally:
        for node in keepers:
            node.kill()
    matrix.add(UNSTORED, when, site.root, cost)
    check(cost)
    if when == "in the middle":
        assert cost.twice > ROWS // 3, "its rows were somewhere else"


@pytest.mark.slow
@pytest.mark.parametrize("when", AFTER_LOADING)
def test_all_nodes_are_killed(
    make_site: Callable[..., Site], mortal: Cluster, matrix: Matrix, when: str
) -> None:
    """The answers are so long that they are lost with the nodes, and others are given in their place."""
    site = make_site(when, flush_seconds=60.0, answer_pad=30_000)
    site.start()
    site.kill_nodes("say", when)
    mortal.add_nodes(WORKER, WORKER)
    cost = site.finish()
    matrix.add(NODES, when, site.root, cost)
    check(cost)


@pytest.mark.slow
@pytest.mark.parametrize("when", WHENS)
def test_a_kind_of_node_comes_and_goes(
    make_site: Callable[..., Site], mortal: Cluster, matrix: Matrix, when: str
) -> None:
    site = make_site(when, resources={"say": {"spot": 1.0}})
    spot = mortal.add_node(cpus=1, resources={"spot": 2.0})
    try:
        run = site.start()
        assert site.kill_node("say", when) is spot
        time.sleep(SPOT_SECONDS)
        if when != "near the end":
            assert run.poll() is None, site.said()
        spot = mortal.add_node(cpus=1, resources={"spot": 2.0})
        cost = site.finish()
    finally:
        spot.kill()
    matrix.add(KIND, when, site.root, cost)
    check(cost)


@pytest.mark.slow
@pytest.mark.parametrize("when", WHENS)
def test_the_driver_is_killed_and_started_again(
    make_site: Callable[..., Site], matrix: Matrix, when: str
) -> None:
    site = make_site(when)
    site.start()
    site.kill_driver("say", when)
    site.start()
    cost = site.finish()
    matrix.add(DRIVER, when, site.root, cost)
    check(cost)


@pytest.mark.slow
@pytest.mark.parametrize("when", AFTER_LOADING)
def test_the_head_is_killed_and_another_cluster_goes_on(
    make_site: Callable[..., Site], matrix: Matrix, when: str
) -> None:
    site = make_site(when)
    with Cluster() as first:
        first.add_nodes(WORKER)
        site.cluster = first
        site.start()
        site.kill_driver("say", when, first.head)
    with Cluster() as second:
        second.add_nodes(WORKER)
        site.cluster = second
        site.start()
        cost = site.finish()
    matrix.add(HEAD, when, site.root, cost)
    check(cost)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [False, True])
def test_more_is_under_way_than_the_object_stores_hold(
    make_site: Callable[..., Site], mortal: Cluster, matrix: Matrix, kills: bool
) -> None:
    """Four steps hand on all 120 MB, none of which is written before the end."""
    site = make_site("in the middle", flush_seconds=60.0, pad=1_000_000)
    site.start()
    if kills:
        site.kill_node("say", "in the middle")
        mortal.add_node(**WORKER)
    cost = site.finish()
    matrix.add(FULL if kills else NOTHING, "in the middle", site.root, cost)
    check(cost, again=len(STEPS) * ROWS if kills else 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(STORMS))
def test_one_after_the_other_is_killed(
    make_site: Callable[..., Site], mortal: Cluster, matrix: Matrix, seed: int
) -> None:
    """Replicas of any step, those of a task's own code too, and now and then a node."""
    drawn = random.Random(seed)
    site = make_site(list(WHENS)[seed % 2], flush_seconds=drawn.choice([0.5, 60.0]), seconds=0.08)
    run, kills = site.start(), 0
    site.wait_for_moment("say", "early")
    while kills < 6 and run.poll() is None:
        time.sleep(drawn.uniform(0.2, 1.5))
        nodes = [node for node in mortal.nodes if node.alive]
        replicas = [each for node in nodes for each in node.processes() if is_replica(each)]
        if drawn.random() < 0.2:
            drawn.choice(nodes).kill()
            mortal.add_node(**WORKER)
        elif replicas:
            drawn.choice(replicas).kill()
        else:
            continue
        kills += 1
    assert kills, site.said()
    cost = site.finish()
    matrix.add(STORM, f"at random, {seed + 1}", site.root, cost)
    check(cost, again=2 * len(STEPS) * ROWS)


def is_replica(process: psutil.Process) -> bool:
    """Whether a process of a node is a step's replica."""
    try:
        return "ReplicaActor" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_replica_and_a_node_are_killed(tmp_path: Path, cluster: Cluster) -> None:
    nodes = cluster.add_nodes(*[{"cpus": 1, "resources": {"mortal": 2.0}}] * 2)
    settings = {"steps": STEPS[:2], "resources": {"square": {"mortal": 1.0}}}
    site = Site(tmp_path / "site", new_root(tmp_path), cluster, settings=settings)
    try:
        site.start()
        site.kill_replica("square", "early")
        assert site.kill_node("square", "in the middle") in nodes
        check(site.finish())
    finally:
        site.end()
        for node in nodes:
            node.kill()


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"
