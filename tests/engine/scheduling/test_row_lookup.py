"""Rows of a row-wise step are found by all columns, else by the declared ones, else computed; in order."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.unit_index import UnitIndex
from distill_ray.cache.units import StoredRows, StoredUnits
from distill_ray.engine.actions import Action, ReadKeys, SendWork, StartReplica
from distill_ray.engine.messages import Event, KeysRead, Purpose, ReplicaReady, WorkDone, WorkRecord
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec
from tests.engine.scheduling.test_scheduler import digest_of

REMARKS = st.integers(0, 1)


def whole_of(number: int, remark: int) -> bytes:
    return digest_of(1_000 + 10 * number + remark)


def made_of(number: int) -> bytes:
    return digest_of(5_000 + number)


def stored_of(number: int) -> bytes:
    return digest_of(9_000 + number)


@dataclass
class Replicas:
    """Give one row for each; know the number of each row of the source's parts, which are named 0, 1, 2."""

    parts: list[list[int]]
    work: dict[Purpose, list[int]] = field(default_factory=dict)
    asked: Counter[int] = field(default_factory=Counter)

    def do(self, action: Action) -> list[Event]:
        if isinstance(action, StartReplica):
            return [ReplicaReady(action.step, action.replica)]
        if isinstance(action, ReadKeys):
            assert action.source is not None
            part = int(action.source.name)
            self.asked[part] += 1
            keys = b"".join(map(digest_of, self.parts[part]))
            return [KeysRead(action.step, action.block, action.columns, keys)]
        return [self.compute(action)] if isinstance(action, SendWork) else []

    def compute(self, action: SendWork) -> WorkDone:
        work, rows = action.work, []
        for each in work.inputs[0]:
            source = work.sources[each.source]
            assert source is not None
            rows += self.parts[int(source.name)][each.start : each.start + each.rows]
        self.work.setdefault(work.purpose, []).extend(rows)
        digests = b"".join(map(made_of, rows))
        record = WorkRecord(len(work.batches), (1,) * len(rows), digests, seconds=0.001)
        return WorkDone(action.step, action.replica, work.block, record)


def run(scheduler: Scheduler, replicas: Replicas, dice: random.Random) -> None:
    waiting: list[Event] = []
    while True:
        for action in scheduler.actions():
            waiting += replicas.do(action)
        if not waiting:
            return
        scheduler.handle(waiting.pop(dice.randrange(len(waiting))))


@given(
    rows=st.lists(st.tuples(st.integers(0, 60), REMARKS), max_size=40, unique_by=lambda row: row[0]),
    stored=st.lists(st.tuples(st.integers(0, 60), REMARKS), max_size=60, unique_by=lambda row: row[0]),
    cuts=st.lists(st.integers(1, 39), max_size=3),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 1_000),
)
def test_each_row_is_found_as_a_whole_or_by_its_key_or_computed(
    rows: list[tuple[int, int]],
    stored: list[tuple[int, int]],
    cuts: list[int],
    batch_size: int,
    seed: int,
) -> None:
    index = UnitIndex(
        keys=b"".join(digest_of(number) for number, _ in stored),
        wholes=b"".join(whole_of(*row) for row in stored),
        counts=(1,) * len(stored),
        digests=b"".join(stored_of(number) for number, _ in stored),
        run="r0",
    )
    spec = StepSpec("step", ("source",), batch_size=batch_size, columns=("number",), joins_input=True)
    scheduler = Scheduler([spec], {"step": StoredUnits([(PartEntry("stored", 1), index)])})
    ends = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    parts = [rows[start:end] for start, end in pairwise(ends)]
    for position, part in enumerate(parts):
        digests = b"".join(whole_of(*row) for row in part)
        scheduler.feed("source", StoredRows(PartEntry(str(position), 1), 0, len(part), digests))
    scheduler.feed_end("source")
    replicas = Replicas([[number for number, _ in part] for part in parts])
    run(scheduler, replicas, random.Random(seed))

    known = dict(stored)
    as_it_is = {number for number, remark in rows if known.get(number) == remark}
    changed = {number for number, _ in rows if number in known} - as_it_is
    missing = {number for number, _ in rows} - set(known)
    assert Counter(replicas.work.get(Purpose.JOIN, [])) == Counter(changed)
    assert Counter(replicas.work.get(Purpose.COMPUTE, [])) == Counter(missing)
    state = scheduler.steps["step"]
    expected = [stored_of(number) if number in as_it_is else made_of(number) for number, _ in rows]
    assert state.content == hashlib.sha256(b"".join(expected)).hexdigest()
    assert sum(piece.rows for piece in state.segments) == len(rows)

    # Keys are asked for where a row needs them, and of the last part that waits meanwhile; of each once.
    needing = {n for n, part in enumerate(parts) if any(number not in as_it_is for number, _ in part)}
    assert set(replicas.asked) <= (needing | {len(parts) - 1} if needing and stored else set())
    assert set(replicas.asked) >= (needing if stored else set())
    assert all(times == 1 for times in replicas.asked.values())
