"""The commands, their exit codes and what they print, on the inline engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_ray import cli, errors
from distill_ray.cli.main import exit_code, main, resume_command

Write = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def run(script: Path | str, *options: str) -> int:
    return main(["run", str(script), "--engine", "inline", *options])


def document(capture: Capture) -> Any:
    """Standard output, which holds one JSON document and nothing else."""
    return json.loads(capture.readouterr().out)


def test_a_run_prints_what_it_gave(script: Write, capfd: Capture) -> None:
    assert run(script()) == 0
    out, err = capfd.readouterr()
    assert out == "Distiset({'default': {'train': 20}})\n"
    assert err == ""


def test_a_run_as_json_is_its_report(script: Write, capfd: Capture) -> None:
    assert run(script(), "--json") == 0
    record = document(capfd)
    assert record["status"] == "complete"
    assert record["steps"]["double"]["rows_computed"] == 20
    assert record["distiset"] == {"default": {"train": 20}}


def test_json_is_alone_on_standard_output_whatever_the_script_prints(script: Write, capfd: Capture) -> None:
    path = script()
    noise = 'import os\nprint("a print")\nos.system("echo a child")\nos.write(1, b"a library\\n")\n'
    path.write_text(
        noise + path.read_text().replace("        for row", '        print("a step")\n        for row')
    )
    assert run(path, "--json") == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["status"] == "complete"
    for text in ("a print", "a child", "a library", "a step"):
        assert text in err


def test_standard_output_is_itself_again_after_json(script: Write, capfd: Capture) -> None:
    assert run(script(), "--json") == 0
    capfd.readouterr()
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_no_cache_computes_anew(script: Write, capfd: Capture) -> None:
    path = script()
    for options, decision in (((), "compute"), ((), "hit"), (("--no-cache",), "forced")):
        _forget(path)
        capfd.readouterr()
        assert run(path, "--json", *options) == 0
        assert document(capfd)["steps"]["double"]["decision"] == decision


def test_a_parameter_changes_the_run(script: Write, capfd: Capture) -> None:
    assert run(script(), "--param", "double.factor=3") == 0
    _forget(script())
    assert main(["plan", str(script()), "--json", "--param", "double.factor=3"]) == 0
    assert document_after_text(capfd)["complete"]


def test_the_cache_dir_holds_the_run(script: Write, tmp_path: Path, cache_root: Path) -> None:
    assert run(script(), "--cache-dir", str(tmp_path / "other")) == 0
    assert (tmp_path / "other" / "format.json").is_file()
    assert not cache_root.exists()


def test_plan_runs_nothing(script: Write, capfd: Capture) -> None:
    assert main(["plan", str(script())]) == 0
    assert "A run would work on 2 of 2 steps: load, double." in capfd.readouterr().out
    _forget(script())
    assert main(["plan", str(script()), "--json"]) == 0
    record = document(capfd)
    assert record["steps"]["double"]["decision"] == "compute"
    assert not record["complete"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--param", "nope.factor=3"], "given for step 'nope', but the steps are: 'load', 'double'"),
        (["--param", "double.factr=3"], "Its runtime parameters: 'bad', 'batch_retries', 'batch_timeout'"),
        (["--param", "double.factor=x"], "'factor': Input should be a valid integer"),
        (["--param", "double"], "--param wants STEP.FIELD=VALUE, not 'double'"),
        (["--wat"], "No such option"),
        (["--engine", "wat"], "'wat' is not one of 'ray', 'inline'"),
    ],
)  # fmt: skip
def test_wrong_options_are_code_2_and_one_message(
    script: Write, capfd: Capture, options: list[str], message: str
) -> None:
    assert run(script(), *options) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_step_that_raises_is_code_1_and_shows_the_users_traceback(script: Write, capfd: Capture) -> None:
    assert run(script(), "--param", "double.bad=7") == 1
    err = capfd.readouterr().err
    assert "distill-ray: Step 'double', input rows 5 to 9: process() raised ValueError: 7 is bad" in err
    assert 'raise ValueError(f"{self.bad} is bad")' in err
    assert f'File "{script()}"' in err
    assert "/distill_ray/" not in err


def test_an_error_as_json_has_its_code_and_place(script: Write, capfd: Capture) -> None:
    assert run(script(), "--json", "--param", "double.bad=7") == 1
    record = document(capfd)
    assert (record["status"], record["exit_code"], record["error"]) == ("failed", 1, "StepError")
    assert (record["step"], record["rows"]) == ("double", [5, 10])
    assert "7 is bad" in record["message"]


def test_wrong_arguments_as_json_are_one_document_too(capfd: Capture) -> None:
    assert main(["run", "--json"]) == 2
    record = document(capfd)
    assert (record["exit_code"], record["message"]) == (2, "Missing argument 'SCRIPT[:PIPELINE]'.")


def test_a_script_that_raises_is_code_2(script: Write, capfd: Capture) -> None:
    assert run(script("1 / 0")) == 2
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_cache_root_that_cannot_be_used_is_code_3(script: Write, capfd: Capture) -> None:
    path = script()
    assert run(path, "--cache-dir", str(path)) == 3
    assert f"Cannot read {path}/format.json" in capfd.readouterr().err
    _forget(path)
    assert main(["plan", str(path), "--cache-dir", "nosuch://x"]) == 3
    assert "nosuch://x" in capfd.readouterr().err


def test_a_cache_root_of_another_format_is_code_3(script: Write, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "format.json").write_text('{"format": 99}')
    assert run(script(), "--cache-dir", str(tmp_path / "other")) == 3
    assert "format" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.StepError("s", "x"), 1),
        (errors.RowError("x"), 1),
        (errors.ParameterError("x"), 2),
        (errors.GraphError("x"), 2),
        (errors.SignatureError("x"), 2),
        (errors.CorruptObjectError("x"), 3),
        (errors.ModelError("x"), 4),
        (errors.ResourceError("x"), 4),
        (ZeroDivisionError(), 70),
        (KeyboardInterrupt(), 130),
        (errors.RunInterruptedError("x", signal=2), 130),
        (errors.RunInterruptedError("x", signal=15), 143),
    ],
)
def test_each_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_who_went_away_is_no_fault(script: Write, options: list[str]) -> None:
    command = [sys.executable, "-m", "distill_ray", "plan", str(script()), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


def test_what_is_printed_when_the_process_ends_is_not_beside_the_json(script: Write) -> None:
    path = script()
    path.write_text('import atexit\natexit.register(print, "late", flush=True)\n' + path.read_text())
    command = [sys.executable, "-m", "distill_ray", "plan", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["pipeline"] == "doubling"
    assert done.stderr == "late\n"


@pytest.mark.parametrize("command", [[], ["run"], ["submit"], ["plan"], ["demo"]])
def test_help_shows_an_example_and_says_what_each_option_does(command: list[str], capfd: Capture) -> None:
    assert main([*command, "--help"]) == 0
    text = capfd.readouterr().out
    assert "Example:" in text
    if command:
        for option in ("--json", "--cache-dir", "--no-cache", "--param"):
            assert option in text


def test_help_and_the_module_tell_the_same_exit_codes(capfd: Capture) -> None:
    main(["--help"])
    help_text = capfd.readouterr().out
    assert cli.main.__doc__ is not None
    for code in ("0", "1", "2", "3", "4", "70", "130", "141", "143"):
        for text in (help_text, cli.main.__doc__):
            assert any(line.split()[:1] == [code] for line in text.splitlines())


def _forget(path: Path) -> None:
    """As in a new process, where the script has not been read."""
    sys.modules.pop(path.stem, None)


def document_after_text(capture: Capture) -> Any:
    """The JSON document that follows what an earlier command printed."""
    text = capture.readouterr().out
    return json.loads(text[text.index("{\n") :])


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["run", "my file.py", "--engine", "inline"], "distill-ray run 'my file.py' --engine inline"),
        (["run", "p.py", "--no-cache"], "distill-ray run p.py"),
        (["run", "p.py", "--param", "load.limit=3"], "distill-ray run p.py --param load.limit=3"),
        (["run", "p.py", "--param", "generation.llm.api_key=sk-123456"], ""),
        (["run", "p.py", "--param=generation.llm.api_key=sk-123456"], ""),
        (["run", "p.py", "--cache-dir", "gs://bucket/cache?token=abcdefgh"], ""),
        (["run", "p.py", "--cache-dir=s3://me:abcdefgh@bucket/cache"], ""),
    ],
)
def test_a_run_goes_on_with_its_own_command_but_for_what_is_secret(arguments: list[str], shown: str) -> None:
    assert resume_command(arguments) == shown
