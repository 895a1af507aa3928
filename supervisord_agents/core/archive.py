"""Graphs that leave memory once all their tasks have ended.

A whole graph goes, when nothing that is still open waits for one of its tasks. What has ended and waited for one keeps a stub of
it: its id and how it ended, which is all that the scheduler needs to know. Stubs go with the last that refers to them.
"""

from __future__ import annotations

from itertools import islice

from supervisord_agents.core import letters as letters_of
from supervisord_agents.core.events import Archived
from supervisord_agents.core.graphs import Graph
from supervisord_agents.core.model import DEFAULT_PRIORITY, END_STATES, Failure, Past, State
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Edge, Task, graph_of

LOOKED_AT = 1_000
"""Graphs, for one answer of `candidates`."""


def stub(past: Past) -> Task:
    """A task of which only its end is known. `unmet` counts the edges that refer to it."""
    return Task(
        id=past.task,
        graph=graph_of(past.task),
        packed=b"",
        pool="",
        agent="",
        priority=DEFAULT_PRIORITY,
        timeout_s=0.0,
        estimate_s=0.0,
        state=past.state,
        failure=Failure(past.code, retriable=False) if past.code else None,
        order=-1,
    )


GONE = stub(Past("", State.SUCCEEDED))
"""Stands for every dependent that has left memory."""


def may_go(table: TaskTable, graph: Graph) -> bool:
    """Whether all of its tasks have ended, all that waits for them, and all their ancestors."""
    if not graph.ended_at or not all(edge.after.ended for task in graph.tasks for edge in task.dependents):
        return False
    account = table.budgets.get(graph.id)
    if account is not None and account.open:
        return False  # Its budget is others' too.
    # What an ancestor may still be given, or is counted by.
    return all(task.ended for task in table.families.ancestors(graph.tasks[0], table.tasks))


def candidates(table: TaskTable, keep: int, older_than: float, limit: int, letters: int) -> list[Graph]:
    """The graphs to archive next, first ended first: as many as there are more than `keep` ended tasks in memory, and those that
    ended before `older_than`; none with one of the newest `letters` dead letters.

    At most `limit` tasks, or one graph; none while there is a backlog.
    """
    if table.backlog:
        return []
    over = sum(table.counts[state] for state in END_STATES) - keep
    unheld = letters_of.unheld(table, letters)
    chosen: list[Graph] = []
    tasks = 0
    for name in list(islice(table.lately, LOOKED_AT)):
        graph = table.graphs[name]
        ended_at = graph.ended_at
        if not ended_at:
            del table.lately[name]  # It comes back with its next end.
            continue
        if ended_at >= older_than and tasks >= over:
            break
        if chosen and tasks + len(graph.tasks) > limit:
            break
        if may_go(table, graph) and not (table.letters and letters_of.held(table, graph, unheld)):
            chosen.append(graph)
            tasks += len(graph.tasks)
        else:
            # Behind the others: else a few that live long would hide all that ended after them.
            table.lately[name] = table.lately.pop(name)
    return chosen


def archived(table: TaskTable, event: Archived, now: float) -> None:
    """Forget these graphs; one that may not go stays."""
    if table.backlog:
        return
    for name in event.graphs:
        if name in table.graphs and may_go(table, table.graphs[name]):
            _forget(table, table.graphs.remove(name))


def _forget(table: TaskTable, graph: Graph) -> None:
    for task in graph.tasks:
        for edge in task.dependencies:
            if edge.before.graph != graph.id:
                _leave(table, edge)
        for edge in task.dependents:
            if edge.after.graph != graph.id and edge.after is not GONE:
                _keep_stub(table, edge)
    table.families.forget(graph.id, graph.tasks)
    for task in graph.tasks:
        task.dependencies = task.dependents = ()
        del table.tasks[task.id]
        table.loose.pop(task.id, None)
        table.checkpoints.forget(task.id)
        table.counts[task.state] -= 1
        table.letters.pop(task.id, None)
    table.lately.pop(graph.id, None)
    table.sagas.forget(graph.id)
    table.budgets.forget(graph.id)
    if graph.key and table.keys.get(graph.key) == graph.id:
        del table.keys[graph.key]


def _leave(table: TaskTable, edge: Edge) -> None:
    """The dependent goes, what it waited for stays."""
    before = edge.before
    if before.order < 0:
        before.unmet -= 1
        if not before.unmet:
            del table.stubs[before.id]
        return
    edge.after = GONE
    table.loose[before.id] = loose = table.loose.get(before.id, 0) + 1
    if 2 * loose > len(before.dependents):
        # Not each time: a task with a million dependents would be walked through a million times.
        table.tighten(before)


def _keep_stub(table: TaskTable, edge: Edge) -> None:
    """The dependent stays, what it waited for goes."""
    before = edge.before
    known = table.stubs.get(before.id)
    if known is None:
        failure = before.failure
        known = table.stubs[before.id] = stub(Past(before.id, before.state, failure.code if failure else ""))
    known.unmet += 1
    edge.before = known
