"""Exit codes of agentctl; docs/agentctl.md lists them and a test holds the two together."""

from __future__ import annotations

from enum import IntEnum

from supervisord_agents.errors import ErrorCode, SupervisorError


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    """A task failed, or a check found something."""
    USAGE = 2
    """The command line or its input cannot be used."""
    UNREACHABLE = 3
    """The daemon does not answer, or takes no work now."""
    NOT_FOUND = 4
    TIMED_OUT = 5
    """The time to wait was over first; the task goes on."""
    REFUSED = 6
    """The disk is full, something is not allowed, or what was changed meanwhile stands against it."""
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    """The reader of standard output went away."""


_BY_CODE = {
    ErrorCode.INVALID: Exit.USAGE,
    ErrorCode.UNAVAILABLE: Exit.UNREACHABLE,
    ErrorCode.QUEUE_FULL: Exit.UNREACHABLE,
    ErrorCode.FORBIDDEN: Exit.REFUSED,
    ErrorCode.NOT_FOUND: Exit.NOT_FOUND,
    ErrorCode.TIMEOUT: Exit.TIMED_OUT,
    ErrorCode.DISK_FULL: Exit.REFUSED,
    ErrorCode.SANDBOX_DENIED: Exit.REFUSED,
    ErrorCode.BUDGET_EXCEEDED: Exit.REFUSED,
    ErrorCode.BREAKER_OPEN: Exit.REFUSED,
    ErrorCode.CONFLICT: Exit.REFUSED,
}


def exit_of(error: SupervisorError) -> Exit:
    """The exit code for a refusal."""
    if isinstance(error.__cause__, PermissionError):
        return Exit.REFUSED
    return _BY_CODE.get(error.code, Exit.FAILED)
