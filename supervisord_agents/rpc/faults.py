"""SupervisorError to ErrorReply, and back to the same class at the other end."""

from __future__ import annotations

from supervisord_agents.errors import DiskFull, ErrorCode, InvalidInput, NotFound, SandboxRefused, SupervisorError, Unavailable
from supervisord_agents.wire.messages import ErrorReply

_CLASSES: dict[ErrorCode, type[SupervisorError]] = {
    ErrorCode.INVALID: InvalidInput,
    ErrorCode.NOT_FOUND: NotFound,
    ErrorCode.UNAVAILABLE: Unavailable,
    ErrorCode.DISK_FULL: DiskFull,
    ErrorCode.SANDBOX_DENIED: SandboxRefused,
}


def reply_of(error: SupervisorError) -> ErrorReply:
    return ErrorReply(code=error.code, message=error.message, field=error.field, kept=error.kept, hint=error.hint)


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
