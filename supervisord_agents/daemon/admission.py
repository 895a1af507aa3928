"""The door: a client's graph is completed from the configuration and checked here, before anything is journalled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msgspec

from supervisord_agents.config import Config
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.daemon.workspaces import Workspaces
from supervisord_agents.errors import InvalidInput, SupervisorError
from supervisord_agents.workers.agents.registry import AgentRegistry

DEFAULT_POOL = "standard"
MAX_SPEC_BYTES = 4 * 1024 * 1024
"""Of one encoded task: half a frame, so that it fits into the worker's with its dependencies' outputs."""


class Admission:
    """Completes and checks task specifications for one daemon."""

    def __init__(self, config: Config, agents: AgentRegistry, workspaces: Workspaces) -> None:
        self._config = config
        self._agents = agents
        self._workspaces = workspaces

    def admit(self, tasks: list[TaskSpec], uid: int) -> tuple[TaskSpec, ...]:
        """The specifications as they will be journalled, asked for by a client of this uid.

        Raises InvalidInput (or SandboxRefused for a missing program), naming the field.
        """
        limit = self._config.daemon.max_tasks_per_graph
        if len(tasks) > limit:
            raise InvalidInput(
                f"the graph has {len(tasks)} tasks, the limit is {limit}.",
                field="tasks",
                hint="Submit it in parts: a task may depend on an earlier graph's tasks by their full ids.",
            )
        real = cache(lambda workspace: self._workspaces.real(workspace, uid))  # most tasks of a graph share one
        return tuple(self._complete(spec, index, real) for index, spec in enumerate(normalise(tasks)))

    def _complete(self, spec: TaskSpec, index: int, real: Callable[[str], str]) -> TaskSpec:
        try:
            self._agents.check(spec)
            pool = spec.pool or self._pool_of(spec.agent)
            self._check_pool(pool)
            workspace = real(spec.workspace) if spec.workspace else ""
            self._check_size(spec)
        except SupervisorError as error:
            error.field = f"tasks[{index}].{error.field}" if error.field else f"tasks[{index}]"
            raise
        config = self._config.tasks
        return msgspec.structs.replace(
            spec,
            pool=pool,
            workspace=workspace,
            timeout_s=spec.timeout_s or config.timeouts_s.get(spec.type) or config.timeout_s,
            backoff_s=spec.backoff_s or config.backoff_s,
        )

    def _pool_of(self, agent: str) -> str:
        table = self._config.agents.get(agent)
        if table is not None and table.pool:
            return table.pool
        return DEFAULT_POOL if DEFAULT_POOL in self._config.pools else next(iter(self._config.pools))

    def _check_pool(self, pool: str) -> None:
        if pool not in self._config.pools:
            known = ", ".join(sorted(self._config.pools))
            raise InvalidInput(f"no pool is called `{pool}`.", field="pool", hint=f"Configured pools: {known}.")

    def _check_size(self, spec: TaskSpec) -> None:
        size = len(msgspec.msgpack.encode(spec))
        if size > MAX_SPEC_BYTES:
            raise InvalidInput(
                f"the task is {size} bytes, the limit is {MAX_SPEC_BYTES}.",
                field="input",
                hint="Put large data into a file of the workspace and name the file.",
            )
