"""`agentctl mcp`: serves the tools over stdio until the client closes stdin.

stdout carries MCP only; what is to be said to a person goes to stderr. The bridge keeps no state, so a signal may end it at any
moment.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, ValidationError

from supervisord_agents import __version__
from supervisord_agents.errors import SupervisorError
from supervisord_agents.mcp_bridge.arguments import refusal
from supervisord_agents.mcp_bridge.link import Link
from supervisord_agents.mcp_bridge.schema import lean
from supervisord_agents.mcp_bridge.specs import in_tool_words, project_of
from supervisord_agents.mcp_bridge.tools import Tools

INSTRUCTIONS = (
    "Hands tasks to sandboxed worker agents: delegate, then wait, then result for a whole output. Tasks outlive this session."
)
READ_ONLY = ToolAnnotations(read_only_hint=True)
ADDING = ToolAnnotations(read_only_hint=False, destructive_hint=False)
ENDING = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True)


def run(socket_path: Path) -> int:
    """Serve MCP on stdin and stdout until stdin is closed; the exit code is 0 then."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # an orderly end would wait for the thread that reads stdin
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="agentctl mcp: %(levelname)s %(name)s: %(message)s")
    anyio.run(_serve, socket_path)
    return 0


async def _serve(socket_path: Path) -> None:
    async with Link(socket_path) as link:
        tools = Tools(link, project_of(Path(os.getcwd()), Path.home()))
        await server_of(tools).run_stdio_async()


def server_of(tools: Tools) -> MCPServer[Any]:
    """An MCP server with these tools."""
    return MCPServer(
        "agent-supervisor",
        version=__version__,
        instructions=INSTRUCTIONS,
        log_level="WARNING",
        tools=[
            _tool(tools.delegate, ADDING, {}),
            _tool(tools.estimate, READ_ONLY, {"tasks": "task"}),
            _tool(tools.wait, READ_ONLY, {"task": "ids", "tasks": "ids"}),
            _tool(tools.status, READ_ONLY, {}),
            _tool(tools.result, READ_ONLY, {"task": "id"}),
            _tool(tools.cancel, ENDING, {"task": "id"}),
            _tool(tools.changes, ENDING, {"task": "id"}),
        ],
        subscriptions=False,
        middleware=[_announce_only_tools],
    )


async def _announce_only_tools(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """The SDK's server announces prompts and resources even if it has none, and clients then ask for them."""
    answer = await call_next(ctx)
    if ctx.method in ("initialize", "server/discover") and isinstance(answer, dict):
        answer["capabilities"] = {"tools": answer["capabilities"]["tools"]}
    return answer


class _Tool(Tool):
    """A tool that says in its own words what is wrong with its arguments."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            # The SDK's words for this are pydantic's, with addresses of its documentation.
            if isinstance(error.__cause__, ValidationError) and not isinstance(error, UnexpectedToolError):
                raise ToolError(refusal(error.__cause__, self.parameters)) from error.__cause__
            raise


def _tool(method: Callable[..., Awaitable[BaseModel]], annotations: ToolAnnotations, names: dict[str, str]) -> Tool:
    """A tool from a method; `names` are the tool's words for fields of the request (see in_tool_words)."""

    @functools.wraps(method)
    async def answer(**arguments: Any) -> CallToolResult:
        try:
            return _answer(await method(**arguments))
        except SupervisorError as error:
            raise ToolError(in_tool_words(error, names)) from error

    tool = _Tool.from_function(answer, annotations=annotations)
    arguments_model = tool.fn_metadata.arg_model
    arguments_model.model_config["extra"] = "forbid"
    arguments_model.model_rebuild(force=True)
    tool.parameters = lean(arguments_model.model_json_schema())
    tool.fn_metadata.output_schema = lean(tool.fn_metadata.output_schema or {})
    return tool


def _answer(value: BaseModel) -> CallToolResult:
    """Both forms of an answer, without what is empty: the text for clients that show the model only text."""
    data = value.model_dump(mode="json", exclude_defaults=True)
    text = value.model_dump_json(exclude_defaults=True)
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=data)
