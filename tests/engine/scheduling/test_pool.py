"""The pool of a step's replicas, against a plain list that is searched through."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distill_ray.engine.scheduling.pool import Pool

EVENTS = [
    "start",
    "start joining",
    "load",
    "call",
    "call alone",
    "return",
    "flush",
    "flush for good",
    "wrote",
    "leave",
    "gone",
]


@given(
    events=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 5)), max_size=60),
    limit=st.integers(1, 3),
)
def test_a_pool_knows_what_a_search_would_find(events: list[tuple[str, int]], limit: int) -> None:
    pool = Pool()
    flushing: set[int] = set()
    for event, which in events:
        _happen(pool, flushing, event, which)
        ready = {n: r for n, r in pool.items() if r.ready}
        open_ones = {n: r for n, r in ready.items() if not (r.joins or r.leaving or r.alone)}
        assert pool.computing == sum(not r.joins for r in pool.values())
        assert pool.ready == sum(not r.joins for r in ready.values())
        assert pool.joins == any(r.joins for r in pool.values())
        assert set(pool.not_ready) == set(pool) - set(ready)
        assert set(pool.idle) == {n for n, r in ready.items() if not r.calls and not r.flushed}
        assert set(pool.leaving) == {n for n, r in pool.items() if r.leaving}
        assert pool.all_flushed == all(r.flushed for r in ready.values())
        free = pool.free(limit)
        fewest = min((r.calls for r in open_ones.values()), default=limit)
        if fewest < limit:
            assert free in open_ones
            assert free is not None
            assert pool[free].calls == fewest
        else:
            assert free is None


def _happen(pool: Pool, flushing: set[int], event: str, which: int) -> None:
    """Let something happen to a replica, if it can."""
    if event.startswith("start"):
        pool.start(joins=event == "start joining")
        return
    number = next((n for n in pool if n >= which), None)
    if number is None:
        return
    replica = pool[number]
    if event == "gone":
        pool.remove(number)
        flushing.discard(number)
    elif event == "leave":
        pool.leave(number)
    elif event == "load" and not replica.ready:
        pool.loaded(number)
    elif event == "call" and replica.ready and not replica.alone:
        pool.called(number)
    elif event == "call alone" and replica.ready and not replica.calls:
        pool.called(number, alone=True)
    elif event == "return" and replica.calls > (number in flushing):
        pool.returned(number)
    elif event.startswith("flush") and replica.ready and not replica.calls:
        pool.told_to_flush(number, for_good=event == "flush for good")
        flushing.add(number)
    elif event == "wrote" and number in flushing:
        pool.wrote_all(number)
        flushing.discard(number)
