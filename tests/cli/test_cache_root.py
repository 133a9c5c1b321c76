"""What the commands of `cache` share: the roots they open, and a sign of life on a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_ray.cache.store import CacheStore
from distill_ray.cli.cache_root import sign_of_life
from distill_ray.cli.main import main
from distill_ray.storage import open_storage
from tests.cache.made_cache import part_names, put_output, put_part, run_id

Capture = pytest.CaptureFixture[str]


def test_on_a_terminal_it_says_what_is_being_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("DISTILL_RAY_PROGRESS", "auto")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with sign_of_life("Looking") as tell:
        tell("this")
        tell("that")
    out, err = capsys.readouterr()
    assert out == ""
    assert "Looking" in err


def test_elsewhere_it_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("DISTILL_RAY_PROGRESS", "auto")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with sign_of_life("Looking") as tell:
        tell("this")
    assert capsys.readouterr() == ("", "")


def test_with_progress_a_document_is_still_alone_on_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setenv("DISTILL_RAY_PROGRESS", "auto")
    monkeypatch.setenv("FORCE_COLOR", "1")
    root = CacheStore(open_storage(str(tmp_path / "used")))
    root.claim()
    assert main(["cache", "gc", "--json", "--cache-dir", root.storage.url]) == 0
    assert json.loads(capfd.readouterr().out)["bytes"] == 0


def test_a_root_may_be_read_together_with_others_of_which_nothing_is_changed(
    tmp_path: Path, capfd: Capture
) -> None:
    mine, shared = (CacheStore(open_storage(str(tmp_path / name))) for name in ("mine", "shared"))
    run = run_id(40)
    part = put_part(shared, run)
    put_output(mine, "a", run, [part, put_part(mine, run, 10)])
    both = ["--cache-dir", mine.storage.url, "--cache-dir", shared.storage.url]
    assert main(["cache", "verify", "--deep", *both]) == 0
    capfd.readouterr()
    assert main(["cache", "verify", *both[:2]]) == 1
    assert "name them too, each with --cache-dir" in capfd.readouterr().out
    assert main(["cache", "gc", "--max-size", "0", "--grace", "0", *both]) == 0
    assert part_names(mine) == set()
    assert part_names(shared) == {part.name}
    capfd.readouterr()
