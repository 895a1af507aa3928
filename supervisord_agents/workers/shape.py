"""What a sandbox must be like for a task: workers of equal shape can stand in for each other."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

import supervisord_agents
from sandbox.errors import SandboxError
from sandbox.plan import PRIVATE
from sandbox.profile import Profile
from sandbox.protected import Missing
from sandbox.spec import DNS_PORT, Bind, SandboxSpec
from supervisord_agents.config import Agent, Config
from supervisord_agents.core.model import TaskSpec, WorkspaceMode
from supervisord_agents.errors import InvalidInput, SandboxRefused
from supervisord_agents.hosts import AllowedHosts
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.profiles import TaskProfiles

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
    profile: str = ""
    policy: str = ""
    """A digest of the profile: when it is changed, the workers of an earlier daemon are not those that are wanted."""
    read_only_paths: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    """What it may reach, as the configuration writes it."""
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

    def __init__(self, config: Config, agents: AgentRegistry, *, namespaces: bool = True) -> None:
        self._config = config
        self._agents = agents
        self._namespaces = namespaces
        self._profiles = TaskProfiles(config)
        self._runtime_paths = runtime_paths()

    def of(self, spec: TaskSpec, client: str) -> Shape:
        """The shape that a task of this client (a uid, as text) needs.

        Raises SupervisorError if its agent's programs are not on this host, or if the workspace has changed hands.
        """
        if not self._namespaces and self._agents.get(spec.agent).needs_gateway:
            raise SandboxRefused(
                f"the agent `{spec.agent}` calls its model at a port of its sandbox, and sandboxes have no network here.",
                hint="Workers need namespaces for that: agentctl doctor tells how this host can give them.",
            )
        if not self._namespaces and spec.workspace_mode not in (None, WorkspaceMode.DIR):
            raise SandboxRefused(
                f"the workspace mode `{spec.workspace_mode}` shows the workspace at its own path, which only namespaces can.",
                hint="Submit with the mode dir; agentctl doctor tells how this host can give namespaces.",
            )
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

    def allowed_hosts(self, shape: Shape, *, adopted: bool = False) -> AllowedHosts:
        """What a worker of this shape may reach; one of an earlier daemon no more than what is configured for anybody now."""
        if not adopted:
            return AllowedHosts(shape.hosts)
        agents = self._config.agents.values()
        now = {*self._config.gateway.allowed_hosts, *(host for agent in agents for host in agent.hosts)}
        return AllowedHosts(host for host in shape.hosts if host in now)

    def _shape(self, spec: TaskSpec, read_only_paths: tuple[str, ...]) -> Shape:
        limits, granted = spec.limits, self._granted(spec)
        return Shape(
            profile=self._profiles.name_of(spec),
            policy=hashlib.sha256(msgspec.json.encode(granted, order="deterministic")).hexdigest()[:16],
            workspace=spec.workspace,
            workspace_id=identity(spec.workspace),
            read_only_paths=read_only_paths,
            hosts=self._hosts(spec) if self._namespaces else (),
            gateway_port=self._config.gateway.port if self._namespaces else 0,
            memory_bytes=limits.memory_bytes or granted.memory_bytes,
            pids=limits.pids or granted.pids,
            cpu_percent=limits.cpu_percent or granted.cpu_percent,
        )

    def _granted(self, spec: TaskSpec) -> Profile:
        try:
            return self._profiles.of(spec)
        except (InvalidInput, SandboxError) as error:
            raise SandboxRefused(error.message, hint=error.hint) from error

    def kept_from_being_made(self, shape: Shape) -> tuple[str, ...]:
        """What a worker of this shape may not make in its workspace: its caller is to hold that (sandbox.protected.hold)."""
        try:
            granted = self._profiles.get(shape.profile or self._config.sandbox.profile)
        except SandboxError:  # of an earlier daemon, whose configuration had it
            return ()
        writable = shape.workspace and not shape.view and granted.here == "write"
        return granted.protected if writable and self._missing(granted) != "none" else ()

    def protected(self, shape: Shape) -> tuple[str, ...]:
        """What is not to be carried over from a view of its workspace unless a person says so."""
        return self._profiles.get(shape.profile).protected

    def _missing(self, granted: Profile) -> Missing:
        """Workers are kept for more tasks of their workspace: in a person's sight, nothing is to stand there for so long."""
        narrowed = granted.protect_missing == "all" and not self._config.sandbox.placeholders
        return "repository" if narrowed else granted.protect_missing

    def _hosts(self, spec: TaskSpec) -> tuple[str, ...]:
        agent = self._config.agents.get(spec.agent, Agent())
        return tuple(sorted({*self._config.gateway.allowed_hosts, *agent.hosts}))

    def sandbox_spec(self, shape: Shape, *, uid: int) -> SandboxSpec:
        """The sandbox of a worker of this shape."""
        granted = self._profiles.get(shape.profile)
        variables = self._profiles.variables(granted)
        binds = [*granted.binds(""), *map(Bind, (*self._runtime_paths, *shape.read_only_paths))]
        if shape.workspace:
            binds.append(workspace_bind(shape, writable=granted.here == "write"))
        # What the runtime empties between tasks: never anything of the host.
        # Without namespaces a worker is used once.
        rooms = (*PRIVATE, "/var/tmp") if self._namespaces else ()
        private = [path for path in rooms if not any(_within(path, bind.place) for bind in binds)]
        fields = granted.spec_fields() | {
            "memory_bytes": shape.memory_bytes,
            "pids": shape.pids,
            "cpu_percent": shape.cpu_percent,
            "protect_missing": self._missing(granted),
            "wall_s": 0.0,  # of an attempt, not of a worker that does many
            "optional_layers": tuple({*granted.optional_layers, *self._config.sandbox.optional_layers}),
        }
        return SandboxSpec(
            argv=(sys.executable, "-I", "-m", RUNTIME_MODULE, *private, *granted.tmpfs),
            # Functions see the worker's own variables, programs those of their launch.
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **variables, "HOME": "/home/worker"},
            cwd="/",
            binds=tuple(dict.fromkeys(binds)),
            uid=uid,
            loopback_listen=(shape.gateway_port,) if shape.gateway_port else (),
            loopback_any=tuple(sorted(AllowedHosts(shape.hosts).ports - {shape.gateway_port, DNS_PORT})),
            dns=bool(shape.gateway_port),
            init=False,
            **fields,
        )


def workspace_bind(shape: Shape, *, writable: bool = True) -> Bind:
    """How the workspace is seen. The sandbox refuses a directory that has changed hands since it was looked at.

    In a view nothing is protected: that is looked at when its changes are applied.
    """
    owner = (shape.workspace_id.uid, shape.workspace_id.gid)
    if shape.view and os.path.isdir(f"{shape.view}/{TREE}"):
        return Bind(f"{shape.view}/{TREE}", shape.workspace, writable=writable, owner=owner, reviewed=True)
    layers = f"{shape.view}/{LAYERS}" if shape.view and writable else ""
    return Bind(shape.workspace, writable=writable, owner=owner, layers=layers, reviewed=bool(layers))


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
