"""Standard output that holds one JSON document and nothing else, whatever scripts and libraries print."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def only_json(*, for_good: bool) -> Iterator[Callable[[str], None]]:
    """Give a function that writes to standard output; all else that is written there goes to standard error.

    The file descriptor itself is turned too, since libraries in C and child processes write to it.

    Args:
        for_good: what comes later goes to standard error too, as what Ray prints for its workers when the
            interpreter ends.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as document, redirect_stdout(sys.stderr):
            yield lambda text: print(text, file=document)
    finally:
        sys.stdout.flush()
        if not for_good:
            os.dup2(kept, 1)
        os.close(kept)
