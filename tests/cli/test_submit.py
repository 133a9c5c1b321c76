"""``distill-ray submit`` where it refuses, before anything is sent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_ray.cli.main import main

Write = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "DISTILL_RAY_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "Say which cluster: --address http://HOST:8265"),
        (["--address", NOWHERE], 4, f"There is no cluster to be reached at '{NOWHERE}'"),
        (["--address", NOWHERE, "--cache-dir", "cache"], 2, "'cache' would lie in the job's copy"),
        (["--address", NOWHERE, "--cache-dir", "file://cache"], 2, "would lie in the job's copy"),
        (["--address", NOWHERE, "--env", "=1"], 2, "--env wants NAME or NAME=VALUE, not '=1'"),
        (["--address", NOWHERE, "--env", "NO_SUCH_ONE"], 2, "this shell has no such variable"),
        (["--address", NOWHERE, "--param", "ask.llm.api_key=sk-1234567"], 2, "would show a credential"),
        (["--address", NOWHERE, "--verify", "2"], 2, "2.0 is not in the range"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    script: Write, capfd: Capture, options: list[str], code: int, message: str
) -> None:
    assert main(["submit", str(script()), *options]) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_the_cluster_may_be_named_by_the_environment(
    script: Write, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", NOWHERE)
    assert main(["submit", str(script())]) == 4
    assert NOWHERE in capfd.readouterr().err
    # What is given goes first, although Ray itself would have the environment win.
    assert main(["submit", str(script()), "--address", "http://127.0.0.1:7"]) == 4
    assert "http://127.0.0.1:7" in capfd.readouterr().err
    assert os.environ["RAY_ADDRESS"] == NOWHERE


def test_a_script_outside_of_the_folder_that_is_shipped_is_refused(
    script: Write, capfd: Capture, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    options = ["--address", NOWHERE, "--working-dir", str(tmp_path / "elsewhere")]
    assert main(["submit", str(script()), *options]) == 2
    assert "does not lie in --working-dir" in capfd.readouterr().err
    assert main(["submit", str(tmp_path / "none.py"), *options]) == 2
    assert "There is no script" in capfd.readouterr().err


def test_a_folder_that_is_too_large_is_refused_and_what_is_large_in_it_named(tmp_path: Path) -> None:
    from distill_ray.engine.on_ray.shipping import check_size
    from distill_ray.errors import ParameterError

    def put(name: str, mib: int) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(mib << 20)

    put("weights/model.gguf", 400)
    put("data.jsonl", 200)
    put(".venv/lib/huge.so", 4000)
    with pytest.raises(ParameterError, match="holds 600 MiB") as refused:
        check_size(tmp_path)
    assert "400 MiB  weights\n  200 MiB  data.jsonl\n" in str(refused.value)
    assert ".rayignore" in str(refused.value)
    (tmp_path / ".rayignore").write_text("weights/\n")
    check_size(tmp_path)
    put("weights2/model.gguf", 400)
    (tmp_path / ".gitignore").write_text("/weights2/\n")
    check_size(tmp_path)


def test_a_python_without_what_distill_ray_needs_says_so(tmp_path: Path) -> None:
    # As good as not installed: what stands in the working directory comes first.
    (tmp_path / "click.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'click'\", name='click')\n"
    )
    command = [sys.executable, "-m", "distill_ray", "run", "x.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert "distill-ray: the module 'click' is not installed for" in done.stderr
    assert "Traceback" not in done.stderr
