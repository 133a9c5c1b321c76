"""``distill-ray cache gc``, ``rm`` and ``compact``: what removes something of a cache root."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import click

from distill_ray.cache import paths
from distill_ray.cache.collection import Sweeper, Swept, condemn
from distill_ray.cache.compact import PART_BYTES, Compactor
from distill_ray.cache.condemned import Clutter
from distill_ray.cache.gc import Choice, FunctionFacts, OutputFacts, Policy, choose, choose_named
from distill_ray.cache.inventory import records_below, roots, walk_functions
from distill_ray.cache.live_runs import RunWatcher
from distill_ray.cache.lookup import Entry
from distill_ray.cache.runs import Uses, read_uses
from distill_ray.cache.stock import Cost, Stock, cost_of, take_stock
from distill_ray.cli.amounts import Duration, Size, bytes_text, cost_text, count_text, seconds_text, shown
from distill_ray.cli.cache_root import CacheRoot, find_one, on_cache_root, sign_of_life, silent
from distill_ray.cli.options import Record
from distill_ray.errors import ParameterError

_grace = click.option(
    "--grace",
    type=Duration(),
    default="10m",
    show_default=True,
    help="How long parts stay after their manifests: a run that began before may still read them.",
)
_wait = click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Stay until the parts are gone, or leave them to the next `gc` after the grace period.",
)


@click.command()
@click.option("--older-than", type=Duration(), help="Remove what no run used for so long, such as 30d.")
@click.option(
    "--max-size",
    type=Size(),
    help="Remove what was used longest ago, until no more than this is left, such as 500GB.",
)
@click.option("--dry-run", is_flag=True, help="Remove nothing: say what would go, and what it would cost.")
@_grace
@_wait
@on_cache_root
def gc(
    *,
    older_than: float | None,
    max_size: int | None,
    dry_run: bool,
    grace: float,
    wait: bool,
    root: CacheRoot,
) -> Record:
    """Remove garbage, and with --older-than or --max-size what was not used for longest.

    Safe beside running pipelines: whatever a live run reads or writes stays. Manifests go first; parts go
    after the grace period, unless a run has named them again. Interrupted, the next `gc` goes on with it.
    """
    watcher = RunWatcher()
    with sign_of_life("Collecting garbage") as tell:
        before = Swept() if dry_run else Sweeper(root.storage, watcher, tell).sweep(time.time())
        stock = take_stock(root.storage, root.others, watcher, tell)
        choice = choose(stock.functions, stock.in_use, Policy(time.time(), older_than, max_size))
        cost = cost_of(stock, choice.parts)
    _say_choice(root, choice, stock, cost, stock.clutter)
    record = _choice_record(choice, stock, cost, stock.clutter) | {"dry_run": dry_run}
    if dry_run:
        root.say("Nothing was removed: this was a dry run.")
        return {"cache": root.storage.url, **record}
    condemn(root.storage, choice, stock.clutter, now=time.time(), grace=grace)
    swept = _sweep(root, watcher, grace if wait and (choice.parts or stock.clutter) else 0.0)
    _say_swept(root, swept)
    return {"cache": root.storage.url, **record, "swept_before": asdict(before), "swept": asdict(swept)}


@click.command()
@click.argument("entries", nargs=-1, metavar="[ENTRY]...")
@click.option("--pipeline", help="Remove what only this pipeline used, and its records.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_cache_root
def rm(entries: tuple[str, ...], pipeline: str | None, yes: bool, root: CacheRoot) -> Record:
    """Remove outputs, functions, or what only one pipeline used; says first what making them again costs.

    ENTRY is a class, or the beginning of a function's signature or of an output key, as `ls` shows them.
    What a live run uses stays.
    """
    if not entries and pipeline is None:
        raise click.UsageError("Say what to remove: an ENTRY as `ls` shows it, or --pipeline NAME.")
    named = [find_one(root, entry) for entry in entries]
    watcher = RunWatcher()
    with sign_of_life("Looking at the cache") as tell:
        stock = take_stock(root.storage, root.others, watcher, tell)
        chosen = {
            (facts.place, output.path)
            for facts in stock.functions
            for output in facts.outputs
            if any(_is_meant(each, facts, output) for each in named)
            or (pipeline is not None and _is_only_of(pipeline, facts, output, stock.uses))
        }
        whole = {(each.root.place, each.function) for each in named}
        of_chosen = [
            facts
            for facts in stock.functions
            if (facts.place, facts.function) in whole
            or any((facts.place, output.path) in chosen for output in facts.outputs)
        ]
        choice = choose_named(of_chosen, stock.in_use, chosen, "removed by hand")
        cost = cost_of(stock, choice.parts)
        records = _records_of(pipeline, stock) if pipeline is not None else {}
    _say_choice(root, choice, stock, cost)
    if not yes and (choice.outputs or choice.parts or records):
        _ask()
    condemn(root.storage, choice, now=time.time(), grace=0.0)
    swept = Sweeper(root.storage, watcher, silent).sweep(time.time())
    for place in stock.roots:
        place.store.storage.delete(records.get(place.place, ()))
    _say_swept(root, swept)
    return {"cache": root.storage.url, **_choice_record(choice, stock, cost), "swept": asdict(swept)}


@click.command()
@click.option(
    "--part-size", type=Size(), default=PART_BYTES, help="Bytes that a part is to have. [default: 12 MiB]"
)
@_grace
@_wait
@on_cache_root
def compact(part_size: int, grace: float, wait: bool, root: CacheRoot) -> Record:
    """Merge the small parts that many runs left into few large ones; outputs then rest on these.

    No row changes and nothing is computed again. What a live run uses is left as it is.
    """
    watcher = RunWatcher()
    compactor = Compactor(part_size)
    condemned = 0
    with sign_of_life("Merging parts") as tell:
        everything = list(roots(root.storage, root.others))
        in_use = watcher.look(everything)
        for place in everything:
            _, private = read_uses(place, tell)
            for function in walk_functions(place, private):
                tell(function.function.class_name)
                choice = compactor.compact(function, in_use)
                condemned += len(choice.parts)
                condemn(root.storage, choice, now=time.time(), grace=grace)
    done = compactor.done
    root.say(
        f"{count_text(done.merged, 'part')} merged into {done.written:,}; "
        f"{count_text(done.outputs, 'output')} rest on these now."
    )
    if done.damaged:
        root.say(
            f"{count_text(done.damaged, 'group')} of parts left alone, since one of each is damaged: "
            "`distill-ray cache verify --deep` says more."
        )
    swept = _sweep(root, watcher, grace if wait and condemned else 0.0)
    _say_swept(root, swept)
    return {"cache": root.storage.url, **asdict(done), "swept": asdict(swept)}


def _is_meant(entry: Entry, facts: FunctionFacts, output: OutputFacts) -> bool:
    if (entry.root.place, entry.function) != (facts.place, facts.function):
        return False
    return (
        not entry.output
        or output.path == f"{entry.function.outputs_folder}/{entry.output}{paths.RECORD_ENDING}"
    )


def _is_only_of(pipeline: str, facts: FunctionFacts, output: OutputFacts, uses: Uses) -> bool:
    """Whether no other pipeline's runs used an output, as far as these left a record."""
    return _is_its_own(facts.place, pipeline) or uses.pipelines.get(output.output_key) == {pipeline}


def _is_its_own(place: str, pipeline: str) -> bool:
    """Whether a pipeline keeps a root within the root to itself."""
    return f"{place}/".endswith(f"{paths.scope_folder(pipeline)}/")


def _records_of(pipeline: str, stock: Stock) -> dict[str, list[str]]:
    """The records of a pipeline, by the roots that have some.

    Raises:
        ParameterError: no root has any, and no run was one of the pipeline.
    """
    folder = paths.pipeline_folder(pipeline)
    found = {place.place: list(records_below(place.store.storage, folder)) for place in stock.roots}
    records = {place: some for place, some in found.items() if some}
    known = {name for names in stock.uses.pipelines.values() for name in names}
    if not records and pipeline not in known and not any(_is_its_own(place, pipeline) for place in found):
        listed = f"It has: {', '.join(map(shown, sorted(known)))}." if known else "No run left a record."
        raise ParameterError(f"The cache root has no pipeline '{shown(pipeline)}'. {listed}")
    return records


def _ask() -> None:
    try:
        click.confirm("Remove them?", abort=True, err=True)
    except click.Abort:
        click.echo("\nNothing was removed. --yes removes without asking.", err=True)
        raise


def _sweep(root: CacheRoot, watcher: RunWatcher, seconds: float) -> Swept:
    """Wait, then remove what may go."""
    with sign_of_life("Removing") as tell:
        if seconds:
            root.say(
                f"Parts go in {seconds_text(seconds)}; if this is stopped, the next `gc` goes on with it."
            )
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                tell(f"parts go in {seconds_text(left)}")
                time.sleep(min(1.0, left))
        return Sweeper(root.storage, watcher, tell).sweep(time.time())


def _choice_record(choice: Choice, stock: Stock, cost: Cost, clutter: Sequence[Clutter] = ()) -> Record:
    return {
        "outputs": len(choice.outputs),
        "parts": len(choice.parts),
        "bytes": choice.freed,
        "clutter": dict(Counter(each.kind for each in clutter)),
        "clutter_bytes": sum(each.size for each in clutter),
        "cost": asdict(cost),
        "kept_bytes": choice.kept,
        "held_bytes": choice.held,
        "over_bytes": choice.over,
        "why": dict(Counter(each.why for each in (*choice.outputs, *choice.parts))),
        "live_runs": sorted(stock.in_use.runs),
        "removed": [
            {"place": each.place, "class": each.function.class_name, "function": each.function.signature}
            | {"name": each.name, "bytes": each.size, "why": each.why}
            for each in (*choice.outputs, *choice.parts)
        ],
    }


def _say_choice(
    root: CacheRoot, choice: Choice, stock: Stock, cost: Cost, clutter: Sequence[Clutter] = ()
) -> None:
    root.say(
        f"{count_text(len(choice.outputs), 'output')} and {count_text(len(choice.parts), 'part')} may go: "
        f"{bytes_text(choice.freed)}; {bytes_text(choice.kept)} stay."
    )
    for why, number in Counter(each.why for each in (*choice.outputs, *choice.parts)).most_common():
        root.say(f"  {number:,}: {why}")
    for kind, number in Counter(each.kind for each in clutter).most_common():
        size = sum(each.size for each in clutter if each.kind == kind)
        root.say(f"  {_CLUTTER[kind]}: {number:,}" + (f", {bytes_text(size)}" if size else ""))
    if choice.parts:
        root.say(f"Making them again would take {cost_text(cost)}.")
    if choice.held:
        runs = ", ".join(sorted(stock.in_use.runs)[:3])
        root.say(f"{bytes_text(choice.held)} stay in any case: live runs may use them ({runs}).")
    if choice.over:
        root.say(f"{bytes_text(choice.over)} more than asked for stay, since all that is left is in use.")


def _say_swept(root: CacheRoot, swept: Swept) -> None:
    root.say(f"{count_text(swept.removed, 'object')} removed: {bytes_text(swept.freed)}.")
    if swept.named_again:
        root.say(f"{count_text(swept.named_again, 'part')} stay, since a run has named them again.")
    if swept.in_use:
        root.say(f"{count_text(swept.in_use, 'object')} stay for now, since live runs may use them.")
    if swept.waiting:
        root.say(
            f"{bytes_text(swept.waiting)} wait for their grace period: the next `distill-ray cache gc` after "
            f"{seconds_text(swept.due_in)} removes them."
        )


_CLUTTER = {
    "leftover": "left of writes that were cut off",
    "lease": "leases of runs that ended",
    "heartbeat": "heartbeats of runs that ended",
    "root": "roots of another salt",
}
