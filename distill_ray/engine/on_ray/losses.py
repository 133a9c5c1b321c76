"""What became of a replica that is lost, in words, and whether its work or its node is to blame."""

from __future__ import annotations

import re
from typing import Any

import ray

from distill_ray.engine.messages import ReplicaLost
from distill_ray.engine.on_ray.actor import ReplicaDeadError

ASK_SECONDS = 2.0
"""How long it may take Ray to know more of an actor that is out of reach."""

_EXIT_CODE = re.compile(r"exits with an exit code (\d+)")
_NODE_MEMORY = re.compile(r"was (\S+) used / (\S+) limit")
_OWN_MEMORY = re.compile(r"actual memory used=([\d.]+\w+)")


def loss(step: str, replica: int, error: BaseException, time_limit: float | None = None) -> ReplicaLost:
    """Say what an error of a replica's call means.

    Args:
        step: the step's name.
        replica: the replica's number.
        error: what Ray raised.
        time_limit: the step's ``batch_timeout``: beyond it a process may have been ended from within.
    """
    text = str(error)
    starved = isinstance(error, ray.exceptions.OutOfMemoryError)
    kinds = (
        ray.exceptions.NodeDiedError,
        ray.exceptions.ActorUnavailableError,
        ray.exceptions.ActorUnschedulableError,  # it was to be placed there
    )
    with_node = isinstance(error, kinds) or "node has died" in text
    if starved:
        reason = _of_memory(text)
    elif with_node:
        reason = "was lost with its node, or is out of reach"
    else:
        reason = _of_itself(error, text, time_limit)
    return ReplicaLost(step, replica, reason, text, with_node=with_node, out_of_memory=starved)


def known_better(error: BaseException, actor: Any) -> BaseException:
    """Ask again where Ray could only say that an actor is out of reach: it knows soon whether that died.

    Returns:
        The error to go by. Takes up to `ASK_SECONDS`.
    """
    if not isinstance(error, ray.exceptions.ActorUnavailableError):
        return error
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=ASK_SECONDS)
    except ray.exceptions.ActorDiedError as later:
        return later
    except Exception:  # nothing better is known
        return error
    return error


def _of_memory(text: str) -> str:
    """Ray's memory monitor ended it."""
    node, own = _NODE_MEMORY.search(text), _OWN_MEMORY.search(text)
    used = [f"{node[1]} of its node's {node[2]} were in use"] if node else []
    used += [f"{own[1]} by itself"] if own else []
    return "was ended by Ray since memory was full" + (f" ({', '.join(used)})" if used else "")


def _of_itself(error: BaseException, text: str, time_limit: float | None) -> str:
    if isinstance(cause := getattr(error, "cause", None), ReplicaDeadError):
        return f"was ended since what it had loaded is dead ({str(cause).strip().splitlines()[0]:.200})"
    if "SIGTERM" in text:
        return "was ended by SIGTERM"
    if code := _EXIT_CODE.search(text):
        return f"exited with code {code[1]}"
    if "killed by `ray.kill`" in text:
        return "was ended through Ray"
    if "connection error" in text:
        ways = [
            "SIGKILL, as the kernel sends where memory is full",
            "SIGSEGV, a crash in native code",
            "os._exit()",
        ]
        if time_limit is not None:
            ways.append(f"code that held the interpreter much longer than batch_timeout={time_limit:g} s")
        return f"ended without a word ({'; '.join(ways)})"
    return f"was lost ({type(error).__name__})"
