"""What may become an event: the rules that a request has to meet before it is journalled.

Every refusal is an InvalidInput or NotFound that names the field, such as `tasks[2].dependencies[0]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from supervisord_agents.core import compensations
from supervisord_agents.core.budgets import HINT, NO_BUDGET
from supervisord_agents.core.dependents import obstacle
from supervisord_agents.core.descent import check_parent
from supervisord_agents.core.events import (
    BreakerReset,
    CancelRequested,
    Dropped,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    Submitted,
)
from supervisord_agents.core.graph import edge_of, find_cycle, inner_dependencies, name_cycle
from supervisord_agents.core.model import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    MAX_COST_USD,
    MAX_TOKENS,
    Budget,
    Limits,
    State,
    TaskSpec,
)
from supervisord_agents.core.pauses import Scope
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import ID
from supervisord_agents.errors import InvalidInput, NotFound, Unavailable

MAX_RETRIES_LIMIT = 100
MAX_TIME_S = 10 * 365 * 86400.0
AT_ONCE = 500
"""Tasks of a graph checked without a stop."""
MAX_KEY_CHARACTERS = 256
MAX_TYPE_CHARACTERS = 64
MAX_REASON_CHARACTERS = 1000
"""It is kept with every task that the request ends."""

_ID = re.compile(ID)
_ID_RULE = "must be 1 to 64 letters, digits, '_' or '-'"
_TIMES = ("timeout_s", "deadline_s", "backoff_s", "estimate_s")
_NO_LIMITS = Limits()
_LIMITS = {"memory_bytes": 1 << 50, "pids": 1 << 22, "cpu_percent": 1_000_000}
"""With the most of each: more than any machine has, less than the kernel refuses."""
_BUDGETS = {"attempts": MAX_TOKENS, "tokens": MAX_TOKENS, "cost_usd": MAX_COST_USD, "wall_s": MAX_TIME_S}
_ENDED = {State.SUCCEEDED: "succeeded", State.FAILED: "failed", State.DEAD: "is dead", State.CANCELLED: "was cancelled"}
_SHOWN = 80
"""Characters of a wrong value that a message repeats."""


def checks_of_submitted(table: TaskTable, event: Submitted) -> Iterator[None]:
    """Raise InvalidInput unless the graph, with its ids filled in, can be taken up as it is; stops after every AT_ONCE tasks."""
    if not _ID.fullmatch(event.graph):
        raise InvalidInput(f"a graph id {_ID_RULE}, not {_shown(event.graph)}", field="graph")
    _check_length("key", event.key, MAX_KEY_CHARACTERS)
    if not event.specs:
        raise InvalidInput("a graph needs at least one task", field="tasks")
    _check_place(table, event)  # first: a child is told nothing of tasks that are none of its business
    if event.budget != NO_BUDGET:
        _check_within(event.budget, _BUDGETS, "budget")
    specs = event.specs
    positions: dict[str, int] = {}
    for start in range(0, len(specs), AT_ONCE):
        _check_tasks(specs, positions, start, start + AT_ONCE)
        yield
    forward = False
    past = {item.task for item in event.past}
    for start in range(0, len(specs), AT_ONCE):
        for position, spec in enumerate(specs[start : start + AT_ONCE], start):
            if spec.dependencies:
                forward |= _check_dependencies(table, spec, position, positions, past)
        yield
    if forward:
        _check_cycles(specs)
    _check_place(table, event)  # other events may have come in between


def _check_place(table: TaskTable, event: Submitted) -> None:
    if event.graph in table.graphs:
        raise InvalidInput(f"the graph {event.graph} exists already", field="graph")
    if event.key and event.key in table.keys:
        raise InvalidInput(f"the key was used for graph {table.keys[event.key]}", field="key")
    if event.parent:
        check_parent(table, event)


def check_cancel(table: TaskTable, event: CancelRequested, now: float) -> None:
    """Raise NotFound unless the id is that of a task or of a graph, InvalidInput for a reason that is too long."""
    _check_length("reason", event.reason, MAX_REASON_CHARACTERS)
    if event.task not in table.tasks and event.task not in table.graphs:
        raise NotFound(
            f"there is no task or graph {_shown(event.task)}", field="task", hint="`agentctl list` shows what there is."
        )


def check_pause(table: TaskTable, event: PauseRequested, now: float) -> None:
    """Raise InvalidInput for a reason that is too long; the shell knows which pools and agents there are."""
    _check_length("reason", event.reason, MAX_REASON_CHARACTERS)


def check_reset(table: TaskTable, event: BreakerReset, now: float) -> None:
    """Raise NotFound for an agent that has not failed."""
    if event.agent not in table.health:
        there = ", ".join(sorted(table.health)) or "none"
        raise NotFound(f"the agent {_shown(event.agent)} has not failed lately; agents that have: {there}", field="agent")


def check_resume(table: TaskTable, event: ResumeRequested, now: float) -> None:
    """Raise NotFound if nothing is held by such a pause."""
    if not event.everything and Scope(event.pool, event.agent) not in table.pauses:
        there = ", ".join(map(str, sorted(table.pauses))) or "nothing"
        raise NotFound(f"there is no pause of {Scope(event.pool, event.agent)}; paused: {there}", field="pool")


def check_drop(table: TaskTable, event: Dropped, now: float) -> None:
    """Raise NotFound for a task that is no dead letter, InvalidInput for a reason that is too long."""
    _check_length("reason", event.reason, MAX_REASON_CHARACTERS)
    for name in event.tasks:
        if name not in table.letters:
            raise NotFound(f"{_shown(name)} is no dead letter", field="tasks", hint="`agentctl dlq list` shows what there is.")


def check_retry(table: TaskTable, event: RetryRequested, now: float) -> None:
    """Raise NotFound for an unknown task, InvalidInput for one that another round cannot help."""
    if table.backlog:
        raise Unavailable(
            "a large cancellation or failure is still being carried out.",
            kept="Nothing was changed.",
            hint="Try again in a few seconds.",
        )
    task = table.tasks.get(event.task)
    if task is None:
        raise NotFound(f"there is no task {_shown(event.task)}", field="task", hint="`agentctl list` shows what there is.")
    if task.state is State.SUCCEEDED:
        raise InvalidInput(
            f"task {task.id} succeeded; there is nothing to retry", field="task", hint="Submit it anew to repeat it."
        )
    if not task.ended:
        raise InvalidInput(f"task {task.id} has not ended, it is {task.state}", field="task", hint="Cancel it first, or wait.")
    undone_by = table.sagas.undone_by(task.graph)
    if undone_by:
        raise InvalidInput(
            f"task {task.id} is of a graph that failed, and what had succeeded of it is undone by {undone_by}",
            field="task",
            hint=f"Submit the graph anew once {undone_by} has ended.",
        )
    account = table.budgets.of(task.graph)
    over = account.over_at(now) if account is not None else ""
    if over:
        raise InvalidInput(f"the budget of {table.budgets.holder(task.graph)} is used up: {over}", field="task", hint=HINT)
    edge = obstacle(task)
    if edge is not None:
        before = edge.before
        hint = (
            f"Retry {before.id}, this task follows."
            if before.state is not State.SUCCEEDED
            else "It is only needed if that fails."
        )
        raise InvalidInput(
            f"task {task.id} would end at once again, because its dependency {before.id} {_ENDED[before.state]}",
            field="task",
            hint=hint,
        )


def _check_tasks(specs: Sequence[TaskSpec], positions: dict[str, int], start: int, stop: int) -> None:
    for position, spec in enumerate(specs[start:stop], start):
        if not _ID.fullmatch(spec.id):
            raise InvalidInput(f"an id {_ID_RULE}, not {_shown(spec.id)}", field=f"tasks[{position}].id")
        earlier = positions.setdefault(spec.id, position)
        if earlier != position:
            raise InvalidInput(f"the id {spec.id} is already that of tasks[{earlier}]", field=f"tasks[{position}].id")
        _check_numbers(spec, position)
        if spec.compensate is not None:
            _check_numbers(compensations.asked(spec), position, ".compensate")


def _check_cycles(specs: Sequence[TaskSpec]) -> None:
    cycle = find_cycle(inner_dependencies(specs))
    if cycle:
        named = name_cycle([specs[position].id for position in cycle])
        raise InvalidInput(
            f"the dependencies form a cycle, each waits for the next: {named}", field=f"tasks[{cycle[0]}].dependencies"
        )


def _check_numbers(spec: TaskSpec, position: int, part: str = "") -> None:
    if not HIGHEST_PRIORITY <= spec.priority <= LOWEST_PRIORITY:
        raise InvalidInput(
            f"must be {HIGHEST_PRIORITY} (first) to {LOWEST_PRIORITY} (last), not {spec.priority}",
            field=f"tasks[{position}]{part}.priority",
        )
    if not 0 <= spec.max_retries <= MAX_RETRIES_LIMIT:
        raise InvalidInput(
            f"must be 0 to {MAX_RETRIES_LIMIT}, not {spec.max_retries}", field=f"tasks[{position}]{part}.max_retries"
        )
    if not (
        0.0 <= spec.timeout_s <= MAX_TIME_S
        and 0.0 <= spec.deadline_s <= MAX_TIME_S
        and 0.0 <= spec.backoff_s <= MAX_TIME_S
        and 0.0 <= spec.estimate_s <= MAX_TIME_S
    ):
        name = next(name for name in _TIMES if not 0.0 <= getattr(spec, name) <= MAX_TIME_S)
        raise InvalidInput(
            f"must be a number of seconds, 0 to {MAX_TIME_S:.0f}, not {getattr(spec, name)}",
            field=f"tasks[{position}]{part}.{name}",
        )
    if spec.agents and (spec.agents[0] != spec.agent or len(set(spec.agents)) < len(spec.agents)):
        raise InvalidInput(
            "must name different agents, the first of them as `agent` does or where that is left out",
            field=f"tasks[{position}].agents",
        )
    if spec.type:
        _check_length(f"tasks[{position}]{part}.type", spec.type, MAX_TYPE_CHARACTERS)
    if spec.limits == _NO_LIMITS:
        return
    _check_within(spec.limits, _LIMITS, f"tasks[{position}]{part}.limits")


def _check_within(given: Limits | Budget, most_of: Mapping[str, float], field: str) -> None:
    for name, most in most_of.items():
        value = getattr(given, name)
        if not 0 <= value <= most:
            raise InvalidInput(f"must be 0 to {most:.0f}, not {value}", field=f"{field}.{name}")


def _check_length(field: str, text: str, most: int) -> None:
    if len(text) > most:
        raise InvalidInput(f"is {len(text)} characters long, the limit is {most}", field=field)


def _check_dependencies(table: TaskTable, spec: TaskSpec, position: int, positions: dict[str, int], past: set[str]) -> bool:
    """Check the edges of one task; whether one leads to a later task of the graph."""
    seen: set[str] = set()
    forward = False
    for index, dependency in enumerate(spec.dependencies):
        name, _ = edge_of(dependency)
        inner = positions.get(name)
        fault = hint = ""
        if inner == position:
            fault = f"the task {spec.id} depends on itself"
        elif name in seen:
            fault = f"{_shown(name)} is already a dependency of this task"
        elif inner is None and name not in table.tasks and name not in table.stubs and name not in past:
            fault = f"unknown dependency {_shown(name)}"
            hint = "Name a task of this graph by its id, or an earlier task by its full id, <graph>.<id>."
        if fault:
            raise InvalidInput(fault, field=f"tasks[{position}].dependencies[{index}]", hint=hint)
        seen.add(name)
        forward |= inner is not None and inner > position
    return forward


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
