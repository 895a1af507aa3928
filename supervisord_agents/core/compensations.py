"""From what undoes a task to the task that does so: as a client asks for it, as it is accepted, and as it is run."""

from __future__ import annotations

import msgspec

from supervisord_agents.core.events import Compensating, Submitted
from supervisord_agents.core.model import Compensation, Dependency, Limits, TaskSpec, When, WorkspaceMode
from supervisord_agents.core.saga import Saga, failed
from supervisord_agents.core.submit import submitted
from supervisord_agents.core.table import TaskTable

_NO_LIMITS = Limits()


def asked(spec: TaskSpec) -> TaskSpec:
    """What undoes an accepted task that has a compensation, as a task that is yet to be completed and checked like any other."""
    wanted = spec.compensate
    assert wanted is not None
    workspace = wanted.workspace or spec.workspace
    mode = wanted.workspace_mode
    if not wanted.workspace and workspace:
        mode = mode or spec.workspace_mode or WorkspaceMode.DIR
    return _task(
        spec,
        msgspec.structs.replace(
            wanted,
            workspace=workspace,
            workspace_mode=mode,
            profile=wanted.profile or spec.profile,
            limits=spec.limits if wanted.limits == _NO_LIMITS else wanted.limits,
        ),
    )


def accepted(spec: TaskSpec, undoing: TaskSpec) -> TaskSpec:
    """The task with what `asked` gave, completed, as its compensation."""
    fields = {name: getattr(undoing, name) for name in Compensation.__struct_fields__}
    return msgspec.structs.replace(spec, compensate=Compensation(**fields))


def begin(table: TaskTable, now: float) -> None:
    """Undo the graphs that have just ended, as far as they failed and there is something to undo."""
    over = table.sagas.over
    while over:
        graph = over.pop(0)
        saga = table.sagas[graph]
        if not saga.open and saga.done and not saga.undone_by and failed(table.graphs.tasks(graph)):
            _begin(table, graph, saga, now)


def _begin(table: TaskTable, graph: str, saga: Saga, now: float) -> None:
    name = f"u{graph}"
    while name in table.graphs:
        name = f"u{name}"
    saga.undone_by = name
    table.sagas.origins[name] = graph
    specs: list[TaskSpec] = []
    for task in reversed(saga.done):
        edges = [Dependency(task.id)]
        if specs:
            edges.append(Dependency(specs[-1].id, When.ALWAYS))
        specs.append(_task(task.spec, task.spec.compensate, id=task.short_id, dependencies=tuple(edges)))
    table.decide(Compensating(graph=graph, by=name))
    submitted(table, Submitted(graph=name, specs=tuple(specs), client=saga.done[0].client), now)


def _task(spec: TaskSpec, wanted: Compensation | None, **fields: object) -> TaskSpec:
    return TaskSpec(**msgspec.structs.asdict(wanted), priority=spec.priority, **fields)  # type: ignore[arg-type]
