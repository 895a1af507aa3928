"""What the gateway itself answers with an error: a refusal by policy, or a provider that could not be reached."""

from __future__ import annotations

import json
import math

from aiohttp import web

from supervisord_agents.gateway.dialects import error_body
from supervisord_agents.hosts import DEFAULT_PORT, is_name


class Refusal(Exception):
    """Answer with `status` and this message; nothing of an answer was sent before.

    `code` is stable, for programs. `permanent`: trying again without a change of the configuration or the request is no use.
    """

    def __init__(self, status: int, code: str, message: str, *, permanent: bool = True, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.permanent = permanent
        self.retry_after_s = retry_after_s

    def response(self, dialect: str) -> web.Response:
        """The answer in the shape that clients of `dialect` read."""
        body = json.dumps(error_body(dialect, self.status, self.code, self.message))
        # Heard by the OpenAI and Anthropic client libraries, which otherwise try a 5xx again, more slowly each time.
        headers = {"x-should-retry": "false"} if self.permanent else {}
        if self.retry_after_s:
            headers["Retry-After"] = str(math.ceil(self.retry_after_s))
        return web.Response(status=self.status, text=body, content_type="application/json", headers=headers)


def how_to_allow(host: str, port: int) -> str:
    """What to configure, for whoever reads of a refusal."""
    if not is_name(host):
        return "gateway.allowed_hosts knows only names; a server of the worker's own is reached without a proxy (NO_PROXY)."
    entry = host if port == DEFAULT_PORT else f"{host}:{port}"
    return (
        f'If workers may reach it, add "{entry}" to gateway.allowed_hosts, or to `hosts` of this agent, in config.toml '
        "and restart the daemon."
    )


class BrokenOff(Exception):
    """The provider's answer ended too early: the worker must see a broken connection, not a complete answer."""
