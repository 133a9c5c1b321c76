"""A process of this machine that is gone is known to be gone; of any other nothing is said."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distill_ray.cache.process import is_gone, this_process

SAY_WHO = "from distill_ray.cache.process import this_process; print(this_process(), flush=True); input()"


@pytest.fixture
def other() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SAY_WHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_process_that_runs_is_not_gone() -> None:
    assert not is_gone(this_process())


def test_a_killed_process_is_gone_before_and_after_its_parent_took_notice(
    other: subprocess.Popen[str],
) -> None:
    assert other.stdout
    assert other.stdin
    name = other.stdout.readline().strip()
    assert not is_gone(name)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name)
    other.wait()
    assert is_gone(name)
    other.stdin.close()
    other.stdout.close()


def test_a_number_that_was_given_to_another_process_does_not_hide_that_the_first_is_gone() -> None:
    machine, pid, started = this_process().split(" ")
    assert is_gone(f"{machine} {pid} {int(started) - 1}")


def test_nothing_is_said_of_a_process_of_another_machine_or_container() -> None:
    machine, _, started = this_process().split(" ")
    boot, container = machine.split("/")
    never = 2**30
    assert is_gone(f"{machine} {never} {started}")
    assert not is_gone(f"other/{container} {never} {started}")
    assert not is_gone(f"{boot}/other {never} {started}")


@pytest.mark.parametrize("name", ["", " ", "x", "x y z", " 1 1"])
def test_nothing_is_said_of_what_names_no_process(name: str) -> None:
    assert not is_gone(name)


@pytest.mark.parametrize("pid", ["", "x", "-1", "0.5", "1" * 30])
def test_a_number_that_is_none_does_no_harm(pid: str) -> None:
    machine = this_process().split(" ")[0]
    assert is_gone(f"{machine} {pid} 1") in (True, False)
