"""What a task is told of a request of its own that is refused."""

from __future__ import annotations

from supervisord_agents.core.model import Failure
from supervisord_agents.errors import InvalidInput, SupervisorError


def refusal(error: SupervisorError) -> Failure:
    """The error as the failure of an attempt that does nothing about it."""
    return Failure(code=error.code, message=error.brief, hint=error.hint, retriable=not isinstance(error, InvalidInput))
