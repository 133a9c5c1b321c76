"""Tracebacks as a user needs them: of the user's own code, without the way that led there through ours."""

from __future__ import annotations

import traceback
from types import FrameType

from distill_ray.errors import DistillRayError
from distill_ray.signature.user_code import is_user_file


def user_traceback(error: BaseException) -> str:
    """Format an error as Python does, from the first line of the user's code on.

    What distill_ray refuses on purpose has said why: its traceback ends in the user's code too, and there is
    none where no line of the user's is in it.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    theirs = [n for n, (frame, _) in enumerate(frames) if is_user_file(frame.f_code.co_filename)]
    if isinstance(error, DistillRayError):
        return _only(frames[theirs[0] : theirs[-1] + 1], error) if theirs else ""
    if isinstance(error, SyntaxError) and not theirs:  # says itself where it is
        return "".join(traceback.format_exception_only(error)).rstrip()
    begin = error.__traceback__
    for _ in range(theirs[0] if theirs else 0):
        begin = begin.tb_next if begin else None
    return "".join(traceback.format_exception(type(error), error, begin)).rstrip()


def _only(frames: list[tuple[FrameType, int]], error: BaseException) -> str:
    stack = traceback.StackSummary.extract(iter(frames)).format()
    head = "Traceback (most recent call last):\n"
    return "".join([head, *stack, *traceback.format_exception_only(error)]).rstrip()
