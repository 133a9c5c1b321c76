"""Runs of `killed_pipeline.py` on a cluster of several nodes, and what is killed beneath them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.acceptance.killed_pipeline import (
    ROWS,
    STEPS,
    Settings,
    Work,
    read_work,
    wrong_rows,
)
from tests.clusters import Cluster, Node

SCRIPT = Path(__file__).with_name("killed_pipeline.py")

WHENS = {"while loading": 0.0, "early": 0.1, "in the middle": 0.5, "near the end": 1.0}
"""How much of a step's work is done when it is hit; while loading: none."""

DEADLINE = 200
"""Seconds after which nothing more is waited for."""


@dataclass(frozen=True)
class Root:
    """A cache root that is empty at first."""

    url: str
    storage_options: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Kill:
    """Something was killed.

    Attributes:
        at: when, in seconds of the wall clock.
        step: whose work it was timed by.
        seen: the processes that had done something before.
        killed: those of the steps' replicas that were killed.
    """

    at: float
    step: str
    seen: frozenset[int]
    killed: frozenset[int]


@dataclass(frozen=True)
class Cost:
    """What a run that something was killed beneath came to.

    Attributes:
        computed: rows that were computed, over all steps that note their work.
        twice: how many of them had been computed before.
        lost: rows that are missing from what the run gave, or in it twice.
        wrong: rows that are not what they must be, with what is wrong.
        step_after: the longest that a step of which a replica was killed gave nothing; None: it had done all.
        replaced_after: the longest until one that had not been there before gave something; likewise.
        seconds: from the first kill to the end.
        report: the last run's.
    """

    computed: int
    twice: int
    lost: int
    wrong: list[str]
    step_after: float | None
    replaced_after: float | None
    seconds: float
    report: dict[str, Any]


@dataclass
class Site:
    """One cache root, the runs on it, and what they did.

    Attributes:
        folder: where logs and outputs are.
        root: the cache root.
        cluster: what the runs use; may be set to another one between runs.
        flush_seconds: how old rows are when they are written.
        settings: more for the runs.
    """

    folder: Path
    root: Root
    cluster: Cluster
    flush_seconds: float = 0.5
    settings: Mapping[str, Any] = field(default_factory=dict)
    runs: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)
    kills: list[Kill] = field(default_factory=list, init=False)

    @property
    def log(self) -> Path:
        return self.folder / "work.log"

    def told(self, name: str) -> Settings:
        """What a run is told."""
        return Settings(
            root=self.root.url,
            log=str(self.log),
            run=name,
            out=str(self.folder / f"{name}.json"),
            storage_options=self.root.storage_options,
            **self.settings,
        )

    def start(self) -> subprocess.Popen[bytes]:
        """Start a run's driver, in a group of its own."""
        self.folder.mkdir(exist_ok=True, parents=True)
        name = f"r{len(self.runs)}"
        told = self.told(name)
        environment = {
            "DISTILL_RAY_FLUSH_SECONDS": str(self.flush_seconds),
            "DISTILL_RAY_BEAT_SECONDS": "0.25",
            "DISTILL_RAY_PROGRESS": "plain",
        }
        with (self.folder / f"{name}.err").open("wb") as err:
            run = subprocess.Popen(
                [sys.executable, str(SCRIPT), json.dumps(asdict(told))],
                stdout=err,
                stderr=err,
                env=self.cluster.driver_environment(**environment),
                start_new_session=True,
            )
        self.runs.append(run)
        return run

    def said(self, number: int = -1) -> str:
        """What a run has printed."""
        number %= len(self.runs)
        return (self.folder / f"r{number}.err").read_text(encoding="utf-8", errors="replace")

    def work(self) -> list[Work]:
        """What all runs have done so far."""
        return read_work(self.log)

    def wait_for(self, happened: Callable[[list[Work]], bool], what: str) -> list[Work]:
        """Wait until work of the last run is as it should be, and return it."""
        name, run, deadline = f"r{len(self.runs) - 1}", self.runs[-1], time.monotonic() + DEADLINE
        while True:
            done = [work for work in self.work() if work.run == name]
            if happened(done):
                return done
            assert run.poll() is None, f"the run ended ({run.returncode}) before {what}:\n{self.said()}"
            assert time.monotonic() < deadline, f"not in {DEADLINE} s: {what}\n{self.said()}"
            time.sleep(0.01)

    def wait_for_moment(self, step: str, when: str) -> list[Work]:
        """Wait until so much of a step's work is done, and return what is done."""
        if when == "while loading":
            return self.wait_for(lambda done: f"load:{step}" in {work.step for work in done}, f"{step} loads")
        if step == "rank" and when != "near the end":  # one call does all
            return self.wait_for(lambda done: "begin:rank" in {work.step for work in done}, "rank begins")
        rows = max(1, round(WHENS[when] * ROWS))
        return self.wait_for(
            lambda done: len({work.unit for work in done if work.step == step}) >= rows, f"{step} {when}"
        )

    def note_kill(self, step: str, killed: Iterable[int]) -> None:
        """Put down that something was killed just now."""
        seen = frozenset(work.pid for work in self.work())
        self.kills.append(Kill(time.time(), step, seen, frozenset(killed)))

    def kill_replica(self, step: str, when: str) -> None:
        """Kill one replica of a step at some moment of its work: the process that did the last of it."""
        done = self.wait_for_moment(step, when)
        mine = [work.pid for work in done if work.step.split(":")[-1] == step and psutil.pid_exists(work.pid)]
        assert mine, f"no replica of {step} is alive\n{self.said()}"
        os.kill(mine[-1], signal.SIGKILL)
        self.note_kill(step, mine[-1:])

    def kill_node(self, step: str, when: str) -> Node:
        """Kill the node of the replica that did the last of a step's work."""
        self.wait_for_moment(step, when)
        node = self.node_of(step)
        self._kill_nodes(step, node)
        return node

    def kill_nodes(self, step: str, when: str) -> None:
        """Kill all nodes but the head."""
        self.wait_for_moment(step, when)
        self._kill_nodes(step, *(node for node in self.cluster.nodes if node.alive))

    def _kill_nodes(self, step: str, *nodes: Node) -> None:
        inside = {each.pid for node in nodes for each in node.processes()}
        with ThreadPoolExecutor(len(nodes)) as at_once:
            list(at_once.map(Node.kill, nodes))
        self.note_kill(step, inside & {work.pid for work in self.work()})

    def node_of(self, step: str) -> Node:
        """The node of the replica that did the last of a step's work."""
        pids = [work.pid for work in self.work() if work.step.split(":")[-1] == step]
        for pid in reversed(pids):
            for node in self.cluster.nodes:
                if node.alive and pid in {each.pid for each in node.processes()}:
                    return node
        raise AssertionError(f"no node has a replica of {step}\n{self.said()}")

    def kill_driver(self, step: str, when: str, node: Node | None = None) -> None:
        """Kill the driver, alone or with the node that it is on."""
        self.wait_for_moment(step, when)
        self.runs[-1].kill()
        if node:
            node.kill()
        self.note_kill(step, {work.pid for work in self.work()})
        assert self.runs[-1].wait(DEADLINE) == -signal.SIGKILL

    def finish(self) -> Cost:
        """Let the last run end, and say what all of them came to."""
        told, code = self.told(f"r{len(self.runs) - 1}"), self.runs[-1].wait(DEADLINE)
        ended = time.time()
        assert code == 0, self.said()
        came = json.loads(Path(told.out).read_text(encoding="utf-8"))
        rows, done = came["rows"], self.work()
        computed = [work for work in done if work.step in STEPS]
        pieces = Counter((work.step, work.unit) for work in computed)
        assert set(pieces) == {(step, n) for step in told.steps for n in range(ROWS)}, (
            "work was done that nobody noted"
        )
        numbers = Counter(row.get("n") for row in rows)
        return Cost(
            computed=len(computed),
            twice=len(computed) - len(pieces),
            lost=sum(abs(numbers[n] - 1) for n in range(ROWS)),
            wrong=list(wrong_rows(rows, told)),
            step_after=_longest(_work_after(kill, done, kill.killed) for kill in self.kills),
            replaced_after=_longest(_work_after(kill, done, kill.seen) for kill in self.kills),
            seconds=ended - self.kills[0].at if self.kills else 0.0,
            report=came["report"],
        )

    def end(self) -> None:
        """Kill drivers that still run."""
        for run in self.runs:
            if run.poll() is None:
                run.kill()
            run.wait()


def new_root(folder: Path, bucket: Root | None = None) -> Root:
    """An empty root, in the folder or in a bucket."""
    name = secrets.token_hex(6)
    return Root(f"{bucket.url}/{name}", bucket.storage_options) if bucket else Root(str(folder / name))


def _work_after(kill: Kill, done: Sequence[Work], not_by: Collection[int]) -> float | None:
    """Seconds from a kill to the first work in its step, but for that of some processes."""
    after = [
        work.at - kill.at
        for work in done
        if work.step == kill.step and work.at > kill.at and work.pid not in not_by
    ]
    return min(after, default=None)


def _longest(seconds: Iterable[float | None]) -> float | None:
    return max((each for each in seconds if each is not None), default=None)
