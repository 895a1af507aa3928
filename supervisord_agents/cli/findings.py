"""What the doctor finds, a line each."""

from __future__ import annotations

from enum import StrEnum

import msgspec


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
