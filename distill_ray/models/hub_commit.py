"""The commit that a revision of a Hugging Face Hub repository stands for: what identifies a model there."""

from __future__ import annotations

import re
import time
from pathlib import Path

ASK_AGAIN_SECONDS = 60.0
"""A branch moves; within this time it is taken to be where it was, as one plan asks several times."""

_TIMEOUT_SECONDS = 10.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_asked: dict[tuple[str, str], tuple[float, str | None]] = {}


def hub_commit(repository: str, revision: str | None = None) -> str | None:
    """Return the commit, as the Hub says or, where it cannot be asked, as this machine last heard.

    Args:
        repository: ``org/name``.
        revision: a commit, tag or branch; by default the main branch.

    Returns:
        40 hexadecimal digits; None where neither the Hub nor this machine knows the revision.
    """
    revision = revision or "main"
    if _COMMIT.fullmatch(revision):
        return revision
    key, now = (repository, revision), time.monotonic()
    known = _asked.get(key)
    if known is None or now - known[0] > ASK_AGAIN_SECONDS:
        known = _asked[key] = (now, _from_hub(repository, revision) or _last_heard(repository, revision))
    return known[1]


def _from_hub(repository: str, revision: str) -> str | None:
    import huggingface_hub

    try:
        found = huggingface_hub.HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_SECONDS)
    except Exception:  # offline, no such repository, no access: it is fetched without it, or `load` says why
        return None
    return found.sha


def _last_heard(repository: str, revision: str) -> str | None:
    """Return what the Hub's own cache remembers, which is what is loaded without the Hub."""
    from huggingface_hub import constants

    folder = f"models--{repository.replace('/', '--')}"
    note = Path(constants.HF_HUB_CACHE) / folder / "refs" / revision
    try:
        return note.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
