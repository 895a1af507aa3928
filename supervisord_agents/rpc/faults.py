"""SupervisorError to ErrorReply, and back to the same class at the other end."""

from __future__ import annotations

from supervisord_agents.errors import (
    DiskFull,
    ErrorCode,
    Forbidden,
    InvalidInput,
    NotFound,
    QueueFull,
    SandboxRefused,
    SupervisorError,
    Unavailable,
)
from supervisord_agents.wire.messages import ErrorReply

_CLASSES: dict[ErrorCode, type[SupervisorError]] = {
    ErrorCode.INVALID: InvalidInput,
    ErrorCode.NOT_FOUND: NotFound,
    ErrorCode.UNAVAILABLE: Unavailable,
    ErrorCode.QUEUE_FULL: QueueFull,
    ErrorCode.FORBIDDEN: Forbidden,
    ErrorCode.DISK_FULL: DiskFull,
    ErrorCode.SANDBOX_DENIED: SandboxRefused,
}


MAX_TEXT_CHARACTERS = 3_000
"""Of each text of an error: it may repeat what a client sent, and must fit into the smallest frame that may be configured."""


def reply_of(error: SupervisorError) -> ErrorReply:
    return ErrorReply(
        code=error.code, message=_cut(error.message), field=_cut(error.field), kept=_cut(error.kept), hint=_cut(error.hint)
    )


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARACTERS else text[: MAX_TEXT_CHARACTERS - 1] + "…"


def error_of(reply: ErrorReply) -> SupervisorError:
    """The exception for a client; a code that this version does not know becomes INTERNAL."""
    try:
        code = ErrorCode(reply.code)
    except ValueError:
        code = ErrorCode.INTERNAL
    kind = _CLASSES.get(code)
    if kind is None:
        return SupervisorError(reply.message, field=reply.field, kept=reply.kept, hint=reply.hint, code=code)
    return kind(reply.message, field=reply.field, kept=reply.kept, hint=reply.hint)
