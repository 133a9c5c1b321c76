"""The SHA-256 of weights, of a file or a folder, computed once for as long as no file changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

_SETTLED_SECONDS = 2.0  # a younger file may change again without its size or time telling
_known: dict[tuple[str, int, int, int], str] = {}


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file.

    It is remembered under the file's path, size and times, in this process and on disk. The time of
    modification alone can be set back; that of the last change of the file's record cannot.
    """
    real = path.resolve()
    stat = real.stat()
    key = (str(real), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    digest = _known.get(key) or _read_note(key)
    if digest is None:
        digest = _hash(real)
        if time.time() - max(stat.st_mtime, stat.st_ctime) < _SETTLED_SECONDS:
            return digest
        _write_note(key, digest)
    _known[key] = digest
    return digest


def folder_sha256(folder: Path) -> str:
    """Return the hexadecimal SHA-256 of a folder: of its files' names and contents.

    Hidden files and folders, and texts for readers (``.md``), do not count.
    """
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        if not is_hidden and path.suffix.lower() != ".md" and path.is_file():
            encoded = name.encode("utf-8", "surrogateescape")
            digest.update(len(encoded).to_bytes(8, "big") + encoded + bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _note_path(key: tuple[str, int, int, int]) -> Path:
    name = hashlib.sha256(key[0].encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return Path.home() / ".cache" / "distill_ray" / "digests" / f"{name}.json"


def _read_note(key: tuple[str, int, int, int]) -> str | None:
    try:
        note = json.loads(_note_path(key).read_bytes())
    except (OSError, RuntimeError, ValueError):
        return None
    if not isinstance(note, dict) or note.get("file") != list(key):
        return None
    digest = note.get("sha256")
    return digest if isinstance(digest, str) and len(digest) == 64 else None


def _write_note(key: tuple[str, int, int, int], digest: str) -> None:
    """Write the note for the next process; a home that cannot be written only costs the next one time."""
    with contextlib.suppress(OSError, RuntimeError):
        path = _note_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        draft.write_text(json.dumps({"file": list(key), "sha256": digest}))
        draft.replace(path)
