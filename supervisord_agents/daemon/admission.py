"""The door: a client's graph is completed from the configuration and checked here, before anything is journalled."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from supervisord_agents.config import Config
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import InvalidInput, SupervisorError
from supervisord_agents.workers.agents.registry import AgentRegistry

DEFAULT_POOL = "standard"
MAX_SPEC_BYTES = 4 * 1024 * 1024
"""Of one encoded task: half a frame, so that it fits into the worker's with its dependencies' outputs."""
SYSTEM_DIRECTORIES = (
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
)


class Admission:
    """Completes and checks task specifications for one daemon."""

    def __init__(self, config: Config, agents: AgentRegistry, state_dir: Path) -> None:
        self._config = config
        self._agents = agents
        self._state_dir = state_dir.resolve()

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
        return tuple(self._complete(spec, index, uid) for index, spec in enumerate(normalise(tasks)))

    def _complete(self, spec: TaskSpec, index: int, uid: int) -> TaskSpec:
        try:
            self._agents.check(spec)
            pool = spec.pool or self._pool_of(spec.agent)
            self._check_pool(pool)
            workspace = self._workspace(spec.workspace, uid) if spec.workspace else ""
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

    def _workspace(self, workspace: str, uid: int) -> str:
        """The real path of a directory that this client may hand to a worker."""
        if not os.path.isabs(workspace):
            raise InvalidInput("must be an absolute path.", field="workspace", hint=f"Perhaps {Path(workspace).absolute()}?")
        real = os.path.realpath(workspace)
        try:
            info = os.stat(real)
        except OSError as error:
            raise InvalidInput(f"{workspace}: {error.strerror}.", field="workspace") from error
        if not stat.S_ISDIR(info.st_mode):
            raise InvalidInput(f"{workspace} is not a directory.", field="workspace")
        if uid not in (0, os.geteuid(), info.st_uid):
            raise InvalidInput(f"{workspace} does not belong to you.", field="workspace", hint="Use a directory that you own.")
        if not os.access(real, os.R_OK | os.X_OK):
            raise InvalidInput(f"{workspace} cannot be read by the supervisor.", field="workspace", hint="Check its permissions.")
        self._refuse_revealing(real)
        return real

    def _refuse_revealing(self, real: str) -> None:
        """A workspace must not be, or hold, what the sandbox exists to hide."""
        secrets = [Path.home(), self._state_dir, *_homes()]
        holds = next((str(path) for path in secrets if path.is_relative_to(real)), "")
        inside_state = Path(real).is_relative_to(self._state_dir)
        if real in SYSTEM_DIRECTORIES or holds or inside_state:
            what = f"it holds {holds}" if holds else "it belongs to the system"
            raise InvalidInput(
                f"{real} cannot be a workspace: {what}.",
                field="workspace",
                hint="Use the directory of one project.",
            )


def _homes() -> list[Path]:
    """Home directories of people, by the usual place."""
    try:
        return [entry for entry in Path("/home").iterdir() if entry.is_dir()]
    except OSError:
        return []
