"""The commands that look after a cache root, on roots that runs have made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_ray.cache import paths
from distill_ray.cache.store import CacheStore
from distill_ray.cli.main import main
from distill_ray.storage import open_storage
from tests.cache.made_cache import (
    FUNCTION,
    key,
    live_run,
    part_names,
    put_merged,
    put_output,
    put_part,
    put_run,
    run_id,
)
from tests.cli.conftest import PIPELINE
from tests.damage import flip
from tests.gcs_server import GcsRoot

Write = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

ON_SCRIPT = "--engine", "inline"


@pytest.fixture
def ran(script: Write, capfd: Capture) -> Path:
    """A script that was run once."""
    path = script()
    assert main(["run", str(path), *ON_SCRIPT]) == 0
    capfd.readouterr()
    return path


@pytest.fixture
def made(cache_root: Path) -> CacheStore:
    """An empty root, to be filled by hand; the commands use it."""
    store = CacheStore(open_storage(str(cache_root)))
    store.claim()
    return store


def cache(*arguments: str) -> int:
    return main(["cache", *arguments])


def document(capfd: Capture, *arguments: str, code: int = 0) -> Any:
    """What the command prints as JSON."""
    assert cache(*arguments, "--json") == code
    return json.loads(capfd.readouterr().out)


def rows_computed(script: Path, capfd: Capture) -> int:
    """Run the script as in a new process, and give how many rows that made."""
    sys.modules.pop(script.stem, None)
    capfd.readouterr()
    assert main(["run", str(script), *ON_SCRIPT, "--json"]) == 0
    steps = json.loads(capfd.readouterr().out)["steps"]
    return int(sum(step["rows_computed"] for step in steps.values()))


# Looking.


def test_ls_lists_every_output_with_its_rows_and_last_use(ran: Path, capfd: Capture) -> None:
    listed = document(capfd, "ls")
    assert [each["class"] for each in listed["functions"]] == ["Double", "LoadDataFromDicts"]
    (output,) = listed["functions"][0]["outputs"]
    assert (output["rows"], output["pipelines"], output["missing"]) == (20, ["doubling"], 0)
    assert output["bytes"] > 0
    assert output["last_use"] == output["run"]
    assert cache("ls") == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[1].split()[:4] == [
        "Double", listed["functions"][0]["function"][:12], output["output_key"][:12], "20",
    ]  # fmt: skip
    assert err == ""


@pytest.mark.parametrize("command", ["ls", "du", "verify", "gc", "compact", "salt"])
def test_a_place_that_no_run_used_is_no_root(command: str, capfd: Capture) -> None:
    """A misspelled one must not pass for one in which nothing is wrong."""
    assert cache(command) == 3
    assert "There is no cache root at" in capfd.readouterr().err


@pytest.mark.usefixtures("made")
def test_an_empty_root_holds_nothing_and_nothing_is_wrong(capfd: Capture) -> None:
    assert document(capfd, "ls")["functions"] == []
    assert document(capfd, "verify", "--deep")["findings"] == []
    assert document(capfd, "gc", "--older-than", "1d")["bytes"] == 0
    assert document(capfd, "du")["bytes"] == 0
    assert document(capfd, "compact")["written"] == 0


def test_a_later_run_counts_as_a_use_of_what_it_found(ran: Path, capfd: Capture) -> None:
    first = document(capfd, "ls")["functions"][0]["outputs"][0]
    assert rows_computed(ran, capfd) == 0
    again = document(capfd, "ls")["functions"][0]["outputs"][0]
    assert again["run"] == first["run"]
    assert again["last_use"] >= first["last_use"]


def test_units_of_interrupted_runs_are_listed_as_such(made: CacheStore, capfd: Capture) -> None:
    part = put_part(made, run_id())
    (function,) = document(capfd, "ls")["functions"]
    assert function["units"] == {"parts": 1, "bytes": part.size}
    assert cache("ls") == 0
    assert "(units)" in capfd.readouterr().out


@pytest.mark.parametrize("of", ["class", "function", "output"])
def test_info_shows_what_a_name_means(ran: Path, capfd: Capture, of: str) -> None:
    listed = document(capfd, "ls")["functions"][0]
    name = {
        "class": listed["class"],
        "function": listed["function"][:10],
        "output": listed["outputs"][0]["output_key"][:10],
    }[of]
    shown = document(capfd, "info", name)
    assert (shown["class"], shown["function"]) == ("Double", listed["function"])
    assert [each["rows"] for each in shown["outputs"]] == [20]
    assert len(shown["parts"]) == listed["outputs"][0]["parts"] == 1
    assert "factor" in json.dumps(shown["preimage"])
    assert cache("info", name) == 0
    out = capfd.readouterr().out
    assert "used by doubling" in out
    assert next(iter(shown["parts"])) in out


def test_a_name_that_means_nothing_or_several_things_is_an_error(made: CacheStore, capfd: Capture) -> None:
    assert cache("info", "nothing") == 2
    assert "Nothing in" in capfd.readouterr().err
    run = run_id()
    put_output(made, "a", run, [put_part(made, run)])
    other = FUNCTION.__class__(FUNCTION.class_name, "e" * 64)
    put_part(made, run, function=other)
    assert cache("info", "Answer") == 2
    assert f"means 2 things; give more of the one you mean:\n  Answer-{'e' * 64}" in capfd.readouterr().err


def test_of_equal_things_in_roots_within_the_root_the_text_of_each_means_it(
    made: CacheStore, capfd: Capture
) -> None:
    run = run_id()
    for store in (made, CacheStore(made.storage.below(paths.scope_folder("mine")))):
        put_output(store, "a", run, [put_part(store, run)])
    for name in (FUNCTION.class_name, FUNCTION.signature[:20], key("a")[:20]):
        assert cache("info", name) == 2
        first, second = capfd.readouterr().err.splitlines()[1:]
        assert document(capfd, "info", first.strip())["place"] == ""
        assert document(capfd, "info", second.strip())["place"] == "scopes/mine"
    assert document(capfd, "info", f"scopes/mine/{FUNCTION.class_name}")["place"] == "scopes/mine"
    assert cache("ls") == 0
    assert "in scopes/mine:" in capfd.readouterr().out.splitlines()
    assert document(capfd, "rm", second.strip(), "--yes")["outputs"] == 1
    assert made.read_manifest(FUNCTION, key("a")) is not None


def test_du_adds_up_by_class_and_by_pipeline(made: CacheStore, capfd: Capture) -> None:
    run = run_id()
    parts = [put_part(made, run, first) for first in (0, 10, 20)]
    put_output(made, "a", run, parts[:1])
    put_output(made, "b", run, parts[:2])
    put_run(made, run, ["a"], pipeline="one")
    put_run(made, run_id(), ["a", "b"], pipeline="two")
    used = document(capfd, "du")
    assert used["by_pipeline"] == {"one": parts[0].size, "two": parts[0].size + parts[1].size}
    assert used["other"]["parts of no output"] == parts[2].size
    files = [path for path in Path(made.storage.url).glob("*/**/*") if path.is_file()]
    assert used["bytes"] == sum(path.stat().st_size for path in files)
    assert cache("du") == 0
    assert "in all" in capfd.readouterr().out


# Verifying.


def test_verify_ends_with_1_where_something_is_wrong_and_a_repair_lets_runs_heal_it(
    ran: Path, cache_root: Path, capfd: Capture
) -> None:
    assert cache("verify", "--deep") == 0
    part = next(cache_root.glob("steps/Double-*/parts/*.parquet"))
    flip(part, 60)
    assert cache("verify") == 0, "sizes are right"
    capfd.readouterr()
    assert cache("verify", "--deep") == 1
    out = capfd.readouterr().out
    assert f"bit-flipped: {part.relative_to(cache_root)}" in out
    assert "1 thing wrong" in out
    found = document(capfd, "verify", "--deep", "--repair", code=1)
    assert (found["removed"], found["exit_code"]) == (2, 1)
    assert cache("verify", "--deep") == 0
    assert rows_computed(ran, capfd) == 20


# Collecting.


def test_gc_tells_first_and_then_does_what_it_told(made: CacheStore, capfd: Capture) -> None:
    old, new = run_id(40), run_id(1)
    put_output(made, "old", old, [put_part(made, old)])
    put_output(made, "new", new, [put_part(made, new, 10)])
    told = document(capfd, "gc", "--older-than", "30d", "--dry-run")
    assert len(part_names(made)) == 2
    assert (told["outputs"], told["parts"], told["cost"]["seconds"]) == (1, 1, 1.0)
    assert (told["cost"]["input_tokens"], told["cost"]["output_tokens"]) == (10, 20)
    done = document(capfd, "gc", "--older-than", "30d", "--grace", "0")
    assert done["removed"] == told["removed"]
    assert done["bytes"] == told["bytes"]
    assert done["swept"]["removed"] == 1
    assert len(part_names(made)) == 1
    assert made.read_manifest(FUNCTION, key("new")) is not None


def test_gc_waits_for_the_grace_period(made: CacheStore, capfd: Capture) -> None:
    run = run_id(40)
    put_output(made, "a", run, [put_part(made, run)])
    assert cache("gc", "--older-than", "30d", "--grace", "1s") == 0
    out = capfd.readouterr().out
    assert "1 output and 1 part may go" in out
    assert "Parts go in 1.0 s" in out
    assert "1 object removed" in out
    assert part_names(made) == set()


def test_gc_leaves_the_rest_to_the_next_one_where_it_is_not_to_wait(made: CacheStore, capfd: Capture) -> None:
    run = run_id(40)
    part = put_part(made, run)
    put_output(made, "a", run, [part])
    left = document(capfd, "gc", "--older-than", "30d", "--grace", "10m", "--no-wait")
    assert (left["swept"]["removed"], left["swept"]["waiting"]) == (0, part.size)
    assert part_names(made) == {part.name}
    assert made.read_manifest(FUNCTION, key("a")) is None


def test_gc_keeps_within_a_size_and_says_so_where_live_runs_stand_in_its_way(
    made: CacheStore, capfd: Capture
) -> None:
    for number in range(4):
        run = run_id(number + 1)
        put_output(made, str(number), run, [put_part(made, run, 10 * number)])
    with live_run(made, ["0"]) as run:
        held = document(capfd, "gc", "--max-size", "0", "--grace", "0")
        assert held["live_runs"] == [run]
        assert held["over_bytes"] == held["held_bytes"] == held["kept_bytes"] > 0
        assert len(part_names(made)) == 4
        assert cache("gc", "--max-size", "0", "--dry-run") == 0
        assert "more than asked for stay, since all that is left is in use" in capfd.readouterr().out
    limit = held["kept_bytes"] // 2 + 200
    assert document(capfd, "gc", "--max-size", f"{limit}B", "--grace", "0")["kept_bytes"] <= limit
    assert len(part_names(made)) == 2


def test_what_gc_removed_is_computed_again_and_nothing_else(ran: Path, capfd: Capture) -> None:
    assert document(capfd, "gc", "--older-than", "30d", "--grace", "0")["outputs"] == 0
    assert rows_computed(ran, capfd) == 0
    assert document(capfd, "gc", "--older-than", "0", "--max-size", "0", "--grace", "0")["outputs"] == 2
    assert rows_computed(ran, capfd) == 40


@pytest.mark.parametrize(
    ("option", "value"), [("--older-than", "30"), ("--older-than", "soon"), ("--max-size", "5 parsecs")]
)
def test_amounts_without_a_known_unit_are_errors(option: str, value: str, capfd: Capture) -> None:
    assert cache("gc", option, value) == 2
    assert "write it as" in capfd.readouterr().err


SLOW = """\
import time

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, RuntimeParameter, Step, StepInput, StepOutput


class Slow(Step):
    factor: RuntimeParameter[int] = 1

    @property
    def inputs(self):
        return ["n"]

    @property
    def outputs(self):
        return ["m"]

    def process(self, inputs: StepInput) -> StepOutput:
        time.sleep(0.05)
        for row in inputs:
            row["m"] = row["n"] * self.factor
        yield inputs


with Pipeline(name="slow") as pipeline:
    load = LoadDataFromDicts(name="load", data=[{"n": n} for n in range(60)])
    load >> Slow(name="slow", input_batch_size=2) >> Slow(name="last", factor=2, input_batch_size=4)
"""


def test_a_run_loses_nothing_to_the_sharpest_gc_beside_it(
    script: Write, cache_root: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads an old output, writes parts and merges them, while all that is not in use is removed."""
    monkeypatch.setenv("DISTILL_RAY_BEAT_SECONDS", "0.2")
    monkeypatch.setenv("DISTILL_RAY_FLUSH_SECONDS", "0.05")
    path = script(SLOW)
    command = [sys.executable, "-m", "distill_ray", "run", str(path), *ON_SCRIPT, "--json"]
    subprocess.run([*command, "--param", "slow.factor=7"], check=True, capture_output=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        collections = 0
        while len(list(cache_root.glob("runs/*/heartbeat.json"))) < 2 and run.poll() is None:
            time.sleep(0.01)
        while run.poll() is None:
            document(capfd, "gc", "--older-than", "0", "--max-size", "0", "--grace", "0")
            collections += 1
        assert run.stdout is not None
        report = json.loads(run.stdout.read())
    assert run.returncode == 0
    assert collections > 2
    assert report["distiset"] == {"default": {"train": 60}}
    computed = {name: step["rows_computed"] for name, step in report["steps"].items()}
    assert computed["slow"] == computed["last"] == 60, "each row once"
    assert computed["load"] == 0


# Removing by hand.


def test_rm_asks_and_says_what_it_costs(ran: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nobody, monkeypatch.context() as patched:
        patched.setattr("sys.stdin", nobody)
        assert cache("rm", "Double") == 130
    out, err = capfd.readouterr()
    assert "1 output and 1 part may go" in out
    assert "Making them again would take" in out
    assert "Remove them?" in err
    assert "Nothing was removed. --yes removes without asking." in err
    assert rows_computed(ran, capfd) == 0
    assert cache("rm", "Double", "--yes") == 0
    assert rows_computed(ran, capfd) == 20


def test_rm_of_an_output_leaves_what_others_rest_on(made: CacheStore, capfd: Capture) -> None:
    run = run_id()
    parts = [put_part(made, run, first) for first in (0, 10)]
    put_output(made, "a", run, parts[:1])
    put_output(made, "b", run, parts)
    assert document(capfd, "rm", key("b")[:12], "--yes")["parts"] == 1
    assert part_names(made) == {parts[0].name}
    assert made.read_manifest(FUNCTION, key("a")) is not None


def test_rm_of_a_pipeline_leaves_what_others_used(made: CacheStore, capfd: Capture) -> None:
    run = run_id()
    parts = [put_part(made, run, first) for first in (0, 10)]
    for name, part in zip("ab", parts, strict=True):
        put_output(made, name, run, [part])
    put_run(made, run, ["a", "b"], pipeline="mine")
    put_run(made, run_id(), ["a"], pipeline="theirs")
    for pipeline in ("mine", "theirs"):
        made.storage.publish(paths.latest_record(pipeline), b"{}")
    assert document(capfd, "rm", "--pipeline", "mine", "--yes")["outputs"] == 1
    assert part_names(made) == {parts[0].name}
    assert made.storage.folders("pipelines") in (["theirs"], ["mine", "theirs"])
    assert made.storage.sizes("pipelines/mine") == {}


def test_rm_of_a_pipeline_takes_the_root_that_it_keeps_to_itself(made: CacheStore, capfd: Capture) -> None:
    below = CacheStore(made.storage.below(paths.scope_folder("mine")))
    run = run_id()
    put_output(below, "a", run, [put_part(below, run)])
    assert cache("rm", "--pipeline", "mine", "--yes") == 0
    assert part_names(below) == set()


def test_rm_of_a_pipeline_that_never_ran_is_an_error(ran: Path, capfd: Capture) -> None:
    assert cache("rm", "--pipeline", "douling") == 2
    assert "has no pipeline 'douling'. It has: doubling." in capfd.readouterr().err


def test_rm_does_not_ask_where_there_is_nothing_to_remove(made: CacheStore, capfd: Capture) -> None:
    run = run_id()
    put_output(made, "a", run, [put_part(made, run)])
    with live_run(made, ["a"]):
        assert cache("rm", "Answer") == 0
    assert "Remove them?" not in capfd.readouterr().err


def test_rm_leaves_what_a_live_run_uses(made: CacheStore, capfd: Capture) -> None:
    run = run_id()
    put_output(made, "a", run, [put_part(made, run)])
    with live_run(made, ["a"]):
        assert document(capfd, "rm", "Answer", "--yes")["outputs"] == 0
    assert len(part_names(made)) == 1


@pytest.mark.usefixtures("made")
def test_rm_wants_to_know_what(capfd: Capture) -> None:
    assert cache("rm", "--yes") == 2
    assert "Say what to remove" in capfd.readouterr().err


# Merging.


def test_compact_merges_what_many_runs_left(made: CacheStore, capfd: Capture) -> None:
    parts = [put_part(made, run_id(number), 10 * number) for number in range(5)]
    put_output(made, "a", run_id(), parts)
    assert document(capfd, "compact", "--grace", "0")["merged"] == 5
    assert len(part_names(made)) == 1
    assert cache("verify", "--deep") == 0


def test_what_many_runs_appended_is_found_as_before_once_it_is_merged(script: Write, capfd: Capture) -> None:
    """A run for each five rows more: each adds a part to the same step function."""
    scripts = {
        count: script(PIPELINE.replace("range(20)", f"range({count})"), f"s{count}/cli_script.py")
        for count in (5, 10, 15, 20)
    }
    for path in scripts.values():
        assert rows_computed(path, capfd) > 0
    merged = document(capfd, "compact", "--grace", "0")
    assert (merged["merged"], merged["written"], merged["outputs"]) == (4, 1, 4)
    assert cache("verify", "--deep") == 0
    for path in scripts.values():
        assert rows_computed(path, capfd) == 0
    more = script(PIPELINE.replace("range(20)", "range(25)"), "s25/cli_script.py")
    assert rows_computed(more, capfd) == 25 + 5, "the source anew, and five rows"


def test_gc_removes_what_a_crashed_merge_left(made: CacheStore, capfd: Capture) -> None:
    run = run_id(1)
    small = [put_part(made, run, 10 * number) for number in range(3)]
    merged = put_merged(made, run, small)
    assert document(capfd, "gc", "--grace", "0")["why"] == {"its rows stand in a merged part": 3}
    assert part_names(made) == {merged.name}


# The salt.


def test_a_salt_disowns_what_was_stored_and_gives_it_back(ran: Path, capfd: Capture) -> None:
    assert document(capfd, "salt")["salt"] == ""
    assert document(capfd, "salt", "2026")["salt"] == "2026"
    assert rows_computed(ran, capfd) == 40
    assert cache("salt", "--clear") == 0
    assert capfd.readouterr().out == "The root has no salt.\n"
    assert rows_computed(ran, capfd) == 0
    assert cache("salt", "x", "--clear") == 2
    capfd.readouterr()
    assert cache("gc", "--dry-run") == 0
    assert "roots of another salt: 1, " in capfd.readouterr().out
    assert document(capfd, "gc", "--grace", "0")["clutter"]["root"] == 1
    assert document(capfd, "ls")["functions"][0]["place"] == ""
    assert len(document(capfd, "ls")["functions"]) == 2


# Roots.


def test_a_root_of_another_format_is_refused(cache_root: Path, capfd: Capture) -> None:
    cache_root.mkdir()
    (cache_root / "format.json").write_text('{"format": 99}')
    for command in (["ls"], ["verify"], ["gc"], ["du"], ["compact"], ["salt"], ["info", "x"]):
        assert cache(*command) == 3
        assert "format 99" in capfd.readouterr().err


def test_names_that_others_wrote_do_not_steer_the_terminal(made: CacheStore, capfd: Capture) -> None:
    run = run_id()
    evil = FUNCTION.__class__("\x1b[2Jevil", "e" * 64)
    put_output(made, "a", run, [put_part(made, run, function=evil)], function=evil)
    made.write_preimage(evil, {"x": "\x1b[31m"}, {})
    put_run(made, run, ["a"], pipeline="\x1b[1m", function=evil)
    for command in (["ls"], ["du"], ["info", "e" * 20], ["verify"]):
        assert cache(*command) == 0
        assert "\x1b" not in capfd.readouterr().out


def test_every_command_works_on_a_bucket(
    gcs_root: GcsRoot, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    import fsspec

    monkeypatch.setattr(fsspec.config, "conf", {"gs": gcs_root.storage_options})
    store = CacheStore(open_storage(gcs_root.url, gcs_root.storage_options))
    on = ("--cache-dir", gcs_root.url)
    old, run = run_id(40), run_id(1)
    put_output(store, "old", old, [put_part(store, old, 100)])
    put_output(store, "a", run, [put_part(store, run, 10 * number) for number in range(3)])
    put_run(store, run, ["a"])
    assert len(document(capfd, "ls", *on)["functions"][0]["outputs"]) == 2
    assert document(capfd, "info", "Answer", *on)["class"] == "Answer"
    assert document(capfd, "du", *on)["bytes"] > 0
    assert document(capfd, "gc", "--older-than", "30d", "--grace", "0", *on)["swept"]["removed"] == 1
    assert document(capfd, "compact", "--grace", "0", *on)["merged"] == 3
    assert document(capfd, "verify", "--deep", *on)["findings"] == []
    assert len(part_names(store)) == 1
    assert document(capfd, "rm", "Answer", "--yes", *on)["outputs"] == 1
    assert part_names(store) == set()
    assert document(capfd, "salt", "x", *on)["salt"] == "x"
