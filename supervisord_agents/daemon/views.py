"""Read-only answers made from the scheduler's state."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

import msgspec

from supervisord_agents.core.model import Failure, State
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task
from supervisord_agents.errors import InvalidInput, NotFound
from supervisord_agents.wire.messages import ListReply, ListTasks, TaskView

MAX_PAGE = 1_000
MAX_WAITS_FOR = 5
"""Dependencies named in a view: all of a dense graph would make an answer about it larger than a frame."""
MAX_ROWS_IN_FULL = 200
BRIEF_CHARACTERS = 200
"""Of why a task failed, in an answer about more tasks than that: thousands of long messages would not fit into a frame."""
SHOWN_CHARACTERS = 80
Progress = dict[str, tuple[float, str]]


def rows(tasks: Collection[Task], progress: Progress) -> list[TaskView]:
    """Tasks as clients see them, in brief if they are many."""
    brief = len(tasks) > MAX_ROWS_IN_FULL
    return [view(task, progress, brief) for task in tasks]


def view(task: Task, progress: Progress, brief: bool = False) -> TaskView:
    """A task as clients see it."""
    spec = task.spec
    fraction, message = progress.get(task.id, (-1.0, ""))
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
        waits_for=_waits_for(task),
        waits_for_count=_waits_for_count(task),
        failure=_in_brief(task.failure) if brief and task.failure is not None else task.failure,
        usage=task.usage,
        progress=fraction,
        progress_message=message,
    )


def _in_brief(failure: Failure) -> Failure:
    message = failure.message
    if len(message) > BRIEF_CHARACTERS:
        message = message[: BRIEF_CHARACTERS - 1] + "…"
    return msgspec.structs.replace(failure, message=message, hint="")


def _waits_for(task: Task) -> list[str]:
    if task.state is not State.BLOCKED:
        return []
    return list(islice((edge.before.id for edge in task.dependencies if not edge.before.ended), MAX_WAITS_FOR))


def _waits_for_count(task: Task) -> int:
    return task.unmet if task.state is State.BLOCKED else 0


def page(scheduler: Scheduler, request: ListTasks, progress: Progress) -> ListReply:
    """A page of tasks, newest first. Raises InvalidInput for a limit out of range or a page token that is none."""
    if not 1 <= request.limit <= MAX_PAGE:
        raise InvalidInput(f"must be from 1 to {MAX_PAGE}.", field="limit")
    matching = _matching(scheduler, request)
    if request.after:
        for task in matching:
            if task.id == request.after:
                break
        else:
            raise InvalidInput("names no task of this list.", field="after", hint="Use the `next` of the page before.")
    found = list(islice(matching, request.limit + 1))
    more = len(found) > request.limit
    found = found[: request.limit]
    return ListReply(
        tasks=rows(found, progress),
        total=_total(scheduler, request),
        next=found[-1].id if more else "",
    )


def _matching(scheduler: Scheduler, request: ListTasks) -> Iterator[Task]:
    wanted = set(request.states)
    tasks = (
        (scheduler.tasks[name] for name in reversed(graph_tasks(scheduler, request.graph)))
        if request.graph
        else reversed(scheduler.tasks.values())
    )
    return (task for task in tasks if not wanted or task.state in wanted)


def _total(scheduler: Scheduler, request: ListTasks) -> int:
    if request.graph:
        return sum(1 for _ in _matching(scheduler, request))
    counts = scheduler.counts
    return sum(count for state, count in counts.items() if not request.states or state in request.states)


def graph_tasks(scheduler: Scheduler, graph: str) -> list[str]:
    """Full ids of a graph's tasks; raises NotFound."""
    names = scheduler.graph_tasks(graph)
    if not names:
        raise NotFound(f"no graph is called `{shown(graph)}`.", field="graph", hint="See: agentctl list")
    return names


def resolve_target(scheduler: Scheduler, name: str, field: str = "task") -> str:
    """The task id or graph id behind an id or an unambiguous prefix of one; raises NotFound or InvalidInput."""
    found = scheduler.resolve(name)
    if not name or not found:
        raise NotFound(f"no task is called `{shown(name)}`.", field=field, hint="See: agentctl list")
    if len(found) > 1:
        some = ", ".join(found[:5])
        raise InvalidInput(f"`{shown(name)}` may be any of {len(found)}: {some}.", field=field, hint="Give more of the id.")
    return found[0]


def resolve(scheduler: Scheduler, name: str, field: str = "task") -> list[str]:
    """The task ids behind such a name: one, or all of a graph; raises NotFound or InvalidInput."""
    target = resolve_target(scheduler, name, field)
    return [target] if target in scheduler.tasks else graph_tasks(scheduler, target)


def resolve_one(scheduler: Scheduler, name: str) -> Task:
    """The one task behind a name; raises NotFound or InvalidInput."""
    found = resolve(scheduler, name)
    if len(found) > 1:
        raise InvalidInput(
            f"`{name}` is a graph of {len(found)} tasks.", field="task", hint=f"Name one of them, such as {found[0]}."
        )
    return scheduler.tasks[found[0]]


def shown(name: str) -> str:
    """A name of somebody's choosing, of a length to be repeated."""
    return name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "…"
