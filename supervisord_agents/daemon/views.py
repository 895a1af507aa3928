"""Read-only answers made from the scheduler's state."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

import msgspec

from supervisord_agents.core.model import Failure, State
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.signs import NO_SIGN, Sign
from supervisord_agents.errors import InvalidInput, NotFound
from supervisord_agents.wire.messages import ListReply, ListTasks, TaskView

MAX_PAGE = 1_000
_LOOKED_AT_ONCE = 4_096
_ROWS_AT_ONCE = 1_024
"""In one turn of the loop, as far as a million tasks are looked through for a page."""
MAX_WAITS_FOR = 5
"""Dependencies named in a view: all of a dense graph would make an answer about it larger than a frame."""
MAX_ROWS_IN_FULL = 200
BRIEF_CHARACTERS = 200
"""Of why a task failed, in an answer about more tasks than that: thousands of long messages would not fit into a frame."""
SHOWN_CHARACTERS = 80


class Known(Protocol):
    """What running attempts have said."""

    def get(self, task: str, /) -> Sign | None: ...


async def rows(tasks: Sequence[Task], signs: Known, scheduler: Scheduler) -> list[TaskView]:
    """Tasks as clients see them, in brief if they are many; the loop goes on in between."""
    brief = len(tasks) > MAX_ROWS_IN_FULL
    made: list[TaskView] = []
    for start in range(0, len(tasks), _ROWS_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        made += [view(task, signs, scheduler, brief) for task in tasks[start : start + _ROWS_AT_ONCE]]
    return made


def view(task: Task, signs: Known, scheduler: Scheduler, brief: bool = False) -> TaskView:
    """A task as clients see it."""
    spec = task.spec
    sign = signs.get(task.id) or NO_SIGN
    return TaskView(
        id=task.id,
        graph=task.graph,
        agent=spec.agent,
        type=spec.type,
        state=task.state,
        priority=spec.priority,
        attempt=task.attempt,
        max_retries=spec.max_retries,
        submitted_at=task.submitted_at,
        started_at=task.started_at,
        ended_at=task.ended_at,
        retry_at=task.retry_at,
        worker=task.worker,
        pool=spec.pool,
        parent=scheduler.families.parent(task),
        waits_for=[other.id for other in islice(scheduler.waits_for(task), MAX_WAITS_FOR)],
        waits_for_count=scheduler.waits_for_count(task),
        failure=in_brief(task.failure) if brief and task.failure is not None else task.failure,
        usage=task.usage,
        progress=sign.fraction,
        progress_message=sign.message,
        progress_at=sign.at,
    )


def in_brief(failure: Failure) -> Failure:
    """Short enough for an answer that tells of very many."""
    message = failure.message
    if len(message) > BRIEF_CHARACTERS:
        message = message[: BRIEF_CHARACTERS - 1] + "…"
    return msgspec.structs.replace(failure, message=message, hint="")


class Elsewhere(Protocol):
    """Tasks that are not in memory (daemon.archivist)."""

    async def task_of(self, id: str) -> Task | None:
        """One of them."""

    async def page(self, before: int, count: int, graph: str, states: Sequence[State]) -> list[Task]:
        """At most `count` tasks of an order below `before`, newest first."""

    async def count(self, graph: str, states: Sequence[State]) -> int:
        """How many tasks match."""


async def page(scheduler: Scheduler, elsewhere: Elsewhere, request: ListTasks, signs: Known) -> ListReply:
    """A page of tasks, newest first. Raises InvalidInput for a limit out of range or a page token that is none.

    The loop goes on in between; what it changes meanwhile may be seen or not.
    """
    if not 1 <= request.limit <= MAX_PAGE:
        raise InvalidInput(f"must be from 1 to {MAX_PAGE}.", field="limit")
    graph, states = request.graph, request.states
    if graph and not scheduler.graph_tasks(graph) and not await elsewhere.count(graph, ()):
        raise no_graph(graph)
    cursor = await _cursor(scheduler, elsewhere, request)
    # Memory first: what is archived meanwhile is then found twice, and not lost in between.
    found = {task.id: task for task in await _matching(scheduler, request, cursor)}
    for task in await elsewhere.page(cursor, request.limit + 1, graph, states):
        found.setdefault(task.id, task)
    tasks = sorted(found.values(), key=lambda task: -task.order)
    more = len(tasks) > request.limit
    tasks = tasks[: request.limit]
    return ListReply(
        tasks=await rows(tasks, signs, scheduler),
        total=_total(scheduler, request) + await elsewhere.count(graph, states),
        next=tasks[-1].id if more else "",
    )


async def _cursor(scheduler: Scheduler, elsewhere: Elsewhere, request: ListTasks) -> int:
    """The page holds tasks of smaller orders."""
    if not request.after:
        return scheduler.next_order
    task = scheduler.tasks.get(request.after) or await elsewhere.task_of(request.after)
    if task is None or (request.graph and task.graph != request.graph):
        raise InvalidInput("names no task of this list.", field="after", hint="Use the `next` of the page before.")
    return task.order


async def _matching(scheduler: Scheduler, request: ListTasks, cursor: int) -> list[Task]:
    """One more than the page holds, if there are so many."""
    found: list[Task] = []
    wanted = set(request.states)
    if wanted and not request.graph and not any(scheduler.counts[state] for state in wanted):
        return found
    while some := scheduler.before(cursor, _LOOKED_AT_ONCE, request.graph):
        found += [task for task in some if not wanted or task.state in wanted]
        if len(found) > request.limit:
            return found[: request.limit + 1]
        cursor = some[-1].order
        await asyncio.sleep(0)
    return found


def _total(scheduler: Scheduler, request: ListTasks) -> int:
    if request.graph:
        tasks = scheduler.table.graphs.tasks(request.graph)
        return sum(task.state in request.states for task in tasks) if request.states else len(tasks)
    counts = scheduler.counts
    return sum(count for state, count in counts.items() if not request.states or state in request.states)


def no_graph(graph: str) -> NotFound:
    return NotFound(f"no graph is called `{shown(graph)}`.", field="graph", hint="See: agentctl list")


def one_of(found: list[str], name: str, field: str = "task") -> str:
    """The one id that a name stands for; raises NotFound or InvalidInput."""
    if not name or not found:
        raise NotFound(f"no task is called `{shown(name)}`.", field=field, hint="See: agentctl list")
    if len(found) > 1:
        some = ", ".join(found[:5])
        raise InvalidInput(f"`{shown(name)}` may be any of {len(found)}: {some}.", field=field, hint="Give more of the id.")
    return found[0]


def a_graph(name: str, tasks: Sequence[str]) -> InvalidInput:
    """For a graph where a task should be named."""
    return InvalidInput(
        f"`{name}` is a graph of {len(tasks)} tasks.", field="task", hint=f"Name one of them, such as {tasks[0]}."
    )


def shown(name: str) -> str:
    """A name of somebody's choosing, of a length to be repeated."""
    return name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "…"
