"""The door: a client's graph is completed from the configuration and checked here, before anything is journalled."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from supervisord_agents.config import Config
from supervisord_agents.core import compensations
from supervisord_agents.core.budgets import NO_BUDGET
from supervisord_agents.core.descent import until
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import Budget, TaskSpec, WorkspaceMode
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.forecast import Forecast
from supervisord_agents.daemon.heritage import Heritage
from supervisord_agents.daemon.workspaces import Workspaces
from supervisord_agents.errors import InvalidInput, SupervisorError
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.profiles import TaskProfiles

AT_ONCE = 250
"""Tasks looked at in one turn of the loop."""
DEFAULT_POOL = "standard"
DEFAULT_AGENT = TaskSpec().agent
MAX_AGENTS = 8
MAX_SPEC_BYTES = 4 * 1024 * 1024
"""Of one encoded task: half a frame, so that it fits into the worker's with its dependencies' outputs."""
_encoder = msgspec.msgpack.Encoder()


class Admission:
    """Completes and checks task specifications for one daemon."""

    def __init__(self, config: Config, agents: AgentRegistry, workspaces: Workspaces, forecast: Forecast) -> None:
        self._config = config
        self._forecast = forecast
        self._agents = agents
        self._workspaces = workspaces
        self._profiles = TaskProfiles(config)
        self._heritage = Heritage(config)
        self._budget = msgspec.convert(config.tasks.budget, Budget, from_attributes=True)

    def admit(self, tasks: list[TaskSpec], uid: int) -> tuple[TaskSpec, ...]:
        """The specifications as they will be journalled, asked for by a client of this uid.

        Raises InvalidInput (or SandboxRefused for a missing program), naming the field.
        """
        self._refuse_too_many(tasks)
        seen = _Seen(uid)
        return tuple([self._complete(spec, index, seen) for index, spec in enumerate(normalise(tasks))])

    async def admit_many(self, tasks: list[TaskSpec], uid: int) -> tuple[TaskSpec, ...]:
        """The same for a graph of very many; the loop goes on in between."""
        self._refuse_too_many(tasks)
        seen = _Seen(uid)
        specs: list[TaskSpec] = []
        for index, spec in enumerate(normalise(tasks)):
            specs.append(self._complete(spec, index, seen))
            if index % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        return tuple(specs)

    async def admit_children(self, tasks: list[TaskSpec], parent: Task, now: float) -> tuple[TaskSpec, ...]:
        """The same for children of a running task: by the rights of its client, and no more than it was given itself."""
        given = parent.spec_of_attempt
        asked = [self._heritage.asked(until(task, parent, now), given, f"tasks[{index}]") for index, task in enumerate(tasks)]
        specs = await self.admit_many(asked, int(parent.client))
        return tuple([self._heritage.kept(spec, given, f"tasks[{index}]") for index, spec in enumerate(specs)])

    def budget(self, asked: Budget) -> Budget:
        """The budget of a graph: what a client asks for, else what is configured."""
        if self._budget == NO_BUDGET:
            return asked
        fields = Budget.__struct_fields__
        return Budget(**{name: getattr(asked, name) or getattr(self._budget, name) for name in fields})

    def check_scope(self, pool: str, agent: str) -> None:
        """Raise InvalidInput for a pool or an agent that there is not; empty: none is meant."""
        if pool and pool not in self._config.pools:
            raise self._unknown_pool(pool)
        if agent:
            self._agents.get(agent)

    def _refuse_too_many(self, tasks: list[TaskSpec]) -> None:
        limit = self._config.daemon.max_tasks_per_graph
        if len(tasks) > limit:
            raise InvalidInput(
                f"the graph has {len(tasks)} tasks, the limit is {limit}.",
                field="tasks",
                hint="Submit it in parts: a task may depend on an earlier graph's tasks by their full ids.",
            )

    def _complete(self, spec: TaskSpec, index: int, seen: _Seen) -> TaskSpec:
        try:
            if spec.agents:
                spec = _with_first_agent(spec)
            self._agents.check(spec, self._settings(spec.agent, seen))
            for agent in spec.agents[1:]:
                self._agents.check(msgspec.structs.replace(spec, agent=agent), self._settings(agent, seen))
            pool = spec.pool or self._pool_of(spec.agent)
            if pool not in self._config.pools:
                raise self._unknown_pool(pool)
            workspace = self._real(spec.workspace, seen) if spec.workspace else ""
            timeout_s = self._profiles.timeout_s(spec, self._forecast.timeout_s(spec))
            mode = self._mode_of(spec)
            _check_size(spec)
        except SupervisorError as error:
            error.field = f"tasks[{index}].{error.field}" if error.field else f"tasks[{index}]"
            raise
        completed = msgspec.structs.replace(
            spec,
            pool=pool,
            workspace=workspace,
            workspace_mode=mode,
            timeout_s=timeout_s,
            backoff_s=spec.backoff_s or self._config.tasks.backoff_s,
            estimate_s=self._forecast.estimate_s(spec),
        )
        return completed if spec.compensate is None else self._with_compensation(completed, index, seen)

    def _with_compensation(self, spec: TaskSpec, index: int, seen: _Seen) -> TaskSpec:
        try:
            return compensations.accepted(spec, self._complete(compensations.asked(spec), index, seen))
        except SupervisorError as error:
            error.field = error.field.replace(f"tasks[{index}]", f"tasks[{index}].compensate", 1)
            raise

    def _settings(self, agent: str, seen: _Seen) -> dict[str, Any]:
        settings = seen.settings.get(agent)
        if settings is None:
            settings = seen.settings[agent] = self._agents.usable(agent)
        return settings

    def _real(self, workspace: str, seen: _Seen) -> str:
        real = seen.workspaces.get(workspace)
        if real is None:
            real = seen.workspaces[workspace] = self._workspaces.real(workspace, seen.uid)
        return real

    def _pool_of(self, agent: str) -> str:
        table = self._config.agents.get(agent)
        if table is not None and table.pool:
            return table.pool
        return DEFAULT_POOL if DEFAULT_POOL in self._config.pools else next(iter(self._config.pools))

    def _mode_of(self, spec: TaskSpec) -> WorkspaceMode | None:
        """The mode, which is said only where it is another than that of every version before: dir."""
        if not spec.workspace:
            if spec.workspace_mode in (None, WorkspaceMode.DIR):
                return None
            raise InvalidInput(
                f"`{spec.workspace_mode}` needs a workspace to begin with.",
                field="workspace_mode",
                hint="Name one in `workspace`; without, the task has a private empty directory.",
            )
        table = self._config.agents.get(spec.agent)
        configured = (table.workspace_mode if table is not None else "") or self._config.workspaces.mode
        mode = spec.workspace_mode or WorkspaceMode(configured)
        return None if mode is WorkspaceMode.DIR else mode

    def _unknown_pool(self, pool: str) -> InvalidInput:
        known = ", ".join(sorted(self._config.pools))
        return InvalidInput(f"no pool is called `{pool}`.", field="pool", hint=f"Configured pools: {known}.")


def _with_first_agent(spec: TaskSpec) -> TaskSpec:
    """`agents` of one is `agent`, and that is the first of several."""
    first, others = spec.agents[0], spec.agents[1:]
    if spec.agent not in (DEFAULT_AGENT, first):
        raise InvalidInput(
            f"is `{spec.agent}`, and `agents` begins with `{first}`.", field="agent", hint="Leave one of them out."
        )
    if len(others) >= MAX_AGENTS:
        raise InvalidInput(f"names {len(spec.agents)} agents, the limit is {MAX_AGENTS}.", field="agents")
    return msgspec.structs.replace(spec, agent=first, agents=spec.agents if others else ())


class _Seen:
    """What was looked up for one graph, whose tasks share most of it."""

    __slots__ = ("settings", "uid", "workspaces")

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.settings: dict[str, dict[str, Any]] = {}
        """By agent."""
        self.workspaces: dict[str, str] = {}
        """Real paths, by what the client calls them."""


def _check_size(spec: TaskSpec) -> None:
    size = len(_encoder.encode(spec))
    if size > MAX_SPEC_BYTES:
        raise InvalidInput(
            f"the task is {size} bytes, the limit is {MAX_SPEC_BYTES}.",
            field="input",
            hint="Put large data into a file of the workspace and name the file.",
        )
