"""Every error of the project: what happened, what was kept, and what to do next."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable codes for programs; people read the message beside it."""

    INVALID = "INVALID"
    NOT_FOUND = "NOT_FOUND"
    TIMEOUT = "TIMEOUT"
    DEADLINE = "DEADLINE"
    STALLED = "STALLED"
    WORKER_DIED = "WORKER_DIED"
    WORKER_FAILED = "WORKER_FAILED"
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
    MAX_RETRIES = "MAX_RETRIES"
    CANCELLED = "CANCELLED"
    BREAKER_OPEN = "BREAKER_OPEN"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DISK_QUOTA = "DISK_QUOTA"
    DISK_FULL = "DISK_FULL"
    SANDBOX_DENIED = "SANDBOX_DENIED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    LOST = "LOST"
    CONFLICT = "CONFLICT"
    UNAVAILABLE = "UNAVAILABLE"
    QUEUE_FULL = "QUEUE_FULL"
    FORBIDDEN = "FORBIDDEN"
    INTERNAL = "INTERNAL"


class SupervisorError(Exception):
    """The base of all errors shown to a user.

    `message` says what happened, `field` names the part of the input at fault (a dotted path, or a file), `kept` says what is
    safe, `hint` says what to do next.
    """

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(self, message: str, *, field: str = "", kept: str = "", hint: str = "", code: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.kept = kept
        self.hint = hint
        if code is not None:
            self.code = code

    @property
    def brief(self) -> str:
        """What happened, and where: without what was kept and what to do next."""
        return f"{self.field}: {self.message}" if self.field else self.message

    def __str__(self) -> str:
        rest = " ".join(part for part in (self.kept, self.hint) if part)
        stop = "" if not rest or self.message.endswith((".", "!", "?", ":")) else "."
        return f"{self.brief}{stop}" + (f" {rest}" if rest else "")


class InvalidInput(SupervisorError):
    """The caller's input cannot be accepted; nothing was changed."""

    code = ErrorCode.INVALID


class NotFound(SupervisorError):
    """No such task, file or method."""

    code = ErrorCode.NOT_FOUND


class ConfigError(InvalidInput):
    """The configuration cannot be used; `field` is the path of the key."""


class JournalError(SupervisorError):
    """The journal cannot be read or written; the daemon must stop rather than guess."""


class JournalCorrupt(JournalError):
    """Damage before the tail of the journal: refused, because skipping it would lose acknowledged work."""


class JournalLocked(JournalError):
    """Another process owns the journal."""

    code = ErrorCode.UNAVAILABLE


class DiskFull(JournalError):
    """No space for new work; work already accepted is kept."""

    code = ErrorCode.DISK_FULL


class ProtocolError(SupervisorError):
    """The peer sent something that is not a frame of this protocol; only its own connection is closed."""

    code = ErrorCode.INVALID


class Unavailable(SupervisorError):
    """The daemon cannot be reached, or is stopping."""

    code = ErrorCode.UNAVAILABLE


class QueueFull(Unavailable):
    """The daemon holds as many tasks as it may; nothing of this graph was accepted, and to try again at once will not help."""

    code = ErrorCode.QUEUE_FULL


class Forbidden(SupervisorError):
    """This user may not do this; to try again will not help."""

    code = ErrorCode.FORBIDDEN


class SandboxRefused(SupervisorError):
    """The host cannot enforce what the profile demands, or the worker was denied something it asked for."""

    code = ErrorCode.SANDBOX_DENIED


class InvalidTransition(SupervisorError):
    """A bug: an event asked for a state change that the table does not have."""
