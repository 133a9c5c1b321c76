"""Single flight: one run computes an output at a time; others take over what it stores as it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from distill_ray.cache.catalog import StoreCatalog
from distill_ray.cache.lease import Busy, Held, Leases
from distill_ray.engine.messages import Event, Failure, UnitsFound
from distill_ray.engine.tidying import tidying
from distill_ray.plan import StepPlan

LOOKS = 30
"""Looks in a row that may fail before the run does: the storage may be down for a while."""


class SingleFlight:
    """The leases of a run, and what it knows of runs that hold others.

    Args:
        catalog: the run's cache root.
        leases: takes the run's leases; its heartbeat has begun.
        beat_seconds: seconds between two looks at what other runs do.

    Attributes:
        busy: who computes outputs that this run needs too, by output key.
    """

    def __init__(self, catalog: StoreCatalog, leases: Leases, beat_seconds: float) -> None:
        self.catalog = catalog
        self.beat_seconds = beat_seconds
        self.busy: dict[str, Busy] = {}
        self._leases = leases
        self._held: dict[str, Held] = {}
        self._awaited: set[str] = set()

    def take(self, outputs: Mapping[str, str]) -> set[str]:
        """Take what is free of some outputs, and note who holds the others.

        Args:
            outputs: ``{output key: what this run calls the step}``.

        Returns:
            The keys of those that are this run's now and were not before.
        """
        missing = {key: step for key, step in outputs.items() if key not in self._held}
        found = self._leases.acquire(missing) if missing else {}
        taken = {key: held for key, held in found.items() if isinstance(held, Held)}
        self._held.update(taken)
        self.busy = {key: busy for key, busy in found.items() if isinstance(busy, Busy)}
        return set(taken)

    def wait(self, outputs: Mapping[str, str]) -> None:
        """Let those who compute these outputs know that this run reads what they store."""
        self._leases.wait(outputs)
        self._awaited.update(outputs)

    def written(self, output_key: str) -> None:
        """An output's manifest stands: nobody needs to wait for this run."""
        held = self._held.pop(output_key, None)
        if held is not None:
            with tidying("The lease of an output that is complete"):
                self._leases.release(held)

    def read_by_others(self, output_keys: Iterable[str]) -> set[str]:
        """Those of this run's outputs whose parts other runs may be reading, also merged ones."""
        return self._leases.awaited(output_keys)

    def leave(self) -> None:
        """Say that this run reads no more of what others stored: at its end."""
        with tidying("What says that this run waits for others"):
            self._leases.leave(self._awaited)


class Watcher:
    """Looks every beat, on a thread of its own, at what other runs do of the steps that this run waits for.

    Args:
        flight: the run's leases.
        steps: the steps that are to run, by name.
        report: is given the events.

    Attributes:
        awaited: the steps that other runs compute.
    """

    def __init__(
        self, flight: SingleFlight, steps: Mapping[str, StepPlan], report: Callable[[Event], None]
    ) -> None:
        self._flight = flight
        self.awaited = frozenset(name for name, step in steps.items() if step.output_key in flight.busy)
        self._steps = {name: steps[name] for name in self.awaited}
        self._report = report
        self._known = {name: {part.name for part, _ in step.indexes} for name, step in self._steps.items()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="distill-ray-watcher", daemon=True)

    def start(self) -> None:
        """Say what is awaited, and begin."""
        for name, step in self._steps.items():
            self._report(UnitsFound(name, holder=self._flight.busy[step.output_key].holder))
        self._thread.start()

    def stop(self, *, wait: bool = True) -> None:
        """End, once the look under way has ended, which may be waited for."""
        self._stop.set()
        if wait and self._thread.ident is not None:
            self._thread.join()

    def _go_on(self) -> None:
        failed = 0
        while self._steps and not self._stop.wait(self._flight.beat_seconds):
            trouble = self._try()
            failed = failed + 1 if trouble else 0
            if failed == LOOKS:
                self._give_up(trouble)
                return

    def _try(self) -> str:
        """Look; say what went wrong, if anything did."""
        try:
            self._look()
        except Exception as error:  # whatever it is: the run must not wait for ever
            return f"{type(error).__name__}: {error}"
        return ""

    def _look(self) -> None:
        written = [name for name, step in self._steps.items() if self._is_written(step)]
        others = {step.output_key: name for name, step in self._steps.items() if name not in written}
        self._flight.take(others)
        # After the leases were tried: what a run stored before it gave one up is seen.
        for name, step in list(self._steps.items()):
            busy = None if name in written else self._flight.busy.get(step.output_key)
            stored = self._flight.catalog.indexes(step.function)
            found = [(part, index) for part, index in stored if part.name not in self._known[name]]
            self._report(UnitsFound(name, tuple(found), busy.holder if busy else ""))
            self._known[name].update(part.name for part, _ in found)
            if busy is None:
                del self._steps[name]

    def _is_written(self, step: StepPlan) -> bool:
        """Whether the output is complete; one that was there before, and was not believed, does not count."""
        if step.replace_manifest:
            return False
        return self._flight.catalog.manifest(step.function, step.output_key)[0] is not None

    def _give_up(self, trouble: str) -> None:
        for name in self._steps:
            failure = Failure(name, f"another run computes it, which cannot be watched any more: {trouble}")
            self._report(UnitsFound(name, failure=failure))
