"""What differs between the model APIs: where the key goes, and what an error looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

AUTH_HEADERS = frozenset(
    {
        "authorization",
        "api-key",
        "x-api-key",
        "x-goog-api-key",
        "x-goog-user-project",
        "openai-organization",
        "openai-project",
        "cookie",
    }
)
"""Whatever names an account: a worker's own values never leave, whichever dialect it speaks."""

AUTH_PARAMETERS = frozenset({"key", "access_token"})
"""Query parameters that carry credentials in the Gemini API."""

ANTHROPIC_VERSION = "2023-06-01"


class Dialect(msgspec.Struct, frozen=True):
    """How one API takes its key."""

    name: str
    key_header: str
    key_prefix: str = ""
    defaults: Mapping[str, str] = {}
    """Headers added where the worker sent none."""

    def authorization(self, key: str) -> tuple[str, str]:
        """The header that carries `key`."""
        return self.key_header, f"{self.key_prefix}{key}"


DIALECTS: dict[str, Dialect] = {
    "openai": Dialect("openai", "Authorization", "Bearer "),
    "anthropic": Dialect("anthropic", "x-api-key", defaults={"anthropic-version": ANTHROPIC_VERSION}),
    "gemini": Dialect("gemini", "x-goog-api-key"),
}

_GOOGLE_STATUS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "INVALID_ARGUMENT",
    502: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error_body(dialect: str, status: int, code: str, message: str) -> dict[str, Any]:
    """An error as the clients of `dialect` expect it; any other dialect gets OpenAI's shape."""
    match dialect:
        case "anthropic":
            return {"type": "error", "error": {"type": code, "message": message, "code": code}}
        case "gemini":
            google = _GOOGLE_STATUS.get(status, "INTERNAL")
            return {"error": {"code": status, "message": message, "status": google, "type": code}}
        case _:
            return {"error": {"message": message, "type": "gateway_error", "param": None, "code": code}}
