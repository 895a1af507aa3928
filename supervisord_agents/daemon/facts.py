"""What `status` tells that does not change, or that others keep up to date."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from supervisord_agents.observe.stalls import StallWatch
from supervisord_agents.wire import messages as m


class Facts(msgspec.Struct, kw_only=True):
    """Of one daemon."""

    epoch: str
    started_at: float
    state_dir: Path
    recovery: m.Recovery
    enforcement: dict[str, str]
    journal_bytes: Callable[[], int]
    journal_accepting: Callable[[], bool]
    notes: list[str]
    stalls: StallWatch
    standstill: m.StandstillView | None = None
    stopping: bool = False
