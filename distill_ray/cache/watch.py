"""Tells from a run's heartbeat, looked at now and then, whether the run lives. Does no I/O.

Only the watcher's own clock counts, and only whether the content changes: clocks need not agree.
"""

from __future__ import annotations

from distill_ray.cache.heartbeat import Beat
from distill_ray.cache.process import is_gone

SILENT_BEATS = 4
"""A run whose heartbeat does not change for so many of its beats is dead."""


class Watch:
    """Watches one run. A run that was only paused, and goes on later, lives again.

    Args:
        beat_seconds: seconds from one beat of the run to the next.

    Attributes:
        beat: what its heartbeat said last; None where it has none that can be read.
    """

    def __init__(self, beat_seconds: float) -> None:
        self._silence = SILENT_BEATS * beat_seconds
        self._content: bytes | None = None
        self._since: float | None = None
        self.beat: Beat | None = None

    def is_dead(self, content: bytes | None, asked: float, answered: float) -> bool:
        """Take in a look at the heartbeat; say whether its run has ended or is dead.

        Args:
            content: the heartbeat as it stood; None: there was none.
            asked: when the look began, by a clock that never goes back.
            answered: when it ended: the content is from some moment in between.
        """
        if self._since is None or content != self._content:
            self._content, self._since = content, answered
            self.beat = None if content is None else Beat.from_json(content)
        if self.beat is not None and (self.beat.status == "ended" or is_gone(self.beat.process)):
            return True
        return asked - self._since >= self._silence
