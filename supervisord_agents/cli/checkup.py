"""The checks behind `agentctl doctor`, one function an area.

They change nothing that lasts: the trials of the host make small cgroups and a sandbox of their own, and take them away again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from sandbox.errors import SandboxError
from supervisord_agents import config as configuration
from supervisord_agents.cli import checkup_providers, checkup_tracker, render
from supervisord_agents.cli.findings import Finding, Mark
from supervisord_agents.cli.session import Session
from supervisord_agents.config import Config
from supervisord_agents.errors import ConfigError, SandboxRefused, SupervisorError

BUILT_IN_AGENTS = ("command", "python")
"""Agents that must work everywhere; others only where they are configured."""


def examine(session: Session) -> list[Finding]:
    """All findings. Takes a second or two: the host is examined by trying."""
    config, findings = _configuration(session)
    return [
        *findings,
        *_host(session, config),
        *_agents(config),
        *checkup_providers.findings(config),
        *checkup_tracker.findings(config),
        *_directories(config),
        _supervisor(session),
    ]


def _configuration(session: Session) -> tuple[Config, list[Finding]]:
    """The configuration, or the defaults in its place, with which the other checks go on."""
    try:
        config = session.config
    except ConfigError as error:
        return Config(), [Finding("configuration", "file", Mark.MISSING, error.brief, error.hint)]
    where = str(session.config_path or "no file: the defaults are used")
    return config, [Finding("configuration", "file", Mark.OK, where)]


def _host(session: Session, config: Config) -> Iterator[Finding]:
    """As a running supervisor has found it, for it makes the sandboxes, with its own rights; else by trying with ours."""
    from sandbox.probe import NOT_NEEDED

    try:
        enforcement = session.run(lambda client: client.status()).enforcement
    except SupervisorError:
        yield from _tried(config)
        return
    for name, how in enforcement.items():
        if how == "on":
            yield Finding("sandbox", name, Mark.OK, "on, says the running supervisor")
            continue
        may_be = not how or name in NOT_NEEDED or name.split()[0] in config.sandbox.optional_layers
        what = "not used" if not how else "missed by the running supervisor"
        yield Finding("sandbox", name, Mark.OFF if may_be else Mark.MISSING, what, how)


def _tried(config: Config) -> Iterator[Finding]:
    from sandbox.probe import probe

    try:
        layers = probe(whole=True)
    except SandboxError as error:
        yield Finding("sandbox", "trials", Mark.MISSING, error.message, error.hint)
        return
    for layer in layers:
        optional = layer.name.split()[0] in config.sandbox.optional_layers
        mark = Mark.OK if layer.enforced else Mark.MISSING if layer.needed and not optional else Mark.OFF
        allowed = " (allowed by sandbox.optional_layers)" if optional and not layer.enforced else ""
        yield Finding("sandbox", layer.name, mark, layer.how + allowed, layer.remedy)


def _agents(config: Config) -> Iterator[Finding]:
    from supervisord_agents.workers.agents.registry import AgentRegistry

    try:
        registry = AgentRegistry(config)
    except ConfigError as error:
        yield Finding("agents", "configuration", Mark.MISSING, error.brief, error.hint)
        return
    for name in registry.names:
        lacking = Mark.MISSING if name in config.agents or name in BUILT_IN_AGENTS else Mark.OFF
        try:
            agent, settings = registry.get(name), registry.settings(name)
            agent.requirements(settings)
        except (ConfigError, SandboxRefused) as error:
            yield Finding("agents", name, lacking, error.brief, error.hint)
            continue
        if agent.needs_gateway and not settings["provider"]:
            remedy = f"Set `provider` in [agents.{name}] to one of [gateway.providers] of the configuration."
            yield Finding("agents", name, lacking, f"{settings['executable']}, without a model provider", remedy)
        else:
            yield Finding("agents", name, Mark.OK, settings["executable"] or "built in")


def _directories(config: Config) -> Iterator[Finding]:
    state = configuration.state_dir(config)
    yield _directory("state", state)
    free = shutil.disk_usage(_existing(state))
    used_percent = 100 * (free.total - free.free) / free.total
    full = used_percent > config.journal.disk_warning_percent
    what = f"{render.size(free.free)} free of {render.size(free.total)}"
    yield Finding("directories", "disk", Mark.MISSING if full else Mark.OK, what, "Free some space." if full else "")
    yield _directory("socket", configuration.socket_path(config).parent)


def _directory(name: str, path: Path) -> Finding:
    """A directory of the daemon: there, or can be made; not open to everybody."""
    existing = _existing(path)
    status = existing.stat()
    if not os.access(existing, os.W_OK | os.X_OK):
        remedy = "Run the doctor as the user of the daemon, or set daemon.state_dir and daemon.socket to a place of your own."
        return Finding("directories", name, Mark.MISSING, f"{existing} is not writable by uid {os.geteuid()}", remedy)
    if existing != path:
        return Finding("directories", name, Mark.OK, f"{path}, will be made")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        what = f"{path} has mode {stat.S_IMODE(status.st_mode):04o}: everybody may replace what lies in it"
        return Finding("directories", name, Mark.MISSING, what, f"Run: chmod o-w {path}")
    return Finding("directories", name, Mark.OK, str(path))


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next(candidate for candidate in (path, *path.absolute().parents) if candidate.is_dir())


def _supervisor(session: Session) -> Finding:
    async def ask() -> str:
        async with await session.connect() as client:
            return f"version {client.hello.daemon}, pid {client.hello.pid}, at {session.socket}"

    try:
        return Finding("supervisor", "running", Mark.OK, asyncio.run(ask()))
    except SupervisorError as error:
        return Finding("supervisor", "running", Mark.OFF, error.brief, error.hint)
