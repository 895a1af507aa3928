"""Which agents there are: the installed ones (entry points of the group `agent_supervisor.agents`) and the configured ones.

An agent's settings, as its class methods and the worker get them, are the fields of its configuration table (config.Agent), with
`executable` made absolute if the program is on this host, and added: `name`, which it is configured under, and `search_path`,
directories its PATH needs inside.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from typing import Any

import msgspec

from supervisord_agents.config import Agent as AgentTable
from supervisord_agents.config import Config
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import ConfigError, InvalidInput
from supervisord_agents.workers.agents.base import Agent, FunctionAgent, ProgramAgent
from supervisord_agents.workers.agents.options import Options, parse_options
from supervisord_agents.workers.agents.programs import find, find_interpreter, search_path

ENTRY_POINT_GROUP = "agent_supervisor.agents"


class AgentRegistry:
    """The agents of one configuration. Classes are loaded when they are first asked for, those with options at once."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError for options that their agent does not take."""
        self._tables = config.agents
        self._providers = tuple(config.gateway.providers)
        self._paths = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
        self._paths.update({name: table.adapter for name, table in config.agents.items() if table.adapter})
        self._classes: dict[str, type[Agent]] = {}
        self._configured: dict[str, dict[str, Any]] = {}
        self._independent: set[str] = set()
        """Agents that need nothing of this host: once usable, always usable."""
        for name, table in config.agents.items():
            if table.options:
                self._check_options(name, table)

    @property
    def names(self) -> list[str]:
        return sorted(self._paths)

    def get(self, name: str) -> type[Agent]:
        """The class of an agent. Raises InvalidInput for an unknown name, ConfigError if its class cannot be loaded."""
        if name not in self._classes:
            if name not in self._paths:
                near = difflib.get_close_matches(name, self._paths, n=1)
                hint = f"Did you mean `{near[0]}`? " if near else ""
                raise InvalidInput(f"there is no agent `{name}`.", field="agent", hint=f"{hint}Known: {', '.join(self.names)}.")
            self._classes[name] = _load(name, self._paths[name])
        return self._classes[name]

    def settings(self, name: str) -> dict[str, Any]:
        """The settings of an agent; see the module's description."""
        agent = self.get(name)
        if name not in self._configured:
            self._configured[name] = {"name": name, **msgspec.to_builtins(self._tables.get(name, AgentTable()))}
        settings = self._configured[name].copy()
        if agent.needs_gateway and not settings["provider"] and len(self._providers) == 1:
            settings["provider"] = self._providers[0]
        program = find(agent.program, settings["executable"])
        if program is not None:
            settings["executable"] = program
            settings["search_path"] = search_path(find_interpreter(program))
        return settings

    def usable(self, name: str) -> dict[str, Any]:
        """The settings of an agent that has what it needs on this host; raises as `settings`, or SandboxRefused."""
        if name in self._independent:
            return self._configured[name]
        settings = self.settings(name)
        agent = self.get(name)
        agent.requirements(settings)
        if not (agent.program or settings["executable"] or agent.needs_gateway):
            self._independent.add(name)
        return settings

    def check(self, spec: TaskSpec, settings: dict[str, Any]) -> None:
        """Refuse a task that its agent, with these settings, cannot do; raises InvalidInput."""
        self.get(spec.agent).check(spec, settings)

    def _check_options(self, name: str, table: AgentTable) -> None:
        try:
            form = self.get(name).options
        except ConfigError:
            raise
        except InvalidInput as error:
            raise ConfigError(error.message, field=f"agents.{name}", hint=error.hint) from None
        parse_options({"name": name, "options": table.options}, form)


def _load(name: str, path: str) -> type[Agent]:
    module, _, attribute = path.partition(":")
    field = f"agents.{name}.adapter"
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(f"`{path}` cannot be imported: {why}.", field=field, hint="It must be `module:Class`.") from error
    if not (isinstance(found, type) and issubclass(found, ProgramAgent | FunctionAgent)):
        raise ConfigError(f"`{path}` is neither a ProgramAgent nor a FunctionAgent.", field=field)
    if not (isinstance(found.options, type) and issubclass(found.options, Options)):
        raise ConfigError(f"`options` of `{path}` is no subclass of Options.", field=field)
    return found
