"""What is true of every state of the scheduler between two events. It scans everything: for tests, not for every event."""

from __future__ import annotations

import math

from supervisord_agents.core.archive import GONE
from supervisord_agents.core.checkpoints import MAX_STEPS, STEP_BYTES
from supervisord_agents.core.children import members
from supervisord_agents.core.dependents import blocks
from supervisord_agents.core.durations import MOST_KINDS, RECENT, Kind
from supervisord_agents.core.letters import DROPPED
from supervisord_agents.core.model import END_STATES, State
from supervisord_agents.core.saga import failed
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import HISTORY_LIMIT, Task
from supervisord_agents.core.timers import Due
from supervisord_agents.errors import SupervisorError


class InvariantBroken(SupervisorError):
    """A bug: the state contradicts itself."""


def check(scheduler: Scheduler) -> None:
    """Raise InvariantBroken for the first contradiction found."""
    table = scheduler.table
    busy = bool(table.backlog)
    _demand(not table.ended, "an end was not told to dependents")
    in_graphs = [task for graph in table.graphs.values() for task in graph.tasks]
    _demand(in_graphs == list(table.tasks.values()), "graphs and tasks differ")
    orders = [task.order for task in in_graphs]
    _demand(orders == sorted(set(orders)), "the order of submission is broken")
    _demand(table.graphs.before(table.next_order, len(orders) + 1) == in_graphs[::-1], "the order of the graphs is broken")
    for graph in table.graphs.values():
        _demand(not graph.key or table.keys.get(graph.key) == graph.id, f"graph {graph.id} is not known by its key")
    for state in State:
        count = sum(task.state is state for task in in_graphs)
        _demand(table.counts[state] == count, f"{table.counts[state]} counted in {state}, {count} there")
    for task in in_graphs:
        _check_task(task)
        _check_edges(task)
        if table.families.waits(task):
            _demand(task.state is State.BLOCKED and not task.unmet, f"{task.id} waits for children, and is {task.state}")
        else:
            _check_dependencies(task, busy)
    _check_families(scheduler)
    _check_archive(scheduler, in_graphs)
    _check_sagas(scheduler)
    _check_checkpoints(scheduler)
    _check_letters(scheduler)
    _check_budgets(scheduler)
    _check_queues(scheduler, in_graphs)
    _check_timers(scheduler, in_graphs)
    _check_durations(scheduler)


def _demand(truth: bool, message: str) -> None:
    if not truth:
        raise InvariantBroken(message, hint="This is a bug: please report it with the journal.")


def _check_task(task: Task) -> None:
    _demand(task.id == f"{task.graph}.{task.spec.id}" == f"{task.graph}.{task.short_id}", f"{task.id} has another name")
    _demand(task.ended == bool(task.ended_at), f"{task.id}: state {task.state}, ended at {task.ended_at}")
    _demand(0 <= task.retries <= task.spec.max_retries, f"{task.id} used {task.retries} of {task.spec.max_retries} retries")
    _demand(task.attempt >= task.retries + task.lost, f"{task.id}: more retries than attempts")
    _demand((task.state is State.BACKING_OFF) == bool(task.retry_at), f"{task.id}: {task.state}, retry at {task.retry_at}")
    bad_end = task.state in END_STATES and task.state is not State.SUCCEEDED
    _demand(not bad_end or task.failure is not None, f"{task.id} is {task.state} without a reason")
    _demand(not task.ended_by_dependency or bad_end, f"{task.id} is {task.state} by a dependency")
    _demand(0 < len(task.history) <= HISTORY_LIMIT, f"{task.id} has {len(task.history)} moments")
    _demand(task.history[-1].state is task.state, f"{task.id}: the history ends with {task.history[-1].state}")
    _demand(task.rest_s >= task.estimate_s, f"{task.id}: the rest is shorter than the task")
    _demand(task.urgency <= task.priority, f"{task.id}: less urgent than its priority")


def _check_edges(task: Task) -> None:
    for edge in task.dependencies:
        if edge.before.order < 0:
            _demand(edge.before.ended and edge.after is task, f"{task.id} waits for the archived {edge.before.id}")
            continue
        _demand(edge.after is task and edge in edge.before.dependents, f"the edge {edge.before.id} -> {task.id} has one end")
        _demand(edge.before.graph == task.graph or edge.before.order < task.order, f"{task.id} waits for a later graph")
    for edge in task.dependents:
        if edge.after is GONE:
            continue
        _demand(edge.before is task and edge in edge.after.dependencies, f"the edge {task.id} -> {edge.after.id} has one end")


def _check_dependencies(task: Task, busy: bool) -> None:
    """While there is a backlog, an end may not have been told yet."""
    open_edges = [edge for edge in task.dependencies if not edge.before.ended]
    if task.state is State.BLOCKED and busy:
        _demand(task.unmet >= len(open_edges), f"{task.id} counts {task.unmet} unmet dependencies of {len(open_edges)}")
    elif task.state is State.BLOCKED:
        _demand(task.unmet == len(open_edges), f"{task.id} counts {task.unmet} unmet dependencies of {len(open_edges)}")
        _demand(task.unmet > 0, f"{task.id} waits for nothing")
        _demand(not any(map(blocks, task.dependencies)), f"{task.id} waits, though a dependency decided it")
    elif task.state in (State.READY, State.RUNNING, State.BACKING_OFF):
        # A dependency may have had its end and been given another round since.
        unheard = [edge.before.id for edge in open_edges if not any(moment.state in END_STATES for moment in edge.before.history)]
        _demand(not unheard, f"{task.id} is {task.state} before {', '.join(unheard)} ended")


def _check_families(scheduler: Scheduler) -> None:
    table, families = scheduler.table, scheduler.table.families
    _demand(not families.stirred, "a family was not looked at")
    _demand(set(families.births) <= set(table.graphs), "a graph of children is gone")
    listed: list[str] = []
    for name, family in families.of.items():
        task = table.tasks[name]
        listed += [*family.past, *family.graphs]
        _demand(not family.fresh or task.state is State.RUNNING, f"{name} is {task.state}, with children of a running attempt")
        _demand(not task.ended or not family.given, f"{name} has ended, and waits for children")
        left = sum(not child.ended for child in members(table, family.given))
        _demand(not family.waits or family.open == left > 0, f"{name} counts {family.open} open children of {left}")
    _demand(sorted(set(listed)) == sorted(listed), "a graph has two parents")
    of_known = {graph for graph, birth in families.births.items() if birth.parent in table.tasks}
    _demand(set(listed) == of_known, "parents and children differ")


def _check_archive(scheduler: Scheduler, tasks: list[Task]) -> None:
    table = scheduler.table
    done = {graph.id for graph in table.graphs.values() if graph.ended_at}
    _demand(done <= set(table.lately) <= set(table.graphs), "the graphs that have ended lately differ")
    referred: dict[str, int] = {}
    for task in tasks:
        for edge in task.dependencies:
            if edge.before.order < 0:
                referred[edge.before.id] = referred.get(edge.before.id, 0) + 1
        loose = sum(edge.after is GONE for edge in task.dependents)
        _demand(table.loose.get(task.id, 0) == loose, f"{task.id} has {loose} loose edges")
    _demand(table.loose.keys() <= table.tasks.keys(), "loose edges are counted of a task that is archived")
    _demand({name: stub.unmet for name, stub in table.stubs.items()} == referred, "the stubs differ from what refers to them")


def _check_sagas(scheduler: Scheduler) -> None:
    table, sagas = scheduler.table, scheduler.table.sagas
    _demand(not sagas.over, "the end of a saga was not looked at")
    graphs = {graph.id: graph.tasks for graph in table.graphs.values()}
    there = {graph for graph, tasks in graphs.items() if any(task.spec.compensate for task in tasks)}
    _demand(set(sagas) == there, "the sagas differ from the graphs that can be undone")
    _demand(set(sagas.origins) <= set(graphs), "a graph that undoes another is gone")
    for graph, saga in sagas.items():
        tasks = graphs[graph]
        _demand(saga.open == sum(not task.ended for task in tasks), f"saga {graph}: {saga.open} counted open")
        done = [task for task in tasks if task.state is State.SUCCEEDED and task.spec.compensate]
        _demand(sorted(saga.done, key=lambda task: task.order) == done, f"saga {graph}: what can be undone differs")
        times = [task.ended_at for task in saga.done]
        _demand(times == sorted(times), f"saga {graph}: not in the order of their ends")
        due = bool(done) and not saga.open and failed(tasks)
        _demand(due == bool(saga.undone_by), f"saga {graph}: undone by {saga.undone_by!r}")
        if saga.undone_by in graphs:
            undoing = graphs[saga.undone_by]
            _demand(sagas.origins[saga.undone_by] == graph, f"saga {graph}: {saga.undone_by} undoes another")
            _demand([sagas.undoes(task) for task in undoing] == [task.id for task in saga.done[::-1]], f"saga {graph}: order")
            _demand(not any(task.state is State.FAILED for task in undoing), f"saga {graph}: not undone, and nobody is told")


def _check_checkpoints(scheduler: Scheduler) -> None:
    table = scheduler.table
    picture = table.checkpoints.picture()
    for name, steps in picture:
        task = table.tasks.get(name)
        _demand(task is not None and task.state is not State.SUCCEEDED, f"steps of {name} are kept, which needs none")
        assert task is not None
        _demand(0 < len(steps) <= MAX_STEPS, f"{name} has {len(steps)} steps")
        for step in steps:
            _demand(0 < step.attempt <= task.attempt, f"{name}: the step {step.name} is of attempt {step.attempt}")
            _demand(not step.done or step.done_at >= step.begun_at, f"{name}: the step {step.name} was done before it began")
            _demand(step.done == bool(step.packed), f"{name}: the step {step.name} has a result, or is done, but not both")
    room = sum(step.size + STEP_BYTES for _, steps in picture for step in steps)
    _demand(table.checkpoints.room == room, f"steps take {room}, {table.checkpoints.room} are counted")


def _check_letters(scheduler: Scheduler) -> None:
    table = scheduler.table
    dead = {task.id for task in table.tasks.values() if task.state is State.DEAD}
    decided = {name for name in dead if table.tasks[name].history[-1].message.startswith(DROPPED)}
    _demand(set(table.letters) == dead - decided, "the dead letters differ from the dead tasks that nobody has decided about")


def _check_budgets(scheduler: Scheduler) -> None:
    table = scheduler.table
    _demand(not table.budgets.pending, "a budget was not looked at")
    for holder, account in table.budgets.items():
        tasks = [task for graph in (holder, *account.sharers) for task in table.graphs.tasks(graph)]
        left = [task for task in tasks if not task.ended]
        _demand(account.open == len(left), f"budget of {holder}: {account.open} counted open")
        most = account.budget.attempts
        _demand(0 <= account.attempts <= (most or account.attempts), f"budget of {holder}: {account.attempts} attempts of {most}")
        _demand(account.attempts >= sum(task.state is State.RUNNING for task in tasks), f"budget of {holder}: too few attempts")
        _demand(account.usage.tokens >= sum(task.usage.tokens for task in tasks), f"budget of {holder}: tokens are missing")
        if not table.backlog:
            _demand(not (account.closed and left), f"budget of {holder}: closed, and something is left")
            startable = [task for task in left if task.state in (State.READY, State.BACKING_OFF)]
            _demand(not (account.over and startable), f"budget of {holder}: used up, and something may start")


def _check_queues(scheduler: Scheduler, tasks: list[Task]) -> None:
    table = scheduler.table
    ready: dict[str, list[Task]] = {}
    for task in tasks:
        _demand((task.state is State.READY) == (task.ready_entry is not None), f"{task.id}: {task.state}, queued or not")
        if task.state is State.READY:
            ready.setdefault(task.pool, []).append(task)
    for task in tasks:
        choices = task.spec.agents or (task.spec.agent,)
        at_first = task.agent == choices[0] or task.state is not State.READY
        _demand(at_first and task.agent in choices, f"{task.id} is with {task.agent} in place of {choices}")
    for pool in table.ready.pools():
        expected = sorted(ready.get(pool, []), key=table.ready.rank)
        _demand(table.ready.waiting(pool) == len(expected), f"pool {pool}: {table.ready.waiting(pool)} counted ready")
        _demand(table.ready.first(pool, len(tasks)) == expected, f"pool {pool}: the ready queue is out of order")
    _demand(set(ready) <= set(table.ready.pools()), "a ready task is in no queue")
    running = [task for task in tasks if task.state is State.RUNNING]
    _demand(table.placed.keys() <= table.running.keys(), "what does not run has the worker of another pool")
    _demand(scheduler.running_tasks() == running, "the running tasks differ")
    for pool in {task.pool for task in tasks} | set(table.running_in):
        count = sum(table.placed.get(task.id, task.pool) == pool for task in running)
        _demand(scheduler.running(pool) == count, f"pool {pool}: {scheduler.running(pool)} counted running, {count} there")


def _check_timers(scheduler: Scheduler, tasks: list[Task]) -> None:
    expected: set[tuple[Due, str]] = set()
    for task in tasks:
        if task.state is State.RUNNING and task.timeout_s:
            expected.add((Due.TIMEOUT, task.id))
        if task.state is State.BACKING_OFF:
            expected.add((Due.BACKOFF, task.id))
        if task.deadline_at and not task.ended:
            expected.add((Due.DEADLINE, task.id))
    timers = scheduler.table.timers
    _demand(timers.watched() == expected, "the timers differ from what is due")
    _demand(set(timers.asleep) <= {task.id for task in tasks if task.state is State.RUNNING}, "what does not run has slept")


def _check_durations(scheduler: Scheduler) -> None:
    durations = scheduler.durations
    _demand(durations.cold <= set(scheduler.table.running), "a task that does not run has a cold start")
    _demand(len(durations.kinds) <= MOST_KINDS, f"durations of {len(durations.kinds)} kinds are kept")
    for key, kind in durations.kinds.items():
        _demand(key == (kind.agent, kind.type), f"the kind {key} has another name")
        _demand(len(kind.recent) == min(RECENT, kind.count + kind.cut), f"{key}: {len(kind.recent)} recent durations")
        _demand(kind.count == kind.warm + kind.cold, f"{key}: {kind.warm} warm and {kind.cold} cold of {kind.count}")
        _demand(all(0 < value < math.inf for value in kind.recent), f"{key}: a duration is no number")
        _demand(all(map(math.isfinite, _figures(kind))), f"{key}: a figure is no number")


def _figures(kind: Kind) -> list[float]:
    regression = kind.regression
    learnt = [*regression.weights, *(value for row in regression.covariance for value in row)] if regression else []
    return [kind.average_s, kind.average_error, kind.cold_s, kind.regression_error, *learnt]
