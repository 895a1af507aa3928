"""What the doctor finds, a line each."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from supervisord_agents.errors import SupervisorError


class Mark(StrEnum):
    OK = "ok"
    MISSING = "missing"
    OFF = "off"
    """Not there, and not needed."""


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor; `remedy` is what to do where something is missing."""

    area: str
    name: str
    mark: Mark
    what: str
    remedy: str = ""


def problem(error: SupervisorError) -> str:
    """The error without its hint."""
    return f"{error.field}: {error.message}" if error.field else error.message
