"""Whatever the order in which runs ask, pause, fail and die: one computes at a time, and none waits for ever.

Runs ask on threads of their own, and each request to the storage stands still, before it is made and before
it is answered, until the test lets it go on. Time passes when the test says so.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from distill_ray.cache import paths
from distill_ray.cache.heartbeat import Beat
from distill_ray.cache.lease import Held, Leases
from distill_ray.cache.watch import SILENT_BEATS
from distill_ray.errors import StorageError
from distill_ray.storage import Storage, open_storage

KEY = "ab" * 32
MANIFEST = "manifest"
BEAT_SECONDS = 2.0
SILENCE = SILENT_BEATS * BEAT_SECONDS
LAGS = st.sampled_from([1, int(SILENCE) - 1])
"""Seconds between two beats: a storage may be as slow as that."""
T = TypeVar("T")


class Gate:
    """Where a run's requests stand still."""

    def __init__(self) -> None:
        self.stopped: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._go_on: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def pass_through(self) -> None:
        """Stand still until the test goes on; an error where it wants one."""
        self.stopped.put(True)
        if not self._go_on.get():
            raise StorageError("no answer")

    def go_on(self, *, well: bool = True) -> bool:
        """Let the request go on to where it stands next; False: there is none left."""
        self._go_on.put(well)
        return self.stopped.get(timeout=20)


class GatedStorage:
    """A storage whose requests stand still before they are made and before they are answered."""

    def __init__(self, storage: Storage, gate: Gate) -> None:
        self._storage = storage
        self._gate = gate

    @property
    def url(self) -> str:
        return self._storage.url

    def read(self, path: str) -> bytes:
        return self._ask(lambda: self._storage.read(path))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return self._ask(lambda: self._storage.put_if_absent(path, data))

    def sizes(self, folder: str) -> dict[str, int]:
        return self._ask(lambda: self._storage.sizes(folder))

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._ask(partial(self._storage.delete, [path]))

    def _ask(self, request: Callable[[], T]) -> T:
        self._gate.pass_through()
        try:
            return request()
        finally:
            self._gate.pass_through()


class Run:
    """A run that needs the output: it asks, waits, computes, and writes the manifest."""

    def __init__(self, storage: Storage, clock: Callable[[], float], number: int, lag: float) -> None:
        self._clock = clock
        self._lag = lag
        self._storage = storage
        self._gate = Gate()
        self._gated = GatedStorage(storage, self._gate)
        self._leases = Leases(self._gated, f"run-{number}", BEAT_SECONDS, clock)  # type: ignore[arg-type]
        self._beat = Beat(run=f"run-{number}", beat_seconds=BEAT_SECONDS, process="")
        self._held: Held | None = None
        self.state = "wanting"
        self.busy = False
        self.paused = False
        self.was_silent = False
        self._beaten = clock()
        self.beat()

    def beat(self, status: str = "running") -> None:
        update = {"beat": self._beat.beat + 1, "status": status}
        self._beat = self._beat.model_copy(update=update)
        self._storage.publish(paths.heartbeat(self._beat.run), self._beat.to_json())
        self._beaten = self._clock()

    def note_time(self) -> None:
        """Beat where it is time for that."""
        silence = self._clock() - self._beaten
        if silence >= self._lag and not self.paused:
            self.beat()
        elif silence >= SILENCE:
            self.was_silent = True

    @property
    def lives(self) -> bool:
        return self.state in ("wanting", "computing")

    @property
    def computes(self) -> bool:
        return self.state == "computing"

    def ask(self) -> None:
        """Ask for the output, as far as the first request."""
        self._begin(self._look)

    def finish(self) -> None:
        """Write the manifest, as far as the first request."""
        self._begin(self._write)

    def fail(self) -> None:
        self.state = "ended"
        self.beat("ended")

    def kill(self) -> None:
        self.state = "killed"
        self.let_go()

    def let_go(self) -> None:
        """End its thread: no request that stands still is made."""
        while self.busy:
            self.go_on(well=False)

    def go_on(self, *, well: bool = True) -> None:
        self.busy = self._gate.go_on(well=well)

    def _begin(self, work: Callable[[], None]) -> None:
        def body() -> None:
            with suppress(StorageError, FileNotFoundError):  # it asks again later
                work()
            self._gate.stopped.put(False)

        threading.Thread(target=body, daemon=True).start()
        self.busy = self._gate.stopped.get(timeout=20)

    def _look(self) -> None:
        held = self._leases.acquire({KEY: "step"})[KEY]
        if isinstance(held, Held):
            self._held = held
            self._look_for_manifest()

    def _look_for_manifest(self) -> None:
        try:
            self._gated.read(MANIFEST)
        except FileNotFoundError:
            if self.state == "wanting":
                self.state = "computing"
        else:
            self._end()

    def _write(self) -> None:
        self._gated.put_if_absent(MANIFEST, self._beat.run.encode())
        self._end()

    def _end(self) -> None:
        assert self._held is not None
        self._leases.release(self._held)
        if self.lives:
            self.state = "ended"
            self.beat("ended")


class Interleavings(RuleBasedStateMachine):
    """Runs that need one output, on one storage."""

    def __init__(self) -> None:
        super().__init__()
        self._storage = open_storage(f"memory://leases-{secrets.token_hex(8)}")
        self._now = 0.0
        self._runs: list[Run] = []

    def _living(self) -> list[Run]:
        return [run for run in self._runs if run.lives]

    def _pick(self, data: st.DataObject, wanted: Callable[[Run], bool]) -> Run | None:
        found = [run for run in self._runs if wanted(run)]
        return data.draw(st.sampled_from(found), "run") if found else None

    @initialize(lags=st.lists(LAGS, min_size=2, max_size=4))
    def several_runs_start(self, lags: list[float]) -> None:
        for lag in lags:
            self.a_run_starts(lag)

    @precondition(lambda self: len(self._living()) < 4)
    @rule(lag=LAGS)
    def a_run_starts(self, lag: float) -> None:
        self._runs.append(Run(self._storage, lambda: self._now, len(self._runs), lag))

    @rule(data=st.data(), requests=st.integers(1, 40))
    def a_run_goes_on_asking(self, data: st.DataObject, requests: int) -> None:
        if run := self._pick(data, lambda run: run.busy or run.state == "wanting"):
            if not run.busy:
                run.ask()
            for _ in range(requests):
                if run.busy:
                    run.go_on()

    @rule(data=st.data())
    def a_request_fails_or_its_reply_is_lost(self, data: st.DataObject) -> None:
        if run := self._pick(data, lambda run: run.busy):
            run.go_on(well=False)

    @rule(data=st.data())
    def a_run_has_its_rows(self, data: st.DataObject) -> None:
        if run := self._pick(data, lambda run: run.computes and not run.busy):
            run.finish()

    @rule(data=st.data())
    def a_run_fails(self, data: st.DataObject) -> None:
        if run := self._pick(data, lambda run: run.computes and not run.busy):
            run.fail()

    @rule(data=st.data())
    def a_run_is_killed(self, data: st.DataObject) -> None:
        if run := self._pick(data, lambda run: run.busy or run.computes):
            run.kill()

    @rule(data=st.data())
    def a_run_pauses_or_goes_on(self, data: st.DataObject) -> None:
        if run := self._pick(data, lambda run: run.computes or run.paused):
            run.paused = not run.paused

    @rule(seconds=st.integers(1, int(SILENCE) + 1))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self._now += 1
            for run in self._living():
                run.note_time()

    @invariant()
    def one_computes_unless_another_was_silent(self) -> None:
        computing = [run for run in self._runs if run.computes and not run.was_silent]
        assert len(computing) <= 1

    def teardown(self) -> None:
        """In the end all that live have their rows; a dead holder costs those that wait four beats, once."""
        try:
            for run in self._living():
                run.paused = False
                run.note_time()
            dead = any(run.state == "killed" for run in self._runs)
            for _ in range(2 + (int(SILENCE) if dead else 0)):
                self._let_all_go_on()
                self.time_passes(1)
            assert not self._living()
        finally:
            for run in self._runs:
                run.let_go()

    def _let_all_go_on(self) -> None:
        for _ in range(2):  # those that wait come after those that compute
            for run in self._living():
                while run.busy:
                    run.go_on()
                if run.lives:
                    run.finish() if run.computes else run.ask()
                while run.busy:
                    run.go_on()


Interleavings.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestInterleavings = Interleavings.TestCase
