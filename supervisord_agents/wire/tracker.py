"""What `status` tells of the tracker's models."""

from __future__ import annotations

import msgspec

from supervisord_agents.core.model import Usage


class TrackerView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Since the start of the daemon. The rules are not among the models."""

    models: list[str]
    """In the order in which they are asked."""
    answers: int = 0
    refused: int = 0
    """Of these: not true, or not of the form."""
    failed: int = 0
    """Times that no model answered."""
    usage: Usage = Usage()
