"""`config check` and `config show`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.output import json_text
from supervisord_agents.cli.parser import Commands, add, add_group
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.errors import ConfigError

if TYPE_CHECKING:
    from supervisord_agents.config import Config


def register(commands: Commands) -> None:
    group = add_group(commands, "config", "check or show the configuration")
    checking = add(group, "check", "check a configuration file", check, details="Without FILE: the one in use.")
    checking.add_argument("file", metavar="FILE", type=Path, nargs="?", help="a configuration file")
    add(group, "show", "show every setting in use, and where it comes from", show)


def check(session: Session, arguments: argparse.Namespace) -> Exit:
    from supervisord_agents.config import load

    path = arguments.file or session.config_path
    try:
        config = load(path)
    except ConfigError as error:
        if error.__cause__ is not None and not isinstance(error.__cause__, ValueError):
            raise  # not a finding: there is no file to check
        session.output.error(error)
        return Exit.FAILED
    try:
        _check_parts(config)
    except ConfigError as error:
        session.output.error(error)
        return Exit.FAILED
    if session.output.json:
        session.output.value({"file": str(path or ""), "ok": True})
    else:
        session.output.line(Span("ok", Style.GOOD), f"  {path}" if path else "  no file: the defaults are used")
    return Exit.OK


def _check_parts(config: Config) -> None:
    """What the daemon's parts would refuse at its start, without starting them; raises ConfigError."""
    from supervisord_agents.gateway.server import Gateway
    from supervisord_agents.workers.agents.registry import AgentRegistry

    AgentRegistry(config)
    Gateway(config.gateway, lambda task, usage: None, lambda task, line: None)


def show(session: Session, arguments: argparse.Namespace) -> Exit:
    from supervisord_agents.config import socket_path, state_dir

    config = session.config
    if session.output.json:
        session.output.value(config)
        return Exit.OK
    output = session.output
    output.line(Span("# file    ", Style.FAINT), str(session.config_path or "none: these are the defaults"))
    output.line(Span("# socket  ", Style.FAINT), str(socket_path(config)))
    output.line(Span("# state   ", Style.FAINT), str(state_dir(config)))
    output.lines(_settings(config, ""))
    return Exit.OK


def _settings(value: Any, path: str) -> list[list[Cell]]:
    """`table.key = value` lines, as TOML understands them too."""
    if isinstance(value, msgspec.Struct):
        inner: dict[str, Any] = {name: getattr(value, name) for name in value.__struct_fields__}
    elif isinstance(value, dict) and value:
        inner = value
    else:
        return [[Span(path, Style.FAINT), " = ", " ".join(json_text(value).split())]]
    return [line for name, item in inner.items() for line in _settings(item, f"{path}.{name}" if path else name)]
