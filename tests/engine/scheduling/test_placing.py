"""Who gets a place where there are too few: every run ends, and no node holds more than it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from distill_ray.engine.actions import (
    AbandonReplica,
    Action,
    AskForNodes,
    FlushReplica,
    SendWork,
    StartReplica,
    StopReplica,
)
from distill_ray.engine.messages import (
    Flushed,
    NodesSeen,
    NoRoom,
    PartsFound,
    ReplicaLost,
    ReplicaReady,
    RowsLost,
    WorkDone,
    WorkRecord,
)
from distill_ray.engine.scheduling.room import Place, fit_together
from distill_ray.engine.scheduling.scheduler import Scheduler
from distill_ray.engine.scheduling.step_state import StepSpec
from tests.engine.scheduling.test_recovery import Mortals, digest_of

GPU = {"GPU": 1.0}


@dataclass
class Machines(Mortals):
    """Replicas on nodes with so much of everything; a node never gets more than it has.

    Attributes:
        nodes: what each has.
        specs: the steps.
        ticks: whether time passes: looks at the nodes, after which idle replicas may go.
        others: what others hold of the nodes for a while: replicas sent there wait in vain.
        on: where each replica is.
        queue: those that wait for room where they were sent, or anywhere.
        starts: how many replicas of each step were started.
        asked: what there was no place for when it was last said.
        history: the steps whose replicas were started and ended.
    """

    nodes: dict[str, dict[str, float]] = field(default_factory=dict)
    specs: Sequence[StepSpec] = ()
    ticks: bool = False
    others: dict[str, dict[str, float]] = field(default_factory=dict)
    on: dict[tuple[str, int], Place] = field(default_factory=dict)
    queue: dict[tuple[str, int], Place] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    asked: tuple[tuple[str, Mapping[str, float]], ...] = ()
    history: list[str] = field(default_factory=list)

    def run(self, scheduler: Scheduler) -> None:
        self.shared = bool(self.others)
        scheduler.handle(NodesSeen(self.nodes))
        quiet = 0
        for _ in range(50_000):
            for action in scheduler.actions():
                self.do(action)
            if scheduler.finished:
                return
            if self.kills and self.alive and self.dice.random() < 0.1:
                self.kill(scheduler)
            if self.waiting and not (self.ticks and self.dice.random() < 0.05):
                quiet = 0
                _, event = self.waiting.pop(self.dice.randrange(len(self.waiting)))
                scheduler.handle(event)
                continue
            quiet += 1
            assert self.ticks, "nothing is under way, and nobody makes room"
            assert quiet < 100, "time passes, and nobody makes room"
            self.look(scheduler)
        raise AssertionError("the scheduler comes to no end")

    def look(self, scheduler: Scheduler) -> None:
        scheduler.handle(NodesSeen(self.nodes, self.dice.choice([5, 5, 5, 70])))
        if self.dice.random() < 0.1:
            self.others.clear()
            self.serve_queue()
        for name in self.queue:
            if self.dice.random() < 0.5:
                scheduler.handle(NoRoom(*name))

    def spec_of(self, name: tuple[str, int]) -> StepSpec:
        return next(spec for spec in self.specs if spec.name == name[0])

    def free(self, node: str) -> dict[str, float]:
        left = {**self.nodes[node]}
        held = [
            needs
            for name, place in self.on.items()
            for there, needs in zip(place, self.spec_of(name).bundles, strict=True)
            if there == node
        ]
        for amounts in [*held, self.others.get(node, {})]:
            for resource, amount in amounts.items():
                left[resource] = left.get(resource, 0) - amount
        return left

    def has_room(self, name: tuple[str, int], place: Place) -> bool:
        self.on[name] = place
        fits = all(amount >= -1e-9 for node in place for amount in self.free(node).values())
        del self.on[name]
        return fits

    def places(self, name: tuple[str, int], sent_to: Place) -> Iterator[Place]:
        """Where Ray may put it."""
        bundles = len(self.spec_of(name).bundles)
        yield from [sent_to] if sent_to else product(self.nodes, repeat=bundles)

    def do(self, action: object) -> None:
        if isinstance(action, AskForNodes):
            self.asked = action.places
            return
        if isinstance(action, StartReplica):
            self.starts[action.step] += not action.joins
            self.history.append(f"+{action.step}")
            if not action.joins and self.spec_of((action.step, 0)).bundles:
                self.place(action)
                return
        super().do(action)
        if isinstance(action, StopReplica | AbandonReplica):
            self.history.append(f"-{action.step}")
            self.ended((action.step, action.replica))

    def place(self, action: StartReplica) -> None:
        name = action.step, action.replica
        if not self.shared:
            assert action.place, "every node is known, and no other runs there"
            assert self.has_room(name, action.place), "a node gets no more than it has"
        self.queue[name] = action.place
        self.serve_queue()

    def serve_queue(self) -> None:
        """As Ray does: first come, first served, where they want to be."""
        for name, sent_to in list(self.queue.items()):
            place = next((place for place in self.places(name, sent_to) if self.has_room(name, place)), None)
            if place is not None:
                del self.queue[name]
                self.on[name] = place
                super().do(StartReplica(*name))
                of, event = self.waiting.pop()
                assert isinstance(event, ReplicaReady)
                self.waiting.append((of, ReplicaReady(*name, node=place[0])))

    def ended(self, name: tuple[str, int]) -> None:
        self.on.pop(name, None)
        self.queue.pop(name, None)
        self.serve_queue()

    def kill(self, scheduler: Scheduler) -> None:
        super().kill(scheduler)
        for of, event in self.waiting:
            if of is None and isinstance(event, ReplicaLost):
                self.ended((event.step, event.replica))


RESOURCES = ("CPU", "GPU", "ssd")


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, dict[str, float]]:
    amounts = st.dictionaries(st.sampled_from(RESOURCES), st.sampled_from([1.0, 2.0, 4.0]), min_size=1)
    return {f"n{n}": draw(amounts) for n in range(draw(st.integers(1, 3)))}


@st.composite
def needs_of(draw: st.DrawFn, nodes: dict[str, dict[str, float]]) -> dict[str, float]:
    home = nodes[draw(st.sampled_from(sorted(nodes)))]
    shares = st.sampled_from([0.0, 0.3, 0.5, 1.0])
    return {name: share * home[name] for name in home if (share := draw(shares))}


@st.composite
def graphs(draw: st.DrawFn, nodes: dict[str, dict[str, float]]) -> list[StepSpec]:
    """Steps each of which some node could hold."""
    specs: list[StepSpec] = []
    for number in range(draw(st.integers(2, 6))):
        bundles = [draw(needs_of(nodes)) for _ in range(draw(st.sampled_from([1, 1, 2])))]
        if not fit_together([bundles], nodes):
            bundles = bundles[:1]
        names = [spec.name for spec in specs]
        above = draw(st.lists(st.sampled_from(names), unique=True, max_size=2)) if names else []
        fewest = draw(st.integers(1, 2))
        specs.append(
            StepSpec(
                f"s{number}",
                tuple(above),
                kind=draw(st.sampled_from(["step", "step", "step", "global"])) if above else "generator",
                batch_size=draw(st.integers(1, 9)),
                replicas=draw(st.integers(fewest, 4)),
                fewest=fewest,
                follows_backlog=draw(st.booleans()),
                bundles=tuple(filter(None, bundles)),
            )
        )
    return specs


@settings(deadline=None, max_examples=60)
@given(data=st.data(), rows=st.integers(0, 40), seed=st.integers(0, 10_000))
def test_every_run_ends_if_each_step_alone_can_be_placed(data: st.DataObject, rows: int, seed: int) -> None:
    nodes = data.draw(clusters())
    specs = data.draw(graphs(nodes))
    scheduler = Scheduler(specs)
    machines = Machines(rows, seed, kills=0, nodes=nodes, specs=specs)
    machines.run(scheduler)
    assert scheduler.failure is None
    assert scheduler.complete
    assert not machines.on, "all is given back"


@settings(deadline=None, max_examples=60)
@given(data=st.data(), rows=st.integers(0, 40), seed=st.integers(0, 10_000), kills=st.integers(0, 6))
def test_it_ends_too_where_replicas_die_and_others_hold_nodes_for_a_while(
    data: st.DataObject, rows: int, seed: int, kills: int
) -> None:
    nodes = data.draw(clusters())
    specs = data.draw(graphs(nodes))
    others = {node: amounts for node, amounts in nodes.items() if data.draw(st.booleans())}
    scheduler = Scheduler(specs)
    machines = Machines(rows, seed, kills=kills, nodes=nodes, specs=specs, ticks=True, others=others)
    machines.run(scheduler)
    assert scheduler.failure is None or scheduler.failure.damaged, "rows of generators may be lost for good"


def chain(*needs: Mapping[str, float], **more: Any) -> list[StepSpec]:
    """A generator without needs, and steps one after the other."""
    specs = [StepSpec("load", kind="generator")]
    for number, each in enumerate(needs):
        specs.append(StepSpec("abcdef"[number], (specs[-1].name,), batch_size=4, bundles=(each,), **more))
    return specs


def run(specs: list[StepSpec], nodes: dict[str, dict[str, float]], rows: int = 40, seed: int = 0) -> Machines:
    scheduler = Scheduler(specs)
    machines = Machines(rows, seed, kills=0, nodes=nodes, specs=specs)
    machines.run(scheduler)
    assert scheduler.complete
    return machines


def test_steps_that_share_one_gpu_run_one_after_the_other_each_loaded_once() -> None:
    for seed in range(20):
        machines = run(chain(GPU, GPU, GPU), {"n": GPU}, seed=seed)
        steps = [said for said in machines.history if said[1:] != "load"]
        assert steps == ["+a", "-a", "+b", "-b", "+c", "-c"]


def test_of_those_that_wait_the_one_furthest_down_comes_first() -> None:
    specs = [
        StepSpec("load", kind="generator"),
        StepSpec("left", ("load",), batch_size=4, bundles=(GPU,)),
        StepSpec("right", ("load",), batch_size=4, bundles=(GPU,)),
        StepSpec("below", ("left",), batch_size=4, bundles=(GPU,)),
    ]
    for seed in range(20):
        begun = [said for said in run(specs, {"n": GPU}, seed=seed).history if said[0] == "+"]
        assert begun == ["+load", "+left", "+below", "+right"]


def test_a_step_with_several_gives_one_up_for_a_step_that_has_none() -> None:
    specs = chain(GPU, GPU)
    specs[1] = StepSpec("a", ("load",), batch_size=4, replicas=2, bundles=(GPU,))
    for seed in range(20):
        machines = run(specs, {"n": {"GPU": 2.0}}, rows=200, seed=seed)
        assert machines.starts["a"] == 2
        assert machines.starts["b"] == 1, "it keeps its place although it often has nothing to do"
        first_b = machines.history.index("+b")
        assert machines.history[:first_b].count("-a") == 1


@dataclass
class Desk:
    """A scheduler told by hand what happens."""

    scheduler: Scheduler
    nodes: dict[str, dict[str, float]]
    said: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.look()

    def look(self, seconds: float = 0.0, **nodes: dict[str, float]) -> list[Action]:
        self.nodes |= nodes
        self.scheduler.handle(NodesSeen(self.nodes, seconds))
        return self.actions()

    def actions(self) -> list[Action]:
        said = list(self.scheduler.actions())
        self.said += said
        return said

    def ready(self, *names: tuple[str, int]) -> list[Action]:
        for step, replica in names:
            self.scheduler.handle(ReplicaReady(step, replica))
        return self.actions()

    def finish(self, sent: SendWork, rows: int = 4, *, last: bool = False) -> list[Action]:
        record = WorkRecord(1, (rows,), b"".join(map(digest_of, range(rows))), seconds=2, last=last)
        self.scheduler.handle(WorkDone(sent.step, sent.replica, sent.work.block, record))
        return self.actions()

    def flushed(self, step: str, replica: int) -> list[Action]:
        self.scheduler.handle(Flushed(step, replica))
        return self.actions()

    def call(self, step: str) -> SendWork:
        """The last call of a step."""
        return [each for each in self.said if isinstance(each, SendWork) and each.step == step][-1]


def started(said: Sequence[Action]) -> list[tuple[str, str]]:
    return [(each.step, "".join(each.place)) for each in said if isinstance(each, StartReplica)]


def waiting_for_rows(specs: list[StepSpec], nodes: dict[str, dict[str, float]]) -> Desk:
    """The step `a` has its place and nothing to do, `b` has rows and no place; more may come from `load`."""
    desk = Desk(Scheduler(specs), nodes)
    desk.ready(("load", 0))
    assert started(desk.finish(desk.call("load"))) == [("a", "n")]
    desk.ready(("a", 0))
    assert not started(desk.finish(desk.call("a")))
    return desk


def test_an_idle_replica_is_kept_for_a_minute_while_more_rows_may_come() -> None:
    desk = waiting_for_rows(chain(GPU, GPU), {"n": GPU})
    assert not desk.look(seconds=50)
    assert FlushReplica("a", 0) in desk.look(seconds=20)
    assert StopReplica("a", 0) in (said := desk.flushed("a", 0))
    assert started(said) == [("b", "n")]


def test_an_idle_replica_goes_at_once_where_all_its_rows_came() -> None:
    desk = waiting_for_rows(chain(GPU, GPU), {"n": GPU})
    assert FlushReplica("a", 0) in desk.finish(desk.call("load"), 0, last=True)


def test_an_idle_replica_goes_at_once_for_a_step_that_its_rows_come_from() -> None:
    desk = Desk(Scheduler(chain(GPU, GPU)), {"n": {"GPU": 2.0}})
    desk.ready(("load", 0))
    desk.finish(desk.call("load"))
    desk.ready(("a", 0))
    desk.finish(desk.call("a"))
    desk.ready(("b", 0))
    desk.finish(desk.call("b"))  # both are idle, and one of the two GPUs goes
    desk.nodes["n"] = GPU
    desk.look()
    desk.scheduler.handle(ReplicaLost("a", 0, "killed"))
    desk.actions()
    said = desk.finish(desk.call("load"))
    assert FlushReplica("b", 0) in said
    assert started(desk.flushed("b", 0)) == [("a", "n")]


def test_what_there_is_no_place_for_is_said_and_replicas_join_when_a_node_does() -> None:
    desk = waiting_for_rows(chain(GPU, GPU), {"n": GPU})
    assert AskForNodes((("b", GPU),)) in desk.said
    said = desk.look(m=GPU)
    assert started(said) == [("b", "m")]
    assert AskForNodes(()) in said


def test_a_pool_follows_its_backlog() -> None:
    specs = chain(GPU, replicas=4, fewest=1, follows_backlog=True)
    desk = Desk(Scheduler(specs), {"n": {"GPU": 8.0}})
    desk.ready(("load", 0))
    assert len(started(desk.finish(desk.call("load"), 4))) == 1, "one batch"
    desk.ready(("a", 0))
    assert len(started(desk.finish(desk.call("load"), 8))) == 2, "two more wait"
    desk.ready(("a", 1), ("a", 2))
    for sent in [each for each in desk.said if isinstance(each, SendWork) and each.step == "a"]:
        desk.finish(sent)
    desk.look(seconds=50)
    said = desk.look(seconds=20)
    assert len([each for each in said if isinstance(each, FlushReplica)]) == 2, "the fewest stay"


def test_a_pool_counts_no_replica_that_still_loads_as_busy() -> None:
    desk = Desk(Scheduler(chain(GPU, replicas=4, fewest=1, follows_backlog=True)), {"n": {"GPU": 8.0}})
    desk.ready(("load", 0))
    assert len(started(desk.finish(desk.call("load"), 4))) == 1, "one batch"
    assert len(started(desk.finish(desk.call("load"), 4))) == 1, "one more waits"
    assert not started(desk.finish(desk.call("load"), 1)), "not yet another batch"


def test_a_step_whose_next_rows_are_lost_takes_no_place_from_the_one_that_makes_them_again() -> None:
    desk = Desk(Scheduler(chain(GPU, GPU)), {"n": GPU, "m": GPU})
    desk.ready(("load", 0))
    ((_, node),) = started(desk.finish(desk.call("load"), last=True))
    desk.ready(("a", 0))
    assert started(desk.finish(desk.call("a")))[0][0] == "b"
    desk.ready(("b", 0))
    del desk.nodes[node]
    desk.scheduler.handle(ReplicaLost("a", 0, "was lost with its node", with_node=True))
    desk.look()
    call = desk.call("b")
    desk.scheduler.handle(RowsLost("b", call.live, 0, call.work.block))
    desk.scheduler.handle(PartsFound("a", 0))
    assert FlushReplica("b", 0) in desk.actions()
    (begun,) = started(desk.flushed("b", 0))
    assert begun[0] == "a"
    desk.ready(("a", 1))
    assert desk.call("a").work.block == call.live[0]


def test_fewest_come_before_more() -> None:
    specs = [
        StepSpec("load", kind="generator"),
        StepSpec("one", ("load",), batch_size=1, replicas=8, bundles=(GPU,)),
        StepSpec("two", ("load",), batch_size=1, replicas=4, fewest=3, follows_backlog=True, bundles=(GPU,)),
    ]
    desk = Desk(Scheduler(specs), {"n": {"GPU": 4.0}})
    desk.ready(("load", 0))
    steps = Counter(step for step, _ in started(desk.finish(desk.call("load"), 40)))
    assert steps == {"one": 1, "two": 3}


def test_replicas_that_found_no_room_are_not_sent_there_again_for_a_while() -> None:
    specs = [*chain(), StepSpec("a", ("load",), batch_size=4, replicas=3, bundles=(GPU,))]
    desk = Desk(Scheduler(specs), {"n": {"GPU": 2.0}})
    desk.ready(("load", 0))
    assert started(desk.finish(desk.call("load"), 40)) == [("a", "n"), ("a", "n")]
    desk.ready(("a", 0))
    desk.scheduler.handle(NoRoom("a", 1))
    said = desk.actions()
    assert AbandonReplica("a", 1) in said
    assert not started(said), "others hold it"
    assert not started(desk.look(seconds=10))
    assert started(desk.look(seconds=31)) == [("a", "n")]


def test_a_step_whose_only_replica_found_no_room_waits_for_whatever_comes_free() -> None:
    desk = Desk(Scheduler(chain(GPU, GPU)), {"n": {"GPU": 2.0}})
    desk.ready(("load", 0))
    assert started(desk.finish(desk.call("load"))) == [("a", "n")]
    desk.ready(("a", 0))
    assert started(desk.finish(desk.call("a"))) == [("b", "n")]
    desk.scheduler.handle(NoRoom("b", 0))
    said = desk.actions()
    assert AbandonReplica("b", 0) in said
    assert started(said) == [("b", "")], "Ray puts it wherever there is room"
    desk.look(seconds=40)
    desk.scheduler.handle(NoRoom("b", 1))  # it may look as if there were room again: there is none
    assert started(desk.actions()) == [("b", "")]
    assert FlushReplica("a", 0) in desk.look(seconds=25), "one that was idle for a minute makes room for it"
    desk.flushed("a", 0)
    desk.scheduler.handle(ReplicaReady("b", 2, node="n"))
    assert any(isinstance(each, SendWork) and each.step == "b" for each in desk.actions())


def test_what_is_held_on_nodes_that_only_ray_knows_is_given_back_too() -> None:
    cpu, disk = {"CPU": 1.0}, {"ssd": 1.0}
    specs = [
        StepSpec("load", kind="generator"),
        StepSpec("a", ("load",), batch_size=4, bundles=(cpu, disk)),
        StepSpec("b", ("a",), batch_size=4, bundles=(disk,)),
    ]
    desk = Desk(Scheduler(specs), {"n": cpu, "m": disk})
    desk.ready(("load", 0))
    assert started(desk.finish(desk.call("load"))) == [("a", "nm")]
    desk.scheduler.handle(NoRoom("a", 0))
    assert started(desk.actions()) == [("a", "")], "Ray puts it wherever there is room"
    desk.scheduler.handle(ReplicaReady("a", 1, node="n"))
    desk.actions()
    assert not started(desk.finish(desk.call("a")))
    assert started(desk.look(seconds=70)) == [("b", "m")], "it looks as if there were room again"
    desk.scheduler.handle(NoRoom("b", 0))
    assert FlushReplica("a", 1) in desk.actions()


def test_a_generator_goes_on_in_another_replica_where_the_first_left_off() -> None:
    specs = [
        StepSpec("load", kind="generator", bundles=(GPU,)),
        StepSpec("a", ("load",), batch_size=4, bundles=(GPU,)),
    ]
    machines = run(specs, {"n": GPU}, rows=30)
    assert machines.history == ["+load", "-load", "+a", "-a"]


def test_one_that_is_at_work_goes_after_its_call_and_what_is_free_meanwhile_is_kept() -> None:
    specs = [
        StepSpec("load", kind="generator"),
        StepSpec("one", ("load",), batch_size=4, replicas=2, bundles=(GPU,)),
        StepSpec("two", ("one",), batch_size=4, bundles=({"GPU": 2.0},)),
    ]
    desk = Desk(Scheduler(specs), {"n": {"GPU": 3.0}})
    desk.ready(("load", 0))
    assert started(desk.finish(desk.call("load"), 40)) == [("one", "n")] * 2
    desk.ready(("one", 0), ("one", 1))
    calls = [each for each in desk.said if isinstance(each, SendWork) and each.step == "one"]
    said = desk.finish(min(calls, key=lambda call: call.work.block))  # it is at the next call at once
    assert not started(said), "`one` wants the third GPU back that `two` waits for"
    pool = desk.scheduler.steps["one"].replicas
    (leaving,) = [number for number, replica in pool.items() if replica.leaving]
    assert pool[leaving].calls
    under_way = desk.scheduler.steps["one"].calls
    calls = [each for each in desk.said if isinstance(each, SendWork) and each.work.block in under_way]
    said = desk.finish(next(each for each in calls if each.replica == leaving and each.step == "one"))
    assert FlushReplica("one", leaving) in said
    assert started(desk.flushed("one", leaving)) == [("two", "n")]


def test_one_of_the_fewest_that_is_at_work_is_never_taken_away() -> None:
    desk = Desk(Scheduler(chain(GPU, GPU)), {"n": GPU})
    desk.ready(("load", 0))
    desk.finish(desk.call("load"), 40)
    desk.ready(("a", 0))
    for _ in range(9):
        said = [*desk.finish(desk.call("a")), *desk.look(seconds=100)]
        assert not [each for each in said if isinstance(each, StartReplica | FlushReplica | StopReplica)]
