"""`mcp`: the bridge for coding agents."""

from __future__ import annotations

import argparse

from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, add
from supervisord_agents.cli.session import Session


def register(commands: Commands) -> None:
    add(
        commands,
        "mcp",
        "serve the supervisor to a coding agent, as MCP over standard input and output",
        serve,
        details="The agent starts this itself; see docs/mcp.md.",
    )


def serve(session: Session, arguments: argparse.Namespace) -> Exit:
    # Imported here: the MCP library takes longer to load than any other command takes to run.
    from supervisord_agents.mcp_bridge.server import run

    return Exit(run(session.socket))
