"""Which profile of the sandbox a task runs under: its own, if the configuration allows it, else its agent's, else everybody's."""

from __future__ import annotations

import os

from sandbox.profile import Profile
from supervisord_agents.config import Config, profiles
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import InvalidInput

FIELD = "profile"
_OF_A_TERMINAL = frozenset({"COLORTERM", "LANG", "LC_ALL", "NO_COLOR", "TERM"})
"""Variables of whoever started the daemon that say nothing about its tasks, whatever a profile passes on."""


class TaskProfiles:
    """The profiles of one configuration, which has been checked: every name in it is that of a profile."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._library = profiles(config)
        self._known: dict[str, Profile] = {}

    def get(self, name: str) -> Profile:
        """A profile by name. Raises SandboxError."""
        if name not in self._known:
            self._known[name] = self._library.resolve(name).profile
        return self._known[name]

    def name_of(self, spec: TaskSpec) -> str:
        """The name of a task's profile. Raises InvalidInput for one that the task may not ask for."""
        table = self._config.agents.get(spec.agent)
        usual = (table.profile if table else "") or self._config.sandbox.profile
        allowed = (usual, *self._config.sandbox.task_profiles)
        if not spec.profile or spec.profile in allowed:
            return spec.profile or usual
        raise InvalidInput(
            f"a task of the agent `{spec.agent}` may not ask for the profile `{spec.profile}`.",
            field=FIELD,
            hint=f"Allowed: {', '.join(dict.fromkeys(allowed))}. Others: sandbox.task_profiles in config.toml.",
        )

    def of(self, spec: TaskSpec) -> Profile:
        """The profile of a task. Raises InvalidInput, also for a workspace that the profile does not give."""
        name = self.name_of(spec)
        found = self.get(name)
        if spec.workspace and not found.here:
            raise InvalidInput(
                f"the profile `{name}` gives no workspace.",
                field=FIELD,
                hint='Name another one, such as "agent", or no workspace.',
            )
        return found

    def timeout_s(self, spec: TaskSpec, usual_s: float) -> float:
        """How long an attempt may take: what the task says, else what is usual, and never more than its profile allows.

        Raises InvalidInput for a task that says more.
        """
        most = self.of(spec).wall_s
        if most and spec.timeout_s > most:
            why = f"the profile `{self.name_of(spec)}` allows {most:g} s, not {spec.timeout_s:g}."
            raise InvalidInput(why, field="timeout_s", hint="Ask for less, or for nothing.")
        wanted = spec.timeout_s or usual_s
        return min(wanted, most) if most else wanted

    def environment(self, spec: TaskSpec) -> dict[str, str]:
        """The variables that a task's programs are granted. Raises InvalidInput."""
        return self.variables(self.of(spec))

    def variables(self, found: Profile) -> dict[str, str]:
        """What a profile grants of the supervisor's own variables, and its own."""
        passed = {name: os.environ[name] for name in found.pass_env if name in os.environ and name not in _OF_A_TERMINAL}
        return passed | found.env
