"""A real MCP client session with a real `agentctl mcp`, over its stdin and stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import TextContent

AGENTCTL = Path(sys.executable).parent / "agentctl"
HASTY = """
import sys
from supervisord_agents.cli.main import main
from supervisord_agents.mcp_bridge import progress
progress.EVERY_S = {every_s}
sys.exit(main())
"""
OnProgress = Callable[[float, float | None, str | None], Awaitable[None]]


class ToolFailed(Exception):
    """The tool answered with an error; the text is what the agent reads."""


class McpSession:
    """Calls tools as a coding agent does."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, on_progress: OnProgress | None = None, **arguments: Any) -> dict[str, Any]:
        """The structured answer; raises ToolFailed."""
        answer = await self.client.call_tool(tool, arguments, progress_callback=on_progress)
        first = answer.content[0]
        assert isinstance(first, TextContent)
        if answer.is_error:
            raise ToolFailed(first.text)
        assert isinstance(answer.structured_content, dict)
        return answer.structured_content


@asynccontextmanager
async def mcp_session(
    socket: Path,
    cwd: Path,
    *,
    mode: str = "auto",
    environment: Mapping[str, str] | None = None,
    progress_every_s: float = 0.0,
) -> AsyncIterator[McpSession]:
    """A session with a bridge that runs in `cwd` and talks to the daemon at `socket`.

    `mode` is "legacy" for the handshake of 2025 and before, which the coding CLIs of today speak, "auto" for the newest.
    `progress_every_s` in place of the bridge's own period, if not 0.
    """
    agentctl = [sys.executable, "-c", HASTY.format(every_s=progress_every_s)] if progress_every_s else [str(AGENTCTL)]
    command, *args = [*agentctl, "--socket", str(socket), "mcp"]
    bridge = StdioServerParameters(command=command, args=args, cwd=cwd, env=dict(environment or os.environ))
    async with Client(stdio_client(bridge), mode=mode) as client:
        yield McpSession(client)
