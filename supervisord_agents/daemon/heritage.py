"""What a task may hand on to its children: never more than it was given itself.

A child is admitted by the rights of the client that submitted its first ancestor, like any task; on top of that its sandbox may
show, reach and use nothing that its parent's does not. What an agent's own program needs to be seen is no matter of the task.
"""

from __future__ import annotations

import msgspec

from sandbox.profile import Profile
from supervisord_agents.config import Agent, Config
from supervisord_agents.core import compensations
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import InvalidInput
from supervisord_agents.workers.profiles import TaskProfiles

STRICTEST = "strict"
_LIMITS = ("memory_bytes", "pids", "cpu_percent")


class Heritage:
    """By one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._profiles = TaskProfiles(config)

    def asked(self, child: TaskSpec, parent: TaskSpec, field: str) -> TaskSpec:
        """The child with what it takes from its parent where it says nothing, still to be completed.

        Raises InvalidInput for another workspace: before anybody has looked for it, for what is there is not to be found out so.
        """
        if not child.workspace:
            return child
        _check_workspace(child, parent, field)
        return msgspec.structs.replace(child, workspace_mode=child.workspace_mode or parent.workspace_mode)

    def kept(self, child: TaskSpec, parent: TaskSpec, field: str) -> TaskSpec:
        """The completed child, within its parent's limits; raises InvalidInput, naming what is more than its parent's."""
        child = self._within(child, parent, field)
        if child.compensate is None:
            return child
        return compensations.accepted(child, self._within(compensations.asked(child), parent, f"{field}.compensate"))

    def _within(self, child: TaskSpec, parent: TaskSpec, field: str) -> TaskSpec:
        _check_workspace(child, parent, field)
        if child.workspace and parent.workspace_mode is not None and child.workspace_mode is None:
            raise InvalidInput(
                f"its parent sees the workspace as `{parent.workspace_mode}`: a child may not change the directory itself.",
                field=f"{field}.workspace_mode",
            )
        for agent in child.agents or (child.agent,):
            as_it = msgspec.structs.replace(child, agent=agent)
            self._check_profile(as_it, parent, field)
            self._check_agent(agent, parent.agent, field)
            child = msgspec.structs.replace(child, limits=self._limited(as_it, parent, field).limits)
        return child

    def _check_profile(self, child: TaskSpec, parent: TaskSpec, field: str) -> None:
        name, of_parent = self._profiles.name_of(child), self._profiles.name_of(parent)
        stricter = name == STRICTEST and not {name, of_parent} & set(self._config.profiles)
        if name != of_parent and not stricter:
            allowed = dict.fromkeys((of_parent, *(() if of_parent in self._config.profiles else (STRICTEST,))))
            raise InvalidInput(
                f"a child of a task under the profile `{of_parent}` may not run under `{name}`.",
                field=f"{field}.profile",
                hint=f"Allowed: {', '.join(allowed)}.",
            )

    def _check_agent(self, child: str, parent: str, field: str) -> None:
        """What the configuration gives one agent alone is not to be had by a child of another."""
        if child == parent:
            return
        more, less = (self._config.agents.get(name, Agent()) for name in (child, parent))
        for key, excess in (
            ("hosts", set(more.hosts) - set(less.hosts)),
            ("read_only_paths", set(more.read_only_paths) - set(less.read_only_paths)),
            ("environment", set(more.environment.items()) - set(less.environment.items())),
        ):
            if excess:
                raise InvalidInput(
                    f"the agent `{child}` is given {key} that `{parent}`, the agent of its parent, is not.",
                    field=f"{field}.agent",
                    hint=f"Give both the same: agents.{parent}.{key} in config.toml.",
                )

    def _limited(self, child: TaskSpec, parent: TaskSpec, field: str) -> TaskSpec:
        own, above = self._profiles.of(child), self._profiles.of(parent)
        cut: dict[str, int] = {}
        for name in _LIMITS:
            wanted, most = _limit(child, own, name), _limit(parent, above, name)
            if not most or 0 < wanted <= most:
                continue
            if getattr(child.limits, name):
                raise InvalidInput(f"is more than its parent's {most}.", field=f"{field}.limits.{name}")
            cut[name] = most
        return msgspec.structs.replace(child, limits=msgspec.structs.replace(child.limits, **cut)) if cut else child


def _check_workspace(child: TaskSpec, parent: TaskSpec, field: str) -> None:
    """No part of it either: its parent could put a link in place of a directory inside."""
    if child.workspace and child.workspace != parent.workspace:
        there = f"its parent has {parent.workspace}" if parent.workspace else "its parent has a private one"
        raise InvalidInput(f"a child works in its parent's workspace or in a private one; {there}.", field=f"{field}.workspace")


def _limit(spec: TaskSpec, profile: Profile, name: str) -> int:
    """0: none."""
    found: int = getattr(spec.limits, name) or getattr(profile, name)
    return found
