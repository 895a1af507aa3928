"""Whatever happens in whatever order: the invariants hold, snapshot and replay give the same state, all comes to an end."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisord_agents.core import invariants
from supervisord_agents.core.backlog import Backlog
from supervisord_agents.core.breakers import Breaker, BreakerState, state
from supervisord_agents.core.children import members
from supervisord_agents.core.descent import Limits, until
from supervisord_agents.core.events import (
    Advanced,
    AnyEvent,
    Archived,
    BudgetSpent,
    CancelRequested,
    Changed,
    Checkpointed,
    Compensating,
    Decision,
    Dropped,
    Finished,
    Paced,
    PauseRequested,
    Restarted,
    ResumeRequested,
    RetryRequested,
    Slept,
    Start,
    Started,
    Stop,
    Submitted,
    Ticked,
    Used,
    Yielded,
    encode_event,
)
from supervisord_agents.core.model import (
    END_STATES,
    Budget,
    Compensation,
    Dependency,
    Failure,
    Past,
    State,
    TaskSpec,
    Usage,
    When,
)
from supervisord_agents.core.placement import AgentRule, Placement, ProviderRule, Rules
from supervisord_agents.core.scaling import PoolRule, Scaling
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task
from supervisord_agents.errors import InvalidInput, Unavailable
from tests.support.scheduling import replay

POOLS = ("a", "b")
AGENTS = ("command", "qwen")
SCOPES = tuple((pool, agent) for pool in ("", *POOLS) for agent in ("", *AGENTS))
FREE = dict.fromkeys(POOLS, 1000)
LIMITS = Limits(depth=2, children=4, descendants=8)

specs = st.fixed_dictionaries(
    {
        "priority": st.integers(0, 9),
        "timeout_s": st.sampled_from((0.0, 5.0, 60.0)),
        "deadline_s": st.sampled_from((0.0, 0.0, 30.0)),
        "max_retries": st.integers(0, 2),
        "backoff_s": st.sampled_from((0.0, 2.0)),
        "estimate_s": st.sampled_from((0.0, 3.0)),
        "pool": st.sampled_from(POOLS),
        "by": st.sampled_from(({"agent": "command"}, {"agent": "qwen"}, {"agent": "qwen", "agents": ("qwen", "command")})),
        "compensate": st.sampled_from((None, Compensation(pool="a", max_retries=0), Compensation(pool="b", max_retries=1))),
        "type": st.sampled_from(("", "review")),
    }
).map(lambda fields: {**fields["by"], **{name: value for name, value in fields.items() if name != "by"}})


def startable(scheduler: Scheduler) -> list[Start]:
    """What could start if there were no rules."""
    return Placement().starts(scheduler.table, FREE, 0.0)


budgets = st.one_of(
    st.just(Budget()),
    st.builds(
        Budget,
        attempts=st.integers(0, 5),
        tokens=st.sampled_from((0, 0, 6)),
        cost_usd=st.sampled_from((0.0, 0.0, 1.5)),
        wall_s=st.sampled_from((0.0, 0.0, 15.0)),
    ),
)


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler()
        self.now = 1000.0
        self.journal: list[bytes] = []
        self.known: dict[str, State] = {}
        """The states as the decisions told them."""
        self.attempts: dict[str, int] = {}
        self.graphs = 0
        self.undone: list[str] = []
        """Graphs whose compensations have begun."""
        self.ageing_s = 0.0
        self.steps: dict[str, dict[str, tuple[bool, object]]] = {}
        """Of each task that has not succeeded: whether a step is done, and with what result."""
        self.past: dict[str, Past] = {}
        """What is archived."""
        self.expected = b""
        """The snapshot when the picture was begun that is being taken."""
        self.pieces: Iterator[bytes] | None = None
        self.taken: list[bytes] = []

    @initialize(seconds=st.sampled_from((0.0, 3.0, 50.0)))
    def age(self, seconds: float) -> None:
        self.ageing_s = seconds
        placement, self.scheduler = self.scheduler.placement, Scheduler(seconds)
        self.scheduler.placement = placement

    def whole(self) -> bytes:
        """A snapshot, beside the picture that is being taken."""
        table = self.scheduler.table
        picture = table.picture
        table.watch(None, None)
        backlog, table.backlog = table.backlog, Backlog()
        try:
            return self.scheduler.snapshot()
        finally:
            table.watch(picture, None)
            table.backlog = backlog

    def feed(self, event: AnyEvent) -> list[Decision]:
        self.scheduler.check(event, self.now)
        self.journal.append(encode_event(event, self.now))
        running = {task.id: task.attempt for task in self.scheduler.running_tasks()}
        decisions = self.scheduler.handle(event, self.now)
        for decision in decisions:
            if isinstance(decision, Changed):
                assert self.known.get(decision.task) == decision.before
                assert decision.at == self.now
                self.known[decision.task] = decision.after
            elif isinstance(decision, Compensating):
                self.undone.append(decision.graph)
            elif isinstance(decision, Stop):
                assert running[decision.task] == decision.attempt
                assert self.scheduler.tasks[decision.task].state is not State.RUNNING
        return decisions

    def start(self, offer: Start) -> None:
        # An attempt number is never used twice.
        assert offer.attempt > self.attempts.get(offer.task, 0)
        account = self.scheduler.budgets.of(self.scheduler.tasks[offer.task].graph)
        if self.scheduler.tasks[offer.task].state is not State.READY:
            assert account is not None  # The start of another has used up the budget.
            assert account.over
            return
        self.attempts[offer.task] = offer.attempt
        cold = (len(self.attempts) + offer.attempt) % 3 == 0
        pool = offer.pool if offer.pool != self.scheduler.tasks[offer.task].pool else ""
        self.feed(
            Started(task=offer.task, attempt=offer.attempt, worker="w", pool=pool, agent=offer.agent, note=offer.note, cold=cold)
        )
        assert self.scheduler.tasks[offer.task].state is State.RUNNING
        assert (offer.task in self.scheduler.durations.cold) == cold
        family = self.scheduler.families.of.get(offer.task)
        given = list(members(self.scheduler.table, family.given if family else ()))
        again = [child for child in given if not child.ended]
        assert all(any(moment.state in END_STATES for moment in child.history) for child in again), (
            "it began before its children ended"
        )

    def agent_of(self, offer: Start) -> str:
        return offer.agent or self.scheduler.tasks[offer.task].agent

    def pick(self, data: st.DataObject, tasks: list[Task]) -> Task:
        return tasks[data.draw(st.integers(0, len(tasks) - 1), label="which")]

    def ended_badly(self) -> list[Task]:
        return [task for task in self.scheduler.tasks.values() if task.ended and task.state is not State.SUCCEEDED]

    @rule(data=st.data(), size=st.integers(1, 6))
    def submit(self, data: st.DataObject, size: int) -> None:
        names = [f"t{number}" for number in range(size)]
        earlier = list(self.scheduler.tasks)
        made = []
        for position, name in enumerate(names):
            allowed = names[:position] + earlier[-12:] + list(self.past)[-3:]
            chosen = data.draw(st.lists(st.sampled_from(allowed), unique=True, max_size=3)) if allowed else []
            edges = tuple(Dependency(other, data.draw(st.sampled_from(When))) for other in chosen)
            made.append(TaskSpec(id=name, dependencies=edges, **data.draw(specs)))
        graph = f"g{self.graphs}"
        self.graphs += 1
        past = tuple(self.past[name] for name in sorted(self.scheduler.unknown(made)))
        specifications = tuple(data.draw(st.permutations(made)))
        self.feed(Submitted(graph=graph, specs=specifications, key=graph, past=past, budget=data.draw(budgets)))
        assert self.scheduler.graph_of_key(graph) == graph

    @precondition(lambda self: self.scheduler.running_tasks())
    @rule(data=st.data(), size=st.integers(1, 3))
    def submit_children(self, data: st.DataObject, size: int) -> None:
        parent = self.pick(data, self.scheduler.running_tasks())
        earlier = list(self.scheduler.tasks)[-12:]
        names = [f"c{self.graphs}-{number}" for number in range(size)]
        made = []
        for position, name in enumerate(names):
            chosen = data.draw(st.lists(st.sampled_from(names[:position] + earlier), unique=True, max_size=2))
            edges = tuple(Dependency(other, data.draw(st.sampled_from(When))) for other in chosen)
            made.append(until(TaskSpec(id=name, dependencies=edges, **data.draw(specs)), parent, self.now))
        try:
            self.scheduler.check_children(parent, size, LIMITS)
            self.feed(
                Submitted(graph=f"g{self.graphs}", specs=tuple(made), parent=parent.id, attempt=parent.attempt, call=self.graphs)
            )
        except InvalidInput:
            return
        self.graphs += 1
        for child in self.scheduler.table.graphs.tasks(f"g{self.graphs - 1}"):
            assert self.scheduler.families.parent(child) == parent.id
            assert child.state is State.SUCCEEDED or child.urgency <= parent.urgency
            # The parent's may have passed, and nobody has ticked yet.
            assert not parent.deadline_at or child.ended or child.deadline_at <= max(parent.deadline_at, self.now) + 0.01

    @precondition(lambda self: self.scheduler.running_tasks())
    @rule(data=st.data(), fail_fast=st.booleans())
    def wait_for_children(self, data: st.DataObject, fail_fast: bool) -> None:
        parents = [task for task in self.scheduler.running_tasks() if task.id in self.scheduler.families.of]
        task = self.pick(data, parents or self.scheduler.running_tasks())
        family = self.scheduler.families.of.get(task.id)
        fresh, retries = list(family.fresh) if family else [], task.retries
        self.feed(Yielded(task=task.id, attempt=task.attempt, state={"n": task.attempt}, fail_fast=fail_fast))
        if not fresh:
            undoes = task.graph in self.scheduler.sagas.origins  # what is not undone needs a person
            assert task.state is (State.DEAD if undoes else State.FAILED)
            return
        waits = any(not child.ended for child in members(self.scheduler.table, fresh))
        account = self.scheduler.budgets.of(task.graph)
        on = State.FAILED if account is not None and (account.closed or account.over) else State.READY
        assert (task.state, task.retries) == (State.BLOCKED if waits else on, retries)

    @rule(slots=st.integers(1, 3))
    def start_some(self, slots: int) -> None:
        offers = self.scheduler.starts(dict.fromkeys(POOLS, slots), self.now)
        for offer in offers:
            pool, agent = self.scheduler.tasks[offer.task].pool, self.agent_of(offer)
            assert not any(scope.pool in ("", pool) and scope.agent in ("", agent) for scope in self.scheduler.pauses)
        assert offers == self.scheduler.starts(dict.fromkeys(POOLS, slots), self.now)
        for offer in offers:
            self.start(offer)

    @precondition(lambda self: self.scheduler.running_tasks())
    @rule(data=st.data(), outcome=st.sampled_from(("success", "failure", "fatal")))
    def finish(self, data: st.DataObject, outcome: str) -> None:
        task = self.pick(data, self.scheduler.running_tasks())
        failure = None if outcome == "success" else Failure("WORKER_FAILED", "no", retriable=outcome == "failure")
        resumed = task.attempt > 1 and bool(self.scheduler.table.checkpoints.of(task.id))
        known = sum(kind.count for kind in self.scheduler.durations.kinds.values())
        self.feed(Finished(task=task.id, attempt=task.attempt, failure=failure, usage=Usage(1, 1, 0.5)))
        assert task.state is not State.RUNNING
        assert sum(kind.count for kind in self.scheduler.durations.kinds.values()) == known + (failure is None and not resumed)

    @precondition(lambda self: self.scheduler.running_tasks())
    @rule(data=st.data(), step=st.sampled_from("abc"), done=st.booleans(), result=st.integers(-5, 5), back=st.integers(0, 1))
    def checkpoint(self, data: st.DataObject, step: str, done: bool, result: int, back: int) -> None:
        task = self.pick(data, self.scheduler.running_tasks())
        attempt = task.attempt - back
        assert self.feed(Checkpointed(task=task.id, attempt=attempt, step=step, done=done, result=result if done else None)) == []
        steps = self.steps.setdefault(task.id, {})
        if not back and not steps.get(step, (False, None))[0]:
            steps[step] = (done, result if done else None)

    @precondition(lambda self: self.scheduler.tasks)
    @rule(data=st.data(), back=st.integers(1, 2))
    def stale_messages_change_nothing(self, data: st.DataObject, back: int) -> None:
        task = self.pick(data, list(self.scheduler.tasks.values()))
        before = self.whole()
        assert self.feed(Finished(task=task.id, attempt=task.attempt - back)) == []
        assert self.feed(Started(task=task.id, attempt=task.attempt + 1 - back, worker="w")) == []
        assert self.whole() == before

    @precondition(lambda self: self.scheduler.tasks)
    @rule(data=st.data(), subtree=st.booleans(), whole=st.booleans())
    def cancel(self, data: st.DataObject, subtree: bool, whole: bool) -> None:
        task = self.pick(data, list(self.scheduler.tasks.values()))
        event = CancelRequested(task=task.graph if whole else task.id, subtree=subtree)
        self.feed(event)
        if not self.scheduler.busy:
            assert task.ended
            assert self.feed(event) == []

    @rule(scope=st.sampled_from(SCOPES), stop=st.booleans())
    def pause(self, scope: tuple[str, str], stop: bool) -> None:
        pool, agent = scope
        of_it = {
            task: task.retries for task in self.scheduler.running_tasks() if pool in ("", task.pool) and agent in ("", task.agent)
        }
        self.feed(PauseRequested(pool=pool, agent=agent, stop=stop))
        for task, retries in of_it.items():
            gone_with_its_parent = stop and self.scheduler.families.parent(task) and task.state is State.CANCELLED
            account = self.scheduler.budgets.of(task.graph)
            back = State.FAILED if account is not None and account.closed else State.READY
            assert gone_with_its_parent or task.state is (back if stop else State.RUNNING)
            assert task.retries == retries
        free = {name: 100 for name in POOLS if pool in ("", name)}
        held = [self.agent_of(offer) for offer in self.scheduler.starts(free, self.now)]
        assert agent not in held if agent else held == []

    @precondition(lambda self: self.scheduler.pauses)
    @rule(everything=st.booleans())
    def resume(self, everything: bool) -> None:
        scope = min(self.scheduler.pauses)
        self.feed(ResumeRequested(pool=scope.pool, agent=scope.agent, everything=everything))
        assert scope not in self.scheduler.pauses
        assert not (everything and self.scheduler.pauses)

    @rule(step=st.sampled_from((0, 1, 3)))
    def pace(self, step: int) -> None:
        self.feed(Paced(step=step))

    @precondition(lambda self: self.scheduler.busy)
    @rule()
    def advance(self) -> None:
        self.feed(Advanced())

    @precondition(lambda self: not self.scheduler.busy and self.pieces is None)
    @rule(count=st.integers(1, 4))
    def begin_a_picture(self, count: int) -> None:
        self.expected = self.whole()
        self.pieces = self.scheduler.still(0.0).pieces(count)

    @precondition(lambda self: self.pieces is not None)
    @rule()
    def take_a_piece(self) -> None:
        assert self.pieces is not None
        piece = next(self.pieces, None)
        if piece is not None:
            self.taken.append(piece)
            return
        assert b"".join(self.taken) == self.expected
        self.taken.clear()
        self.pieces = None

    @precondition(lambda self: self.ended_badly())
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        task = self.pick(data, self.ended_badly())
        event = RetryRequested(task=task.id)
        try:
            self.scheduler.check(event, self.now)
        except (InvalidInput, Unavailable):
            # Refused; had it been journalled all the same, it must do no harm.
            self.journal.append(encode_event(event, self.now))
            for change in self.scheduler.handle(event, self.now):
                assert isinstance(change, Changed)
                self.known[change.task] = change.after
            assert not self.scheduler.sagas.undone_by(task.graph) or task.ended
        else:
            self.feed(event)
            assert task.state in (State.BLOCKED, State.READY)
            assert task.retries == 0

    @precondition(lambda self: self.scheduler.letters)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.scheduler.letters)))
        self.feed(Dropped(tasks=(name,), client="7"))
        assert self.scheduler.tasks[name].state is State.DEAD
        assert name not in self.scheduler.letters

    @rule(seconds=st.sampled_from((0.0, 0.5, 4.0, 20.0, 100.0)))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Ticked())
        due = self.scheduler.next_due()
        while self.scheduler.step and due is not None and due <= self.now:
            self.feed(Ticked())
            due = self.scheduler.next_due()
        assert due is None or due > self.now

    @rule(
        keep=st.sampled_from((0, 3)),
        old=st.sampled_from((0.0, 4.0)),
        limit=st.sampled_from((1, 5, 100)),
        letters=st.integers(0, 2),
    )
    def archive(self, keep: int, old: float, limit: int, letters: int) -> None:
        graphs = self.scheduler.to_archive(keep, self.now - old, limit, letters)
        held = list(self.scheduler.letters)[::-1][:letters]
        assert not {self.scheduler.tasks[name].graph for name in held} & {graph.id for graph in graphs}
        assert len(graphs) <= 1 or sum(len(graph.tasks) for graph in graphs) <= limit
        for task in [task for graph in graphs for task in graph.tasks]:
            self.past[task.id] = Past(task.id, task.state, task.failure.code if task.failure else "")
            del self.known[task.id]
        self.feed(Archived(graphs=tuple(graph.id for graph in graphs)))
        assert not any(graph.id in self.scheduler.graphs() or self.scheduler.graph_of_key(graph.id) for graph in graphs)

    @precondition(lambda self: self.scheduler.tasks)
    @rule(data=st.data())
    def usage_counts_in_any_state(self, data: st.DataObject) -> None:
        task = self.pick(data, list(self.scheduler.tasks.values()))
        before, state = task.usage, task.state
        decisions = self.feed(Used(task=task.id, usage=Usage(3, 2, 0.25)))
        account = self.scheduler.budgets.of(task.graph)
        closed = account is not None and account.closed
        assert closed or decisions == []
        assert task.usage == before + Usage(3, 2, 0.25)
        assert task.state is state or (closed and task.state is State.FAILED)

    @precondition(lambda self: self.scheduler.budgets)
    @rule(data=st.data(), tokens=st.integers(0, 8))
    def spend(self, data: st.DataObject, tokens: int) -> None:
        graph = data.draw(st.sampled_from(list(self.scheduler.budgets)))
        account = self.scheduler.budgets[graph]
        self.feed(BudgetSpent(graph=graph, usage=account.usage + Usage(tokens, 0, 0.0)))
        if account.closed and not self.scheduler.busy:
            assert not any(task.graph == graph for task in self.scheduler.running_tasks())

    @rule(seconds=st.sampled_from((1.0, 30.0)))
    def sleep(self, seconds: float) -> None:
        running = self.scheduler.running_tasks()
        self.now += seconds
        assert self.feed(Slept(seconds=seconds)) == []
        assert self.scheduler.running_tasks() == running

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        lost = {task: task.lost for task in self.scheduler.running_tasks()}
        self.feed(Restarted(clean=clean))
        assert not self.scheduler.running_tasks()
        assert all(task.lost == before + (not clean) for task, before in lost.items())

    @precondition(lambda self: not self.scheduler.busy and self.pieces is None)
    @rule()
    def restore_from_a_snapshot(self) -> None:
        data = self.whole()
        restored = Scheduler.restore(data, self.ageing_s)
        assert restored.snapshot() == data
        assert startable(restored) == startable(self.scheduler)
        assert restored.next_due() == self.scheduler.next_due()
        assert restored.counts == self.scheduler.counts
        # From here on the restored one is used: it must go on like the old one, which the replay at the end proves.
        restored.placement = self.scheduler.placement
        self.scheduler = restored

    @invariant()
    def invariants_hold(self) -> None:
        invariants.check(self.scheduler)
        assert self.known == {task.id: task.state for task in self.scheduler.tasks.values()}

    @invariant()
    def what_failed_is_undone_once(self) -> None:
        assert len(self.undone) == len(set(self.undone))
        begun = {graph for graph in self.scheduler.graphs() if self.scheduler.sagas.undone_by(graph)}
        assert begun <= set(self.undone)

    @invariant()
    def what_was_done_is_given_to_the_next_attempt(self) -> None:
        for task in self.scheduler.tasks.values():
            if task.state is State.SUCCEEDED:
                self.steps.pop(task.id, None)
            kept = {step.name: (step.done, step.result) for step in self.scheduler.steps(task.id)}
            assert kept == self.steps.get(task.id, {})

    @invariant()
    def families_stay_within_their_limits(self) -> None:
        families, table = self.scheduler.families, self.scheduler.table
        for name, family in families.of.items():
            assert len(list(members(table, family.graphs))) <= LIMITS.children
            assert families.depth(table.tasks[name]) < LIMITS.depth

    @invariant()
    def priorities_are_inherited(self) -> None:
        for task in self.scheduler.tasks.values():
            if task.state is not State.SUCCEEDED:
                inherited = min([task.priority, *(edge.after.urgency for edge in task.dependents if edge.after.order >= 0)])
                inexact = self.past or self.scheduler.families.births
                assert task.urgency <= inherited if inexact else task.urgency == inherited

    @invariant()
    def remaining_paths_are_the_longest(self) -> None:
        for task in self.scheduler.tasks.values():
            if task.state is not State.SUCCEEDED:
                longest = max((edge.after.rest_s for edge in task.dependents), default=0.0)
                path_s = task.estimate_s + longest
                inexact = self.past or self.scheduler.families.births
                assert task.rest_s >= path_s if inexact else task.rest_s == path_s

    def teardown(self) -> None:
        while self.pieces is not None:
            self.take_a_piece()
        replayed = replay(self.journal, self.ageing_s)
        assert replayed.busy == self.scheduler.busy
        while self.scheduler.busy:
            assert replayed.handle(Advanced(), self.now) == self.feed(Advanced())
        assert replayed.snapshot() == self.whole()
        assert startable(replayed) == startable(self.scheduler)
        self.drive_to_the_end()
        while self.scheduler.busy:
            self.feed(Advanced())
        assert all(task.state in END_STATES for task in self.scheduler.tasks.values())
        assert self.scheduler.next_due() is None
        assert replay(self.journal).snapshot() == self.whole()

    def drive_to_the_end(self) -> None:
        """Run everything, every third attempt without success."""
        self.feed(ResumeRequested(everything=True))
        rounds = 0
        while not all(task.ended for task in self.scheduler.tasks.values()):
            rounds += 1
            assert rounds < 1000, "something waits for ever"
            while self.scheduler.busy:
                self.feed(Advanced())
            for offer in self.scheduler.starts(FREE, self.now):
                self.start(offer)
            later = self.scheduler.placement.again_at
            for task in self.scheduler.running_tasks():
                family = self.scheduler.families.of.get(task.id)
                if family is not None and family.fresh:
                    self.feed(Yielded(task=task.id, attempt=task.attempt))
                    continue
                bad = (task.order + task.attempt) % 3 == 0
                self.feed(Finished(task=task.id, attempt=task.attempt, failure=Failure("WORKER_FAILED") if bad else None))
            due = self.scheduler.next_due()
            if due is not None:
                self.now = max(self.now, due)
                self.feed(Ticked())
            elif later < inf:
                self.now = max(self.now, later)
            invariants.check(self.scheduler)


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestScheduler = SchedulerMachine.TestCase


class RuledMachine(SchedulerMachine):
    """Under rules of placement, no limit is ever exceeded, and all still comes to an end."""

    @initialize(
        workers=st.integers(1, 3),
        scaling=st.sampled_from(("hybrid", "on-demand")),
        running=st.integers(0, 2),
        failures=st.integers(0, 3),
        per_minute=st.sampled_from((0.0, 6.0)),
    )
    def rules(self, workers: int, scaling: Scaling, running: int, failures: int, per_minute: float) -> None:
        pool = PoolRule(min_workers=1, max_workers=workers, scaling=scaling, idle_s=20.0)
        self.obeyed = Rules(
            pools={"a": msgspec.structs.replace(pool, borrows_from=("b",)), "b": msgspec.structs.replace(pool, max_workers=3)},
            agents={
                "qwen": AgentRule(max_running=running, breaker=Breaker(failures, 30.0), provider="p"),
                "command": AgentRule(starts_per_minute=per_minute),
            },
            providers={"p": ProviderRule(breaker=Breaker(2, 10.0))},
        )
        self.scheduler.placement = Placement(self.obeyed)

    @rule(failure=st.sampled_from(("", "no answer")), wait_s=st.sampled_from((0.0, 5.0)))
    def a_provider_answers(self, failure: str, wait_s: float) -> None:
        self.scheduler.placement.answered("p", self.now, failure, wait_s)

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        running = self.scheduler.running_tasks()
        for name, pool in self.obeyed.pools.items():
            assert self.scheduler.running(name) <= pool.max_workers
        limit = self.obeyed.agents["qwen"].max_running
        assert not limit or sum(task.agent == "qwen" for task in running) <= limit
        # A worker of a lender is its own.
        assert sum(lender == "b" for lender in self.scheduler.table.placed.values()) < self.obeyed.pools["b"].max_workers

    @invariant()
    def what_is_left_alone_is_not_started(self) -> None:
        placement, table = self.scheduler.placement, self.scheduler.table
        shut = state(self.obeyed.agents["qwen"].breaker, table.health.get("qwen"), self.now) is BreakerState.OPEN
        shut = shut or placement.provider_state("p", self.now) is BreakerState.OPEN
        shut = shut or placement.asked_to_wait.get("p", 0.0) > self.now
        for offer in self.scheduler.starts(FREE, self.now):
            assert not shut or self.agent_of(offer) != "qwen"


RuledMachine.TestCase.settings = settings(SchedulerMachine.TestCase.settings, max_examples=60)
TestUnderRules = RuledMachine.TestCase


class PicturedMachine(SchedulerMachine):
    """A picture is under way all the time: a task before each event."""

    @invariant()
    def a_picture_is_under_way(self) -> None:
        if self.pieces is not None:
            self.take_a_piece()
        elif not self.scheduler.busy:
            self.expected = self.whole()
            self.pieces = self.scheduler.still(0.0).pieces(1)
            self.take_a_piece()


PicturedMachine.TestCase.settings = settings(SchedulerMachine.TestCase.settings, max_examples=100)
TestPicture = PicturedMachine.TestCase
