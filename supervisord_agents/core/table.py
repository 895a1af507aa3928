"""All tasks, and everything derived from their states: counts, ready queues, timers, what runs.

`TaskTable.move` is the only place that changes the state of a task, by the table in `core.model`, and keeps the rest in step.
"""

from __future__ import annotations

from typing import Protocol

from supervisord_agents.core.backlog import Backlog
from supervisord_agents.core.breakers import Health
from supervisord_agents.core.budgets import Budgets
from supervisord_agents.core.checkpoints import Checkpoints
from supervisord_agents.core.durations import Durations
from supervisord_agents.core.events import Changed, Decision
from supervisord_agents.core.families import Families
from supervisord_agents.core.graphs import Graph, Graphs
from supervisord_agents.core.model import END_STATES, TRANSITIONS, Failure, State
from supervisord_agents.core.pauses import Pauses
from supervisord_agents.core.policy import Verdict
from supervisord_agents.core.ready import ReadyQueue
from supervisord_agents.core.saga import Sagas
from supervisord_agents.core.task import Moment, Task
from supervisord_agents.core.timers import Timers
from supervisord_agents.errors import InvalidTransition

# Class attributes of an enum are ten times slower to read than globals in Python 3.11.
_READY, _RUNNING, _BACKING_OFF = State.READY, State.RUNNING, State.BACKING_OFF
_SUCCEEDED, _BLOCKED, _DEAD = State.SUCCEEDED, State.BLOCKED, State.DEAD
MOMENT_CHARACTERS = 500
"""Of a failure's message in the history, which every `show` carries whole."""


class Picture(Protocol):
    """Somebody who wants every task as it was at one moment (core.snapshot)."""

    def keep(self, task: Task) -> None:
        """The task is about to change."""


class TaskTable:
    """The state of the scheduler."""

    def __init__(self, ageing_s: float = 0.0) -> None:
        self.tasks: dict[str, Task] = {}
        self.graphs = Graphs()
        self.next_order = 0
        """Of the next task to be submitted; it only grows, though tasks go."""
        self.keys: dict[str, str] = {}
        """Idempotency key to graph."""
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self.ready = ReadyQueue(ageing_s)
        self.timers = Timers()
        self.running: dict[str, Task] = {}
        self.running_in: dict[str, int] = {}
        """Running tasks by the pool whose workers they have."""
        self.ended: list[Task] = []
        """Tasks that ended in the event being handled, whose dependents have not been told."""
        self.step = 0
        """About how many edges one event may look at; 0: all."""
        self.pauses = Pauses()
        self.health: dict[str, Health] = {}
        """Agents whose last attempts failed (core.breakers)."""
        self.placed: dict[str, str] = {}
        """Running tasks on the worker of another pool than their own, and which."""
        self.durations = Durations()
        self.families = Families()
        self.backlog = Backlog()
        self.checkpoints = Checkpoints()
        self.lately: dict[str, float] = {}
        """Graphs in which a task has ended since core.archive last looked, and when; all that may be archived are in it."""
        self.letters: dict[str, None] = {}
        """Full ids of the dead tasks that nobody has decided about, in the order of their ends (core.letters)."""
        self.sagas = Sagas()
        self.budgets = Budgets()
        self.stubs: dict[str, Task] = {}
        """Archived tasks that others refer to (core.archive)."""
        self.loose: dict[str, int] = {}
        """Edges of a task's dependents that lead to archived ones."""
        self.touched: set[str] | None = None
        """Graphs of the tasks that changed since somebody wanted to know."""
        self.picture: Picture | None = None
        self.watched = False
        """Somebody wants to know what changes."""
        self._decisions: list[Decision] = []

    def change(self, task: Task) -> None:
        """Call it before any field of a task is changed that a snapshot holds; it does nothing unless `watched`."""
        if self.picture is not None:
            self.picture.keep(task)
        if self.touched is not None:
            self.touched.add(task.graph)

    def tighten(self, task: Task) -> None:
        """Drop the edges of its dependents that lead to archived tasks.

        To be done before they are walked through in steps: a table of a snapshot has none, and must stop in the same places.
        """
        if self.loose.pop(task.id, 0):
            task.dependents = [edge for edge in task.dependents if edge.after.order >= 0]

    def watch(self, picture: Picture | None, touched: set[str] | None) -> None:
        """Tell these of every change from here on."""
        self.picture, self.touched = picture, touched
        self.watched = picture is not None or touched is not None

    def add_graph(self, graph: str, tasks: list[Task], key: str) -> None:
        """Take up a graph; its tasks follow by `add`."""
        self.graphs.add(Graph(graph, tasks, key))
        self.next_order = tasks[-1].order + 1
        if key:
            self.keys[key] = graph

    def add(self, task: Task) -> None:
        """Take up a task of a graph in the state it is in; its edges are in place."""
        self.tasks[task.id] = task
        self.counts[task.state] += 1
        self._enter(task)
        if self.budgets:
            self.budgets.added(task)

    def announce(self, task: Task) -> None:
        """Tell that the task is new."""
        self._decisions.append(Changed(task=task.id, before=None, after=task.state, at=task.submitted_at))

    def move(self, task: Task, after: State, now: float, failure: Failure | None = None, note: str = "") -> None:
        """Change the state of the task; `failure` says why, if the change is not for the better, else `note` may.

        Raises InvalidTransition, with nothing changed, where core.model.TRANSITIONS does not have the change.
        """
        if self.watched:
            self.change(task)
        before = task.state
        if after not in TRANSITIONS[before]:
            story = ", ".join(f"{moment.state} at {moment.at:.3f}" for moment in task.history)
            raise InvalidTransition(f"task {task.id} cannot go from {before} to {after} (so far: {story})")
        self._leave(task)
        self.counts[before] -= 1
        self.counts[after] += 1
        task.state = after
        if failure is not None:
            task.failure = failure
            task.remember(Moment(now, after, task.attempt, failure.code, failure.message[:MOMENT_CHARACTERS]))
        else:
            if after is _SUCCEEDED or after is _BLOCKED:
                task.failure = None
            task.remember(Moment(now, after, task.attempt, "", note))
        if after in END_STATES:
            task.ended_at = now
            self.ended.append(task)
            self.lately[task.graph] = now
        elif after is not _BLOCKED:
            self._enter(task)
        if self.checkpoints or self.sagas or self.budgets or self.families.of or after is _DEAD or before is _DEAD:
            self._book(task, before)
        self._decisions.append(Changed(task=task.id, before=before, after=after, at=now, attempt=task.attempt, failure=failure))

    def _book(self, task: Task, before: State) -> None:
        """What few tasks need: the accounts of steps, sagas, budgets, dead letters and families."""
        self.checkpoints.moved(task.id, task.state)
        self.families.moved(task, before, task.state)
        self.sagas.moved(task, before)
        self.budgets.moved(task, before)
        if task.state is _DEAD:
            self.letters[task.id] = None
        elif before is _DEAD:
            self.letters.pop(task.id, None)

    def running_in_order(self) -> list[Task]:
        """All that runs, in order of submission."""
        return sorted(self.running.values(), key=lambda task: task.order)

    def judge(self, task: Task, verdict: Verdict, now: float) -> None:
        """Carry out a verdict of core.policy."""
        if self.sagas.origins:
            verdict = self.sagas.lasting(task, verdict)
        self.change(task)
        task.retry_at = verdict.retry_at
        self.move(task, verdict.state, now, verdict.failure)

    def decide(self, decision: Decision) -> None:
        """Add to what is handed to the shell after this event."""
        self._decisions.append(decision)

    def take_decisions(self) -> list[Decision]:
        """The decisions since the last call, in order."""
        taken, self._decisions = self._decisions, []
        return taken

    def _leave(self, task: Task) -> None:
        if task.state is _READY:
            self.ready.discard(task)
        elif task.state is _RUNNING:
            del self.running[task.id]
            self.running_in[self.placed.pop(task.id, task.pool) if self.placed else task.pool] -= 1
            if self.durations.cold:
                self.durations.cold.discard(task.id)
            if self.timers.asleep:
                self.timers.over(task)

    def _enter(self, task: Task) -> None:
        state = task.state
        if state is _READY:
            if task.choices:
                task.agent = task.choices[0]
            self.ready.push(task)
        elif state is _RUNNING:
            pool = self.placed.get(task.id, task.pool)
            self.running[task.id] = task
            self.running_in[pool] = self.running_in.get(pool, 0) + 1
            self.timers.set_timeout(task)
        elif state is _BACKING_OFF:
            self.timers.set_backoff(task)
