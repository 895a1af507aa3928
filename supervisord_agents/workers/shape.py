"""What a sandbox must be like for a task: workers of equal shape can stand in for each other."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

import supervisord_agents
from sandbox.spec import Bind, SandboxSpec
from supervisord_agents.config import Config
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.wire.frames import WORKER_DIR
from supervisord_agents.workers.agents.registry import AgentRegistry

ORPHAN_GRACE_ENV = "AGENT_SUPERVISOR_ORPHAN_GRACE_S"
"""Read by workers.runtime."""
RUNTIME_MODULE = "supervisord_agents.workers.runtime"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a worker's sandbox that a task may ask for."""

    workspace: str
    """Host directory, writable inside at the same path; empty: a private one."""
    read_only_paths: tuple[str, ...]
    gateway_port: int
    memory_bytes: int
    pids: int
    cpu_percent: int


class Shaper:
    """Derives shapes from tasks, and sandbox specifications from shapes."""

    def __init__(self, config: Config, agents: AgentRegistry) -> None:
        self._config = config
        self._agents = agents
        self._runtime_paths = runtime_paths()

    def of(self, spec: TaskSpec) -> Shape:
        """The shape a task needs; raises SupervisorError if its agent's programs are not on this host."""
        needs = self._agents.get(spec.agent).requirements(self._agents.settings(spec.agent))
        return self._shape(spec, needs.read_only_paths)

    def warm(self) -> Shape:
        """The shape that is kept ready before any task is known."""
        return self._shape(TaskSpec(), ())

    def _shape(self, spec: TaskSpec, read_only_paths: tuple[str, ...]) -> Shape:
        limits, defaults = spec.limits, self._config.sandbox
        return Shape(
            workspace=spec.workspace,
            read_only_paths=read_only_paths,
            gateway_port=self._config.gateway.port,
            memory_bytes=limits.memory_bytes or defaults.memory_bytes,
            pids=limits.pids or defaults.pids,
            cpu_percent=limits.cpu_percent or defaults.cpu_percent,
        )

    def sandbox_spec(self, shape: Shape, *, uid: int, worker_dir: Path) -> SandboxSpec:
        """The sandbox of a worker of this shape. `worker_dir` holds its outbox, which it shares with the daemon."""
        config = self._config.sandbox
        binds = [Bind(path) for path in (*self._runtime_paths, *config.read_only_paths, *shape.read_only_paths)]
        if shape.workspace:
            binds.append(Bind(shape.workspace, writable=True))
        binds.append(Bind(f"{worker_dir}/outbox", f"{WORKER_DIR}/outbox", writable=True))
        return SandboxSpec(
            argv=(sys.executable, "-I", "-m", RUNTIME_MODULE),
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "HOME": "/home/worker",
                ORPHAN_GRACE_ENV: str(self._config.daemon.orphan_grace_s),
            },
            cwd="/",
            binds=tuple(dict.fromkeys(binds)),
            tmp_bytes=config.tmp_bytes,
            uid=uid,
            open_files=config.open_files,
            file_size_bytes=config.file_size_bytes,
            memory_bytes=shape.memory_bytes,
            pids=shape.pids,
            cpu_percent=shape.cpu_percent,
            loopback_listen=(shape.gateway_port,) if shape.gateway_port else (),
            init=False,
            optional_layers=config.optional_layers,
        )


def runtime_paths() -> tuple[str, ...]:
    """What the worker runtime needs to be seen inside: the interpreter, its packages, and this package."""
    package = Path(supervisord_agents.__file__).parent
    candidates = [sys.base_prefix, sys.prefix, os.path.dirname(os.path.realpath(sys.executable)), str(package)]
    paths: list[str] = []
    for candidate in candidates:
        if not any(_within(candidate, parent) for parent in ("/usr", *paths)):
            paths.append(candidate)
    return tuple(paths)


def _within(path: str, parent: str) -> bool:
    return os.path.commonpath((path, parent)) == parent
