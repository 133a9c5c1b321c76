"""The digest of a file of weights is right, and computed once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from distill_ray.models import weights_digest
from distill_ray.models.weights_digest import file_sha256


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def settled(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, taken for one that was written long ago."""
    monkeypatch.setattr(weights_digest, "_SETTLED_SECONDS", -1)
    return file


def test_a_changed_file_has_another_digest_even_at_once(file: Path) -> None:
    stat = file.stat()
    assert file_sha256(file) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_sha256(file) == hashlib.sha256(b"two").hexdigest()


def test_a_settled_file_is_read_once_by_this_process_and_the_next(
    settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = file_sha256(settled)
    monkeypatch.setattr(weights_digest, "_hash", None)
    assert file_sha256(settled) == digest
    weights_digest._known.clear()
    assert file_sha256(settled) == digest


def test_a_settled_file_changed_under_its_old_time_is_read_again(settled: Path) -> None:
    stat = settled.stat()
    assert file_sha256(settled) == hashlib.sha256(b"one").hexdigest()
    settled.write_bytes(b"two")
    os.utime(settled, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_sha256(settled) == hashlib.sha256(b"two").hexdigest()


def test_a_note_that_is_torn_is_not_believed(settled: Path) -> None:
    digest = file_sha256(settled)
    [note] = (Path.home() / ".cache" / "distill_ray" / "digests").iterdir()
    for text in ("{", "[]", '{"file": []}', note.read_text().replace(digest, digest[:5])):
        weights_digest._known.clear()
        note.write_text(text)
        assert file_sha256(settled) == digest


def test_a_home_that_cannot_be_written_only_costs_time(
    settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(settled))
    assert file_sha256(settled) == hashlib.sha256(b"one").hexdigest()
