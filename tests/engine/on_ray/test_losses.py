"""What Ray says of a lost replica, in words: the exceptions are Ray's own, of processes that really ended."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest

from distill_ray.engine.on_ray.losses import known_better, loss

OUT_OF_MEMORY = """\
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: 11f3) \
was 10.26GB used / 23.54GB limit (0.435996)
OOM kill reason: Memory usage 10815815680B exceeded threshold of 10813998080B (42.8% of 25276510208B limit)
Selected to kill: (Actor(8ebc33db1d81a1e5): pid=9245, actual memory used=3.02GB, worker ID=5b)
"""


class Process:
    def end(self, how: str) -> None:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(4)


def ended(how: str) -> tuple[Any, BaseException]:
    import ray

    kind: Any = ray.remote(Process)
    actor = kind.options(num_cpus=0, max_restarts=0, max_task_retries=0).remote()
    if how == "ray":
        ray.get(actor.__ray_ready__.remote())
        ray.kill(actor)
    with pytest.raises(ray.exceptions.RayActorError) as raised:
        ray.get(actor.end.remote(how), timeout=60)
    return actor, raised.value


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("kill", "ended without a word (SIGKILL"),
        ("exit", "exited with code 4"),
        ("ray", "was ended through Ray"),
    ],
)
def test_the_end_of_a_process_is_told_and_is_its_own_affair(how: str, words: str, local_ray: None) -> None:
    _, error = ended(how)
    lost = loss("step", 3, error)
    assert lost.reason.startswith(words)
    assert (lost.step, lost.replica, lost.with_node, lost.out_of_memory) == ("step", 3, False, False)


def test_where_memory_was_full_it_is_said_how_much_was_in_use() -> None:
    from ray.exceptions import OutOfMemoryError

    lost = loss("step", 0, OutOfMemoryError(OUT_OF_MEMORY))
    assert lost.reason == (
        "was ended by Ray since memory was full (10.26GB of its node's 23.54GB were in use, 3.02GB by itself)"
    )
    assert (lost.out_of_memory, lost.with_node) == (True, False)


def test_an_actor_out_of_reach_is_asked_for_once_more_whether_its_process_died(local_ray: None) -> None:
    import ray
    from ray.exceptions import ActorUnavailableError

    out_of_reach = ActorUnavailableError("connection reset", actor_id=b"\x01" * 16)
    assert loss("step", 0, out_of_reach).with_node
    actor, _ = ended("exit")
    assert not loss("step", 0, known_better(out_of_reach, actor)).with_node

    kind: Any = ray.remote(Process)
    alive = kind.options(num_cpus=0).remote()
    ray.get(alive.__ray_ready__.remote())
    assert known_better(out_of_reach, alive) is out_of_reach
    ray.kill(alive)


def test_a_step_with_a_time_out_is_named_among_what_ends_processes_without_a_word(local_ray: None) -> None:
    _, error = ended("kill")
    assert "batch_timeout=2 s" in loss("step", 0, error, 2.0).reason
    assert "batch_timeout" not in loss("step", 0, error).reason
