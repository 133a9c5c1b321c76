"""Leases: which run computes an output, so that another one that needs it waits instead of paying again.

A lease is an object per output and epoch, ``leases/<output key>.<epoch>``, made by create-if-absent and
never changed. The newest epoch holds, as long as its run lives (`watch`). A run that died, or ended without
the output, is followed by the next epoch: no clocks need agree, and no compare-and-swap is needed.

Leases save money; what is right never depends on them. Who has gained one looks for the output's manifest,
and reads what units are stored, *after* that: the holder before may have written them meanwhile.

What may be removed, and when:

- by the holder, its own epoch and those before it, once the output's manifest stands (`Leases.release`):
  whoever comes next gains the first epoch again, and finds the manifest;
- by a run that waits, what says so (`Leases.leave`), once it reads no more of what the holder made;
- by anyone, the leases of a run that ended or died long ago, an hour at the least: another run may be just
  about to make the epoch that follows. Its heartbeat may go with them;
- nothing of a run that may live: neither its leases nor its heartbeat.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError

from distill_ray.cache import paths
from distill_ray.cache.heartbeat import Beat, BeatSeconds, read_heartbeat
from distill_ray.cache.watch import Watch
from distill_ray.storage import Storage

_THREADS = 16

A = TypeVar("A")
B = TypeVar("B")


class Lease(BaseModel, frozen=True):
    """What stands in a lease.

    Attributes:
        run: the run that made it.
        step: what the run calls the step.
        beat_seconds: seconds between two of the run's beats: how long others must watch it.
        nonce: tells this lease from that of any other run, whatever its id.
    """

    run: str = Field(min_length=1)
    step: str
    beat_seconds: BeatSeconds
    nonce: str


@dataclass(frozen=True)
class Held:
    """The output is ours to compute.

    Attributes:
        output_key: the output's key.
        epochs: the epochs of its leases, ours last.
    """

    output_key: str
    epochs: tuple[int, ...]


@dataclass(frozen=True)
class Busy:
    """Another run computes the output.

    Attributes:
        output_key: the output's key.
        epoch: the holder's epoch.
        lease: the holder's lease.
        beat: what the holder's heartbeat said last; None where it has none that can be read.
    """

    output_key: str
    epoch: int
    lease: Lease
    beat: Beat | None

    @property
    def holder(self) -> str:
        """Which run it is and how far it is, in words."""
        if self.beat is None:
            return _shown(f"run {self.lease.run}, which has no heartbeat")
        rows = self.beat.steps.get(self.lease.step, 0)
        place = f"host {self.beat.host}, pid {self.beat.pid}"
        return _shown(f"run {self.lease.run} on {place}: {rows:,} rows of step '{self.lease.step}'")


class Leases:
    """Takes leases for one run, whose heartbeat has begun. Not for several threads at once.

    Args:
        storage: the cache root. It must have create-if-absent: without that, do without leases.
        run: the run's id.
        beat_seconds: seconds between two of its beats.
        clock: seconds that never go back.

    Attributes:
        followed: of what was asked for, some is another run's, or was: it may have stored units of it.
    """

    def __init__(
        self, storage: Storage, run: str, beat_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._storage = storage
        self._run = run
        self._beat_seconds = beat_seconds
        self._clock = clock
        self._nonce = secrets.token_hex(8)
        self._watches: dict[str, Watch] = {}
        self.followed = False

    def acquire(self, outputs: Mapping[str, str]) -> dict[str, Held | Busy]:
        """Take what is free: nobody's, or of a run that has ended or is dead.

        Call it again now and then, every beat, for outputs that were busy: a run is known to be dead only
        after it was watched for a while. One listing, a read for each lease and each run that holds some,
        and a write for each lease that is taken, all at once.

        Args:
            outputs: ``{output key: what this run calls the step}``.

        Raises:
            StorageError: the storage failed; call it again, which finds what was taken already.
        """
        epochs = self._epochs(outputs)
        found: dict[str, Held | Busy] = {}
        while missing := [key for key in outputs if key not in found]:
            found.update(self._look({key: outputs[key] for key in missing}, epochs))
        if any(isinstance(each, Busy) or each.epochs[-1] > 1 for each in found.values()):
            self.followed = True
        return found

    def release(self, held: Held) -> None:
        """Remove the leases of an output whose manifest now stands. Without it, let the run's end free it."""
        self._storage.delete(paths.lease(held.output_key, epoch) for epoch in held.epochs)

    def wait(self, outputs: Mapping[str, str]) -> None:
        """Say that this run waits for outputs: who computes them leaves in place what it may be reading.

        Args:
            outputs: ``{output key: what this run calls the step}``.
        """
        _at_once(lambda each: self._make(paths.waiting(each[0], self._run), each[1]), outputs.items())

    def leave(self, outputs: Iterable[str]) -> None:
        """Say that this run reads no more of what others made of these outputs."""
        self._storage.delete(paths.waiting(key, self._run) for key in outputs)

    def awaited(self, outputs: Iterable[str]) -> set[str]:
        """Those of some outputs that other runs wait for, or did when they died: one listing."""
        names = {paths.awaited_output(name) for name in self._storage.sizes(paths.LEASES_FOLDER)}
        return {key for key in outputs if paths.safe_name(key) in names}

    def _look(self, outputs: Mapping[str, str], epochs: dict[str, tuple[int, ...]]) -> dict[str, Held | Busy]:
        """Say who holds the newest epochs; where another run was quicker, add its epoch and leave it out."""
        newest = {key: epochs[key][-1] for key in outputs if epochs[key]}
        leases = dict(zip(newest, _at_once(self._read, newest.items()), strict=True))
        others = {lease.run: lease for lease in leases.values() if lease and lease.nonce != self._nonce}
        dead = dict(zip(others, _at_once(self._is_dead, others.values()), strict=True))
        found: dict[str, Held | Busy] = {}
        free: list[tuple[str, int]] = []
        for key in outputs:
            lease = leases.get(key)
            if lease is not None and lease.nonce == self._nonce:
                found[key] = Held(key, epochs[key])
            elif lease is None or dead[lease.run]:
                free.append((key, newest.get(key, 0) + 1))
            else:
                found[key] = Busy(key, newest[key], lease, self._watches[lease.run].beat)
        taken = _at_once(lambda each: self._make(paths.lease(*each), outputs[each[0]]), free)
        for (key, epoch), is_ours in zip(free, taken, strict=True):
            epochs[key] = (*epochs[key], epoch)
            if is_ours:
                found[key] = Held(key, epochs[key])
        return found

    def _epochs(self, outputs: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The epochs of each output, in order: one listing for all."""
        known: dict[str, list[int]] = {paths.safe_name(key): [] for key in outputs}
        for name in self._storage.sizes(paths.LEASES_FOLDER):
            output, epoch = paths.split_lease(name) or ("", 0)
            if output in known:
                known[output].append(epoch)
        return {key: tuple(sorted(known[paths.safe_name(key)])) for key in outputs}

    def _read(self, newest: tuple[str, int]) -> Lease | None:
        """Read a lease; None where it is gone by now, or is none: then it keeps nobody from going on."""
        try:
            return Lease.model_validate_json(self._storage.read(paths.lease(*newest)))
        except (FileNotFoundError, ValidationError):
            return None

    def _is_dead(self, lease: Lease) -> bool:
        asked = self._clock()
        content = read_heartbeat(self._storage, lease.run)
        watch = self._watches.setdefault(lease.run, Watch(lease.beat_seconds))
        return watch.is_dead(content, asked, self._clock())

    def _make(self, path: str, step: str) -> bool:
        """Make a lease; False where another run was quicker."""
        lease = Lease(run=self._run, step=step, beat_seconds=self._beat_seconds, nonce=self._nonce)
        return self._storage.put_if_absent(path, lease.model_dump_json().encode())


def _at_once(function: Callable[[A], B], arguments: Iterable[A]) -> list[B]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, arguments))


def _shown(text: str) -> str:
    """Names come from another run: they must not steer the terminal that shows them."""
    return "".join(character if character.isprintable() else "?" for character in text)
