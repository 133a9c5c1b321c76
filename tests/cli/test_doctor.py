"""`distill-ray doctor` on this machine; tests/acceptance/test_nodes.py has it look at a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_ray.cli.doctor import HERE, Place, report_lines
from distill_ray.cli.main import main
from distill_ray.engine.inspection import Inspection, inspect_here
from distill_ray.storage import open_storage
from tests.clusters import free_ports


def test_a_root_that_can_be_used(cache_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert record["status"] == "usable"
    assert record["cache_dir"] == [str(cache_root)]
    (machine,) = record["machines"]
    assert machine["name"] == "this machine"
    assert machine["found"]["versions"].keys() == {"python", "ray", "pyarrow", "distill_ray"}
    assert machine["found"]["speed"]["exclusive"]
    assert list((cache_root / "probes").iterdir()) == []


def test_a_root_that_cannot_be_used_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--cache-dir", str(tmp_path / "file" / "root")]) == 3
    told = capsys.readouterr().out
    assert "this machine cannot use it:" in told
    assert "NotADirectoryError" in told
    assert "cannot be used from 1 of 1 machine." in told


def test_roots_that_are_only_read_are_looked_at_too(
    tmp_path: Path, gcs_endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fsspec.config.conf", {"gcs": {"endpoint_url": gcs_endpoint, "token": "anon"}})
    asked = ["doctor", "--cache-dir", str(tmp_path / "mine"), "--cache-dir", "gs://there-is-no-such-bucket"]
    assert main(asked) == 3
    assert "there-is-no-such-bucket" in capsys.readouterr().out.partition("cannot use it:")[2]


def test_a_cluster_that_is_not_there_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert main(["doctor", "--address", f"127.0.0.1:{port}"]) == 4
    assert f"No Ray cluster answers at 127.0.0.1:{port}" in capsys.readouterr().err

    assert main(["doctor", "--address", "http://127.0.0.1:8265"]) == 4
    assert "is the address of a cluster's dashboard" in capsys.readouterr().err


def test_what_differs_on_a_node_is_marked(tmp_path: Path) -> None:
    here = inspect_here(open_storage(str(tmp_path)))
    older = Inspection({**here.versions, "pyarrow": "17.0.0"}, ("metadata server",), 10**10, here.speed)
    lines = report_lines(
        "gs://bucket/prefix",
        [
            Place(HERE, HERE, here, ""),
            Place("one (10.0.0.1, node abc)", "10.0.0.1 abc", older, "", {"CPU": 8.0}, clock=-7.0),
            Place("two (10.0.0.2, node def)", "10.0.0.2 def", None, "no module", {"GPU": 1.0}),
        ],
    )
    text = "\n".join(lines)
    assert "17.0.0 !" in text
    assert "! another version than here" in text
    assert "Clocks differ by more than 5 s" in text
    assert "two (10.0.0.2, node def) cannot use it:\n  no module" in text
    assert "cannot be used from 1 of 3 machines" in text
    assert "the credentials" in text.splitlines()[-1]
    assert max(map(len, text.splitlines())) <= 100
