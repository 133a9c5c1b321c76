"""A run is dead once its heartbeat stood still for four beats, by the watcher's clock alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distill_ray.cache.heartbeat import Beat
from distill_ray.cache.watch import SILENT_BEATS, Watch


def beat(number: int, **more: object) -> bytes:
    return Beat.model_validate({"run": "run", "beat": number, "process": "", **more}).to_json()


def test_a_run_is_not_dead_at_the_first_look_however_old_its_heartbeat_is() -> None:
    assert not Watch(2).is_dead(beat(7), 1_000, 1_000)


def test_a_run_whose_heartbeat_changes_lives() -> None:
    watch = Watch(2)
    for number in range(20):
        assert not watch.is_dead(beat(number), number * 7, number * 7)


def test_a_run_that_stands_still_is_dead_after_four_of_its_own_beats() -> None:
    for beat_seconds in (0.5, 2, 30):
        watch = Watch(beat_seconds)
        assert not watch.is_dead(beat(1), 10, 10)
        assert not watch.is_dead(beat(1), 10 + 3.9 * beat_seconds, 10 + 3.9 * beat_seconds)
        assert watch.is_dead(beat(1), 10 + 4 * beat_seconds, 10 + 4 * beat_seconds)


def test_a_run_without_a_heartbeat_or_with_one_that_cannot_be_read_is_dead_as_late() -> None:
    for content in (None, b"", b"\xff", b'{"run": 1}'):
        watch = Watch(2)
        assert not watch.is_dead(content, 0, 0)
        assert not watch.is_dead(content, 7.9, 7.9)
        assert watch.is_dead(content, 8, 8)
        assert watch.beat is None


def test_a_run_that_ended_is_dead_at_once() -> None:
    assert Watch(2).is_dead(beat(1, status="ended"), 0, 0)


def test_a_run_whose_process_is_gone_from_this_machine_is_dead_at_once() -> None:
    machine = Beat(run="run").process.split(" ")[0]
    assert Watch(2).is_dead(beat(1, process=f"{machine} {2**30} 1"), 0, 0)


def test_a_run_that_goes_on_after_a_pause_lives_again() -> None:
    watch = Watch(2)
    watch.is_dead(beat(1), 0, 0)
    assert watch.is_dead(beat(1), 9, 9)
    assert not watch.is_dead(beat(2), 10, 10)


@given(st.data())
def test_a_run_that_beats_in_time_is_never_dead_however_slow_the_storage_is(data: st.DataObject) -> None:
    """Each look shows what stood there at some moment while it went on."""
    seconds = st.floats(0, 20)
    beats = [0.0]
    for _ in range(30):
        beats.append(beats[-1] + data.draw(st.floats(0.1, 2 * SILENT_BEATS - 0.01)))
    watch, now = Watch(2), 0.0
    for _ in range(10):
        asked = now + data.draw(seconds)
        seen = asked + data.draw(seconds)
        now = seen + data.draw(seconds)
        if seen > beats[-1]:
            return
        number = sum(1 for at in beats if at <= seen) - 1
        assert not watch.is_dead(beat(number), asked, now)


@given(st.floats(0.1, 10), st.floats(0, 5), st.lists(st.floats(0.01, 3), min_size=1))
def test_a_dead_run_is_found_out_by_the_first_look_after_four_beats(
    beat_seconds: float, start: float, pauses: list[float]
) -> None:
    watch, now = Watch(beat_seconds), start
    watch.is_dead(beat(1), now, now)
    for pause in pauses:
        now += pause
        assert watch.is_dead(beat(1), now, now) == (now - start >= SILENT_BEATS * beat_seconds)
