"""Only steps to which something has happened are looked at: a look at all of them would find nothing more."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.engine.actions import Action, ReleaseBlocks
from distill_ray.engine.scheduling.changed import Changed
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec
from tests.engine.scheduling.test_recovery import Mortals
from tests.engine.scheduling.test_scheduler import Replicas


class Watchful(Scheduler):
    """Looks at every step once more, whenever all is said, and finds nothing to do."""

    def actions(self) -> Iterator[Action]:
        yield from super().actions()
        self._changed.add_all()
        for action in super().actions():
            assert isinstance(action, ReleaseBlocks), "a step was overlooked"
            yield action


@settings(deadline=None)
@given(
    rows=st.integers(0, 120),
    batch=st.integers(1, 30),
    replicas=st.integers(1, 4),
    live_bytes=st.sampled_from([0, 50, 10_000]),
    seed=st.integers(0, 10_000),
)
def test_no_step_is_overlooked(rows: int, batch: int, replicas: int, live_bytes: int, seed: int) -> None:
    scheduler = Watchful(
        [
            StepSpec("load", kind="generator"),
            StepSpec("left", ("load",), batch_size=batch, replicas=replicas),
            StepSpec("right", ("load",), batch_size=3, columns=("a",)),
            StepSpec("join", ("left", "right"), batch_size=5, replicas=2),
            StepSpec("all", ("join",), kind="global"),
        ],
        live_bytes=live_bytes,
    )
    actors = Replicas({"load": list(range(rows))}, seed=seed)
    actors.run(scheduler)
    assert set(actors.committed) == {"load", "left", "right", "join", "all"}


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(0, 100),
    kills=st.integers(0, 4),
    live_bytes=st.sampled_from([0, 500, 100_000]),
    seed=st.integers(0, 100_000),
)
def test_no_step_is_overlooked_where_replicas_die(rows: int, kills: int, live_bytes: int, seed: int) -> None:
    scheduler = Watchful(
        [
            StepSpec("load", kind="generator"),
            StepSpec("one", ("load",), batch_size=4, replicas=2),
            StepSpec("two", ("one",), batch_size=3, replicas=2),
            StepSpec("other", ("one",), batch_size=9),
        ],
        live_bytes=live_bytes,
    )
    Mortals(rows, seed, kills).run(scheduler)
    failure = scheduler.failure
    assert scheduler.complete or (failure is not None and failure.damaged)


@given(added=st.lists(st.sampled_from("abcde"), max_size=20))
def test_steps_come_back_once_and_in_the_order_of_the_graph(added: list[str]) -> None:
    changed = Changed("abcde")
    assert [changed.next() for _ in range(6)] == ["a", "b", "c", "d", "e", None]
    for name in added:
        changed.add(name)
    came = [changed.next() for _ in range(len(set(added)) + 1)]
    assert came == [*sorted(set(added)), None]
