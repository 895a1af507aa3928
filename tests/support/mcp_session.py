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
    socket: Path, cwd: Path, *, mode: str = "auto", environment: Mapping[str, str] | None = None
) -> AsyncIterator[McpSession]:
    """A session with a bridge that runs in `cwd` and talks to the daemon at `socket`.

    `mode` is "legacy" for the handshake of 2025 and before, which the coding CLIs of today speak, "auto" for the newest.
    """
    bridge = StdioServerParameters(
        command=str(AGENTCTL), args=["--socket", str(socket), "mcp"], cwd=cwd, env=dict(environment or os.environ)
    )
    async with Client(stdio_client(bridge), mode=mode) as client:
        yield McpSession(client)
