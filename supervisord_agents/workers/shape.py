"""What a sandbox must be like for a task: workers of equal shape can stand in for each other."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

import supervisord_agents
from sandbox.plan import PRIVATE
from sandbox.spec import Bind, SandboxSpec
from supervisord_agents.config import Config
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import SandboxRefused
from supervisord_agents.workers.agents.registry import AgentRegistry

TREE, LAYERS = "tree", "layers"
"""What a view consists of: a tree of its own, or the layers of an overlay."""
RUNTIME_MODULE = "supervisord_agents.workers.runtime"


class Identity(NamedTuple):
    """A directory of the host and whose it is."""

    device: int
    inode: int
    uid: int
    gid: int


NOWHERE = Identity(0, 0, 0, 0)
"""No workspace of the host, or none that is there."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a worker's sandbox that a task may ask for."""

    workspace: str
    """Host directory, writable inside at the same path; empty: a private one."""
    workspace_id: Identity
    """A sandbox shows the directory that it was made with, not one that has taken its place since."""
    read_only_paths: tuple[str, ...]
    gateway_port: int
    memory_bytes: int
    pids: int
    cpu_percent: int
    view: str = ""
    """The directory of the host that holds a view of the workspace for one attempt; empty: the workspace itself is used."""
    mode: str = ""
    """Of the view."""


class Shaper:
    """Derives shapes from tasks, and sandbox specifications from shapes."""

    def __init__(self, config: Config, agents: AgentRegistry) -> None:
        self._config = config
        self._agents = agents
        self._runtime_paths = runtime_paths()

    def of(self, spec: TaskSpec, client: str) -> Shape:
        """The shape that a task of this client (a uid, as text) needs.

        Raises SupervisorError if its agent's programs are not on this host, or if the workspace has changed hands.
        """
        needs = self._agents.get(spec.agent).requirements(self._agents.settings(spec.agent))
        shape = self._shape(spec, needs.read_only_paths)
        if shape.workspace_id != NOWHERE and client and not owns(int(client), shape.workspace_id.uid):
            raise SandboxRefused(
                f"the workspace {spec.workspace} does not belong to the user {client} any more, who submitted the task.",
                hint="Give the directory back to its owner, then: agentctl retry.",
            )
        return shape

    def warm(self) -> Shape:
        """The shape that is kept ready before any task is known."""
        return self._shape(TaskSpec(), ())

    def _shape(self, spec: TaskSpec, read_only_paths: tuple[str, ...]) -> Shape:
        limits, defaults = spec.limits, self._config.sandbox
        return Shape(
            workspace=spec.workspace,
            workspace_id=identity(spec.workspace),
            read_only_paths=read_only_paths,
            gateway_port=self._config.gateway.port,
            memory_bytes=limits.memory_bytes or defaults.memory_bytes,
            pids=limits.pids or defaults.pids,
            cpu_percent=limits.cpu_percent or defaults.cpu_percent,
        )

    def sandbox_spec(self, shape: Shape, *, uid: int) -> SandboxSpec:
        """The sandbox of a worker of this shape."""
        config = self._config.sandbox
        binds = [Bind(path) for path in (*self._runtime_paths, *config.read_only_paths, *shape.read_only_paths)]
        if shape.workspace:
            binds.append(workspace_bind(shape))
        # What the runtime empties between tasks: never anything of the host.
        private = [path for path in (*PRIVATE, "/var/tmp") if not any(_within(path, bind.place) for bind in binds)]
        return SandboxSpec(
            argv=(sys.executable, "-I", "-m", RUNTIME_MODULE, *private),
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/home/worker"},
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


def workspace_bind(shape: Shape) -> Bind:
    """How the workspace is seen. The sandbox refuses a directory that has changed hands since it was looked at."""
    owner = (shape.workspace_id.uid, shape.workspace_id.gid)
    if shape.view and os.path.isdir(f"{shape.view}/{TREE}"):
        return Bind(f"{shape.view}/{TREE}", shape.workspace, writable=True, owner=owner)
    layers = f"{shape.view}/{LAYERS}" if shape.view else ""
    return Bind(shape.workspace, writable=True, owner=owner, layers=layers)


def identity(workspace: str) -> Identity:
    """Which directory is at a path now; that there is none will be told by the sandbox."""
    if not workspace:
        return NOWHERE
    try:
        info = os.stat(workspace)
    except OSError:
        return NOWHERE
    return Identity(info.st_dev, info.st_ino, info.st_uid, info.st_gid)


def owns(uid: int, owner: int) -> bool:
    """Whether a client may hand over what `owner` has: root and the daemon's own user may hand over anything."""
    return uid in (0, os.geteuid(), owner)


def still_there(shape: Shape) -> bool:
    """Whether the workspace is still the directory that the shape was derived from."""
    return identity(shape.workspace) == shape.workspace_id


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
