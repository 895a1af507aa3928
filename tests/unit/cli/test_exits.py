"""Every refusal has its exit code."""

from __future__ import annotations

import pytest

from supervisord_agents.cli.exits import Exit, exit_of
from supervisord_agents.errors import (
    ConfigError,
    DiskFull,
    ErrorCode,
    Forbidden,
    InvalidInput,
    NotFound,
    ProtocolError,
    QueueFull,
    SandboxRefused,
    SupervisorError,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("x"), Exit.USAGE),
        (ConfigError("x"), Exit.USAGE),
        (ProtocolError("x"), Exit.USAGE),
        (NotFound("x"), Exit.NOT_FOUND),
        (Unavailable("x"), Exit.UNREACHABLE),
        (QueueFull("x"), Exit.UNREACHABLE),
        (Forbidden("x"), Exit.REFUSED),
        (DiskFull("x"), Exit.REFUSED),
        (SandboxRefused("x"), Exit.REFUSED),
        (SupervisorError("x"), Exit.FAILED),
    ],
)
def test_the_exit_code_of_an_error(error: SupervisorError, code: Exit) -> None:
    assert exit_of(error) is code


@pytest.mark.parametrize("code", ErrorCode)
def test_no_error_is_a_success(code: ErrorCode) -> None:
    assert exit_of(SupervisorError("x", code=code)) is not Exit.OK


def test_a_permission_that_lacks_is_a_refusal_whatever_it_is_reported_as() -> None:
    error = Unavailable("the socket may not be opened.")
    error.__cause__ = PermissionError()
    assert exit_of(error) is Exit.REFUSED
