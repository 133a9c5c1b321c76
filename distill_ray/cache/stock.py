"""Stock of a whole root, as a collection needs it: facts for the decision, what is in use, and clutter."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from distill_ray.cache import paths
from distill_ray.cache.condemned import Clutter
from distill_ray.cache.gc import REPLACED, Condemned, FunctionFacts, InUse, OutputFacts, PartFacts
from distill_ray.cache.in_order import in_order
from distill_ray.cache.inventory import (
    Root,
    StoredFunction,
    StoredOutput,
    Tell,
    read_record,
    roots,
    walk_functions,
)
from distill_ray.cache.live_runs import RunWatcher
from distill_ray.cache.manifest import PartEntry
from distill_ray.cache.root_settings import read_settings
from distill_ray.cache.runs import Uses, begun, walk_runs
from distill_ray.cache.store import READERS
from distill_ray.storage import Storage


@dataclass(frozen=True)
class Cost:
    """What it took to compute something, and would take again.

    Attributes:
        seconds: seconds of computing, over all replicas.
        input_tokens: tokens that models read.
        output_tokens: tokens that models wrote.
    """

    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(
            self.seconds + other.seconds,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True)
class Stock:
    """What a root holds.

    Attributes:
        roots: the root and those within it that count; not those of another salt.
        functions: what is decided on.
        in_use: what live runs use.
        uses: who used what.
        clutter: what dead runs and other salts left.
    """

    roots: tuple[Root, ...]
    functions: tuple[FunctionFacts, ...]
    in_use: InUse
    uses: Uses
    clutter: tuple[Clutter, ...]

    def root(self, place: str) -> Root:
        """The root that stands there."""
        return next(root for root in self.roots if root.place == place)


def take_stock(storage: Storage, others: Iterable[Storage], watcher: RunWatcher, tell: Tell) -> Stock:
    """Walk a root.

    Args:
        storage: the root.
        others: roots that it is read together with.
        watcher: tells which runs live.
        tell: is told the names of runs and functions as they come.
    """
    everything = list(roots(storage, others))
    # Leases before heartbeats: who holds one has had a heartbeat since before.
    leases = [lease for root in everything for lease in _leases(root)]
    tell("heartbeats")
    in_use = watcher.look(everything)
    clutter = [lease for lease in leases if lease.run not in in_use.runs]
    salt = read_settings(storage).salt
    uses = Uses()
    functions: list[FunctionFacts] = []
    current: list[Root] = []
    for root in everything:
        if is_of_other_salt(root.place, salt):
            clutter += _other_salt(root, in_use)
            continue
        current.append(root)
        clutter += _leftovers(root, ("", paths.LEASES_FOLDER))
        private: list[StoredOutput] = []
        for run in walk_runs(root):
            tell(f"run {run.run}")
            uses.add(run)
            private += run.private
            clutter += _leftovers(root, [paths.run_folder(run.run)])
            if run.beats and run.run not in in_use.runs:
                path = paths.heartbeat(run.run)
                clutter.append(Clutter(kind="heartbeat", place=root.place, path=path, run=run.run))
        for function in walk_functions(root, private):
            tell(f"function {function.function.class_name}")
            functions.append(_facts(function, uses))
            folders = (function.function.folder, function.function.parts_folder)
            clutter += _leftovers(root, [*folders, function.function.outputs_folder])
    tell("heartbeats")
    in_use |= watcher.look_again(everything)  # what a run that began meanwhile wrote is in this stock
    return Stock(tuple(current), tuple(functions), in_use, uses, tuple(clutter))


def cost_of(stock: Stock, parts: Iterable[Condemned]) -> Cost:
    """What it would take to make parts again, but those whose rows stand in another."""

    def read(each: Condemned) -> Cost:
        store = stock.root(each.place).store
        index = store.read_index(each.function, PartEntry(each.name, each.size))
        return Cost(index.seconds, index.input_tokens, index.output_tokens) if index else Cost()

    costs = in_order(read, (each for each in parts if each.why != REPLACED))
    return sum(costs, Cost())


def is_of_other_salt(place: str, salt: str) -> bool:
    """Whether a root within the root is that of another salt than the root's, or within such a one."""
    return paths.is_salted(place) and not f"{place}/".startswith(f"{paths.salted_folder(salt)}/")


def _other_salt(root: Root, in_use: InUse) -> list[Clutter]:
    if in_use.runs.intersection(root.store.storage.folders(paths.RUNS_FOLDER)):
        return []
    size = sum(function.size for function in walk_functions(root))
    return [Clutter(kind="root", place=root.place, path="", size=size)]


def _leases(root: Root) -> list[Clutter]:
    storage = root.store.storage
    names = [name for name in storage.sizes(paths.LEASES_FOLDER) if paths.split_lease(name)]

    def read(name: str) -> Clutter:
        path = f"{paths.LEASES_FOLDER}/{name}"
        return Clutter(kind="lease", place=root.place, path=path, run=read_lease(root, path))

    return list(in_order(read, names))


def read_lease(root: Root, path: str) -> str:
    """The run that made a lease; empty where it is gone, or is none."""
    record = read_record(root.store, path)
    return str(record.get("run") or "") if isinstance(record, dict) else ""


def _leftovers(root: Root, folders: Iterable[str]) -> list[Clutter]:
    return [
        Clutter(kind="leftover", place=root.place, path=f"{folder}/{name}".lstrip("/"), size=size)
        for folder in folders
        for name, size in root.store.storage.leftovers(folder).items()
    ]


def _facts(function: StoredFunction, uses: Uses) -> FunctionFacts:
    replaced = _replaced(function)
    return FunctionFacts(
        place=function.root.place,
        function=function.function,
        parts=tuple(
            PartFacts(name, size, begun(name), name in replaced) for name, size in function.parts.items()
        ),
        outputs=tuple(
            OutputFacts(
                path=output.path,
                output_key=output.output_key,
                size=output.size,
                used=begun(uses.last_use(output)),
                parts=tuple(part.name for part in output.parts),
                broken=bool(function.missing(output)),
                private=output.private,
            )
            for output in function.outputs
        ),
    )


def _replaced(function: StoredFunction) -> set[str]:
    """Parts whose rows stand in a merged part; looked for only where some part is of no output."""
    if not function.loose():
        return set()
    store = function.root.store

    def replaces(name: str) -> tuple[str, ...]:
        index = store.read_index(function.function, PartEntry(name, function.parts[name]))
        return index.replaces if index else ()

    with ThreadPoolExecutor(READERS) as pool:
        return {name for names in pool.map(replaces, function.parts) for name in names}
