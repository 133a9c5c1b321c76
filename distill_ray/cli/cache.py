"""``distill-ray cache``: look into a cache root, and look after it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import click

from distill_ray.cache.inventory import (
    StoredFunction,
    StoredOutput,
    Tell,
    read_function,
    read_record,
    roots,
    walk_functions,
)
from distill_ray.cache.paths import RECORD_ENDING
from distill_ray.cache.root_settings import read_settings, set_salt
from distill_ray.cache.runs import Uses, read_uses, walk_runs
from distill_ray.cache.store import READERS
from distill_ray.cache.verify import Finding, Verifier
from distill_ray.cache.verify import repair as repair_damage
from distill_ray.cli.amounts import bytes_text, count_text, day_text, seconds_text, shown
from distill_ray.cli.bless import bless
from distill_ray.cli.cache_collect import compact, gc, rm
from distill_ray.cli.cache_root import CacheRoot, find_one, on_cache_root, sign_of_life, silent
from distill_ray.cli.options import Record


@click.group()
def cache() -> None:
    """Look into a cache root, and look after it.

    \b
    Example:
      distill-ray cache ls --cache-dir gs://team/cache
      distill-ray cache gc --older-than 30d --dry-run
      distill-ray cache verify --deep
    """


for command in (bless, gc, rm, compact):
    cache.add_command(command)


@cache.command()
@on_cache_root
def ls(root: CacheRoot) -> Record:
    """List the outputs: rows, bytes, last use, and the seconds and tokens that making them took.

    Parts that no output rests on, which interrupted runs left for the next one, are listed as `(units)`.
    """
    root.say(_LINE.format("class", "function", "output", "rows", "bytes", "last use", "seconds", "tokens"))
    functions: list[Record] = []
    count = size = 0
    place = ""
    with sign_of_life("Listing the cache") as tell:
        for function, uses in _walk(root, tell):
            record = _function_record(function, uses)
            count, size = count + 1, size + function.size
            if root.as_json:  # text is printed as it comes, and not held
                functions.append(record)
            if place != record["place"]:
                place = record["place"]
                root.say(f"in {shown(place)}:")
            for line in _lines(record):
                root.say(line)
    root.say(f"{count_text(count, 'function')}, {bytes_text(size)}")
    return {"cache": root.storage.url, "bytes": size, "functions": functions}


@cache.command()
@click.argument("entry")
@on_cache_root
def info(entry: str, root: CacheRoot) -> Record:
    """Show one function or output: what its signature was made from, its outputs and parts.

    ENTRY is a class, or the beginning of a function's signature or of an output key, as `ls` shows them;
    of what stands `in` a root of its own, with that before it: scopes/mine/Double.
    """
    found = find_one(root, entry)
    uses, private = read_uses(found.root, silent)
    with ThreadPoolExecutor(READERS) as readers:
        mine = [output for output in private if output.function == found.function]
        function = read_function(found.root, found.function, readers, mine)
    record = _function_record(function, uses)
    if found.output:
        record["outputs"] = [
            each for each in record["outputs"] if each["path"].endswith(f"{found.output}{RECORD_ENDING}")
        ]
    preimage = read_record(found.root.store, found.function.signature_file)
    known = preimage if isinstance(preimage, dict) else {}
    record["preimage"], record["code"] = known.get("preimage"), known.get("code", {})
    shown_paths = {each["path"] for each in record["outputs"]}
    named = {part.name for each in function.outputs if each.path in shown_paths for part in each.parts}
    record["parts"] = {
        name: size for name, size in sorted(function.parts.items()) if name in named or not found.output
    }
    for line in _info_lines(record):
        root.say(line)
    return {"cache": root.storage.url, **record}


@cache.command()
@on_cache_root
def du(root: CacheRoot) -> Record:
    """Say what takes up how many bytes: by class, by pipeline, and what is kept beside rows.

    A part on which outputs of several pipelines rest counts for each of them.
    """
    by_class: dict[str, int] = defaultdict(int)
    by_pipeline: dict[str, int] = defaultdict(int)
    others = {"parts of no output": 0, "manifests and preimages": 0}
    with sign_of_life("Measuring the cache") as tell:
        for function, uses in _walk(root, tell):
            by_class[function.function.class_name] += function.size
            for pipeline, parts in _parts_by_pipeline(function, uses).items():
                by_pipeline[pipeline] += sum(function.parts[name] for name in parts)
            loose = sum(function.parts[name] for name in function.loose())
            others["parts of no output"] += loose
            others["manifests and preimages"] += function.size - sum(function.parts.values())
        others["records of runs"] = sum(
            run.size for place in roots(root.storage, root.others) for run in walk_runs(place)
        )
    total = sum(by_class.values()) + others["records of runs"]
    for title, sizes in (("class", by_class), ("pipeline", by_pipeline), ("of this", others)):
        root.say(f"{'bytes':>10}  {title}")
        for name, size in sorted(sizes.items(), key=lambda each: -each[1]):
            root.say(f"{bytes_text(size):>10}  {shown(name)}")
        root.say()
    root.say(f"{bytes_text(total):>10}  in all")
    return {
        "cache": root.storage.url,
        "bytes": total,
        "by_class": dict(by_class),
        "by_pipeline": dict(by_pipeline),
        "other": others,
    }


@cache.command()
@click.option("--deep", is_flag=True, help="Read every part whole and compare its digests.")
@click.option("--repair", is_flag=True, help="Remove what is damaged: the next run computes it again.")
@on_cache_root
def verify(deep: bool, repair: bool, root: CacheRoot) -> Record:
    """Check the root: names and sizes against manifests, records, and with --deep every byte.

    Ends with exit code 1 where something is wrong, repaired or not.
    """
    with sign_of_life("Verifying the cache") as tell:
        verifier = Verifier(root.storage, root.others, tell)
        findings: list[Finding] = []
        for finding in verifier.verify(deep=deep):
            findings.append(finding)
            place = f"{finding.place}/{finding.path}".lstrip("/")
            root.say(shown(f"{finding.kind}: {place}: {finding.what}"))
        removed = repair_damage(root.storage, findings) if repair else 0
    seen = verifier.seen
    wrong = f"{count_text(len(findings), 'thing')} wrong" if findings else "nothing wrong"
    root.say(
        f"{count_text(seen.functions, 'function')}, {count_text(seen.outputs, 'output')}, "
        f"{count_text(seen.parts, 'part')} ({bytes_text(seen.size)}), "
        f"{count_text(seen.records, 'record')}: {wrong}"
    )
    if removed:
        root.say(f"{count_text(removed, 'object')} removed: the next run computes their rows again.")
    elif findings:
        root.say(
            "`distill-ray cache verify --repair` removes what is damaged, so that runs compute it again."
        )
        if not root.others and any(finding.kind == "missing" for finding in findings):
            root.say(
                "Where the root is read together with others, parts may be missing because they stand in "
                "those: name them too, each with --cache-dir."
            )
    return {
        "cache": root.storage.url,
        "deep": deep,
        **asdict(seen),
        "findings": [asdict(each) for each in findings],
        "removed": removed,
        "exit_code": int(bool(findings)),
    }


@cache.command()
@click.argument("value", required=False)
@click.option("--clear", is_flag=True, help="Take the salt away: what was stored without one counts again.")
@on_cache_root
def salt(value: str | None, clear: bool, root: CacheRoot) -> Record:
    """Show the root's salt, or give it another: disowns at once all that was stored under the one before.

    Nothing is removed: what was stored comes back with its salt, until `gc` removes what other salts left.
    """
    if value is not None and clear:
        raise click.UsageError("Give a salt or --clear, not both.")
    if value is None and not clear:
        settings = read_settings(root.storage)
    else:
        settings = set_salt(root.storage, value or "")
    root.say(f"The salt is '{settings.salt}'." if settings.salt else "The root has no salt.")
    return {"cache": root.storage.url, "salt": settings.salt}


_LINE = "{:<28} {:<12} {:<12} {:>12} {:>10} {:<16} {:>10} {:>14}"


def _walk(root: CacheRoot, tell: Tell) -> Iterator[tuple[StoredFunction, Uses]]:
    for place in roots(root.storage, root.others):
        uses, private = read_uses(place, tell)
        for function in walk_functions(place, private):
            tell(function.function.class_name)
            yield function, uses


def _function_record(function: StoredFunction, uses: Uses) -> Record:
    loose = function.loose()
    return {
        "place": function.root.place,
        "class": function.function.class_name,
        "function": function.function.signature,
        "bytes": function.size,
        "parts": len(function.parts),
        "units": {"parts": len(loose), "bytes": sum(function.parts[name] for name in loose)},
        "outputs": [_output_record(function, output, uses) for output in function.outputs],
    }


def _output_record(function: StoredFunction, output: StoredOutput, uses: Uses) -> Record:
    return {
        "output_key": output.output_key,
        "path": output.path,
        "rows": output.rows,
        "bytes": sum(part.size for part in output.parts),
        "run": output.run,
        "last_use": uses.last_use(output),
        "pipelines": sorted(uses.pipelines.get(output.output_key, ())),
        "seconds": output.seconds,
        "input_tokens": output.input_tokens,
        "output_tokens": output.output_tokens,
        "private": output.private,
        "missing": len(function.missing(output)),
        "parts": len(output.parts),
    }


def _lines(record: Record) -> Iterator[str]:
    """What `ls` says of a function."""
    named = (shown(record["class"])[:28], record["function"][:12])
    for each in record["outputs"]:
        tokens = each["input_tokens"] + each["output_tokens"]
        yield _LINE.format(
            *named,
            each["output_key"][:12],
            f"{each['rows']:,}",
            bytes_text(each["bytes"]),
            day_text(each["last_use"]),
            f"{each['seconds']:,.1f}",
            f"{tokens:,}",
        )
    if record["units"]["parts"]:
        yield _LINE.format(*named, "(units)", "", bytes_text(record["units"]["bytes"]), "", "", "")


def _info_lines(record: Record) -> Iterator[str]:
    yield shown(f"{record['class']}, function {record['function']}")
    yield f"{bytes_text(record['bytes'])} in all"
    for path, value in _leaves(record["preimage"]):
        yield shown(f"  {path} = {value}")
    for name in record["code"]:
        yield shown(f"  code of {name}")
    yield ""
    for each in record["outputs"]:
        yield (
            f"output {each['output_key']}: {count_text(each['rows'], 'row')} in "
            f"{count_text(each['parts'], 'part')}, {bytes_text(each['bytes'])}, last used "
            f"{day_text(each['last_use'])}, {seconds_text(each['seconds'])} of computing"
        )
        if each["pipelines"]:
            yield shown(f"  used by {', '.join(each['pipelines'])}")
        if each["missing"]:
            yield f"  {count_text(each['missing'], 'part')} missing: it is not believed"
    yield ""
    for name, size in record["parts"].items():
        yield f"part {name} {bytes_text(size)}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a preimage by their dotted paths, as short as a line."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif value is not None or path:
        text = json.dumps(value, ensure_ascii=False)
        yield path, text if len(text) <= 80 else f"{text[:77]}..."


def _parts_by_pipeline(function: StoredFunction, uses: Uses) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for output in function.outputs:
        parts = {part.name for part in output.parts} & function.parts.keys()
        for pipeline in uses.pipelines.get(output.output_key) or ("(none that left a record)",):
            found[pipeline] |= parts
    return found
