"""What of a cache may go: a decision over small records, without any I/O.

Garbage by itself are parts whose rows stand in a merged part too, manifests whose parts are gone, and outputs
with failed rows of runs that ended long ago. A policy may want more gone, by age or by size. Parts that no
output rests on hold units that a later run finds: they go only where a policy says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from distill_ray.cache.paths import FunctionId

REPLACED = "its rows stand in a merged part"

PRIVATE_SECONDS = 7 * 24 * 3600.0
"""Age at which an output that belongs to one run only goes: whoever ran it may still be reading the rows."""


NOTED_SECONDS = 24 * 3600.0
"""An output may have been used this much later than records say: see `distill_ray.cache.use_notes`."""


@dataclass(frozen=True)
class InUse:
    """What live runs use.

    Attributes:
        runs: ids of the runs that live.
        outputs: keys of the outputs that they read or write.
        functions: signatures of the functions they apply; None: not known of all, so it may be any.
    """

    runs: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()
    functions: frozenset[str] | None = frozenset()

    def uses(self, signature: str) -> bool:
        """Whether a run that lives may read or write parts of this function."""
        return self.functions is None or signature in self.functions

    def __or__(self, other: InUse) -> InUse:
        """What either uses."""
        known = (
            None if self.functions is None or other.functions is None else self.functions | other.functions
        )
        return InUse(self.runs | other.runs, self.outputs | other.outputs, known)

    def wrote(self, part: str) -> bool:
        """Whether a run that lives wrote the part of this name."""
        return any(part.startswith(f"{run}-") for run in self.runs)


@dataclass(frozen=True)
class PartFacts:
    """A part.

    Attributes:
        name: its name.
        size: its bytes.
        written: when the run that wrote it began; infinity: not known.
        replaced: whether its rows stand in a merged part too.
    """

    name: str
    size: int
    written: float
    replaced: bool = False


@dataclass(frozen=True)
class OutputFacts:
    """An output.

    Attributes:
        path: where its manifest stands.
        output_key: its key.
        size: bytes of the manifest.
        used: when the last run that used it began; infinity: not known.
        parts: names of the parts it rests on.
        broken: whether some of those are gone.
        private: whether it belongs to one run only.
    """

    path: str
    output_key: str
    size: int
    used: float
    parts: tuple[str, ...]
    broken: bool = False
    private: bool = False


@dataclass(frozen=True)
class FunctionFacts:
    """A function: its parts and its outputs.

    Attributes:
        place: the root it stands in.
        function: which.
        parts: its parts.
        outputs: its outputs.
    """

    place: str
    function: FunctionId
    parts: tuple[PartFacts, ...]
    outputs: tuple[OutputFacts, ...]

    @property
    def size(self) -> int:
        """Bytes of its parts and manifests."""
        return sum(part.size for part in self.parts) + sum(output.size for output in self.outputs)


@dataclass(frozen=True)
class Policy:
    """What is to go beside garbage.

    Attributes:
        now: seconds since 1970.
        older_than: seconds since the last use after which an output goes; None: age is no reason.
        max_size: bytes of parts and manifests that may stay; None: size is no reason.
    """

    now: float
    older_than: float | None = None
    max_size: int | None = None

    def is_old(self, time: float) -> bool:
        """Whether something last used then is to go."""
        return self.older_than is not None and time < self.now - self.older_than

    def is_unused(self, used: float) -> bool:
        """Whether an output that was last used then, as records have it, is to go.

        Uses on one day are recorded once, so it gets a day more; not where less than a day is asked for.
        """
        noted = self.older_than is not None and self.older_than >= NOTED_SECONDS
        return self.is_old(used + NOTED_SECONDS * noted)


@dataclass(frozen=True)
class Condemned:
    """Something that is to go.

    Attributes:
        place: the root it stands in.
        function: whose it is.
        name: a part's name, or the path of a manifest.
        size: its bytes.
        why: the reason, in words.
    """

    place: str
    function: FunctionId
    name: str
    size: int
    why: str


@dataclass(frozen=True)
class Choice:
    """What is to go, and what that leaves.

    Attributes:
        outputs: manifests.
        parts: parts.
        kept: bytes of parts and manifests that stay.
        held: bytes among those that a run which lives may use.
        over: bytes by which too much stays, where a size was asked for; all of it is in use.
    """

    outputs: tuple[Condemned, ...] = ()
    parts: tuple[Condemned, ...] = ()
    kept: int = 0
    held: int = 0
    over: int = 0

    @property
    def freed(self) -> int:
        """Bytes that come free."""
        return sum(each.size for each in (*self.outputs, *self.parts))


def choose(functions: Sequence[FunctionFacts], in_use: InUse, policy: Policy) -> Choice:
    """Say what is to go.

    A function that a live run uses is left as it is, and so is everything a live run wrote or names.
    """
    marks = [_Marks(each, in_use) for each in functions if not in_use.uses(each.function.signature)]
    untouched = sum(each.size for each in functions if in_use.uses(each.function.signature))
    for each in marks:
        each.mark_garbage(policy)
    over = 0
    if policy.max_size is not None:
        excess = untouched + sum(each.kept for each in marks) - policy.max_size
        over = max(0, _shrink(marks, excess))
    return _choice(functions, in_use, marks, over)


def choose_named(
    functions: Sequence[FunctionFacts], in_use: InUse, outputs: Container[tuple[str, str]], why: str
) -> Choice:
    """Say what goes where somebody names it: outputs, and the parts that nothing else rests on.

    Args:
        functions: those that the outputs are of. One without outputs loses all its parts.
        in_use: what stays, as in `choose`.
        outputs: the root and the path of each manifest that is to go.
        why: the reason, in words.
    """
    marks = [_Marks(each, in_use) for each in functions if not in_use.uses(each.function.signature)]
    for each in marks:
        each.mark_named(outputs, why)
    return _choice(functions, in_use, marks)


def _choice(
    functions: Sequence[FunctionFacts], in_use: InUse, marks: Sequence[_Marks], over: int = 0
) -> Choice:
    untouched = sum(each.size for each in functions if in_use.uses(each.function.signature))
    return Choice(
        outputs=tuple(each for mark in marks for each in mark.gone_outputs),
        parts=tuple(each for mark in marks for each in mark.gone_parts),
        kept=untouched + sum(each.kept for each in marks),
        held=untouched + sum(each.held for each in marks),
        over=over,
    )


def _shrink(marks: Sequence[_Marks], excess: int) -> int:
    """Let what was used longest ago go until so many bytes are free; return how many still are too many."""
    oldest_first = sorted(
        (used, number, name) for number, mark in enumerate(marks) for used, name in mark.by_use()
    )
    for _, number, name in oldest_first:
        if excess <= 0:
            break
        excess -= marks[number].let_go(name, "least recently used, to keep within the size")
    return excess


class _Marks:
    """What goes and what stays of one function."""

    def __init__(self, facts: FunctionFacts, in_use: InUse) -> None:
        self._facts = facts
        self._parts = {part.name: part for part in facts.parts}
        self._outputs = {output.path: output for output in facts.outputs}
        self._rests_on = Counter(name for output in facts.outputs for name in set(output.parts))
        kept = [output for output in facts.outputs if output.output_key in in_use.outputs]
        self._fixed = {output.path for output in kept}
        self._fixed |= {name for output in kept for name in output.parts}
        self._fixed |= {part.name for part in facts.parts if in_use.wrote(part.name)}
        self.gone_outputs: list[Condemned] = []
        self.gone_parts: list[Condemned] = []

    @property
    def kept(self) -> int:
        """Bytes that stay."""
        return sum(self._sizes().values())

    @property
    def held(self) -> int:
        """Bytes that stay whatever the policy."""
        return sum(size for name, size in self._sizes().items() if name in self._fixed)

    def mark_garbage(self, policy: Policy) -> None:
        """Let go what nobody needs, or what the policy finds too old."""
        for output in self._facts.outputs:
            if output.path in self._fixed:
                continue
            if output.broken:
                self._drop(output.path, "parts of it are gone")
            elif output.private and policy.now - output.used > PRIVATE_SECONDS:
                self._drop(output.path, "it belonged to a run that ended long ago")
            elif policy.is_unused(output.used):
                self.let_go(output.path, "not used for longer than asked")
        for part in self._facts.parts:
            if part.name in self._parts and self._is_free(part.name):
                if part.replaced:
                    self._remove(part.name, REPLACED)
                elif policy.is_old(part.written):
                    self._remove(part.name, "of no output, and older than asked")

    def mark_named(self, outputs: Container[tuple[str, str]], why: str) -> None:
        """Let the named outputs go, and where none is left whatever no output rests on."""
        for output in self._facts.outputs:
            if (self._facts.place, output.path) in outputs and output.path not in self._fixed:
                self.let_go(output.path, why)
        if not self._outputs:
            for name in [name for name in self._parts if self._is_free(name)]:
                self._remove(name, why)

    def by_use(self) -> Iterator[tuple[float, str]]:
        """What may go and when it was used: outputs, and parts that no output rests on."""
        for output in self._outputs.values():
            if output.path not in self._fixed:
                yield output.used, output.path
        for part in self._parts.values():
            if self._is_free(part.name):
                yield part.written, part.name

    def let_go(self, name: str, why: str) -> int:
        """Let an output go with the parts that nothing else rests on, or a part; return the bytes freed."""
        if name in self._parts:
            return self._remove(name, why)
        parts = self._outputs[name].parts
        freed = self._drop(name, why)
        return freed + sum(
            self._remove(part, why) for part in set(parts) & self._parts.keys() if self._is_free(part)
        )

    def _sizes(self) -> dict[str, int]:
        sizes = {name: part.size for name, part in self._parts.items()}
        return sizes | {path: output.size for path, output in self._outputs.items()}

    def _is_free(self, part: str) -> bool:
        return self._rests_on[part] <= 0 and part not in self._fixed

    def _drop(self, path: str, why: str) -> int:
        output = self._outputs.pop(path)
        self._rests_on.subtract(set(output.parts))
        self.gone_outputs.append(self._condemn(path, output.size, why))
        return output.size

    def _remove(self, name: str, why: str) -> int:
        part = self._parts.pop(name)
        self.gone_parts.append(self._condemn(name, part.size, why))
        return part.size

    def _condemn(self, name: str, size: int, why: str) -> Condemned:
        return Condemned(self._facts.place, self._facts.function, name, size, why)
