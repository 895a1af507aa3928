"""What `status` tells of the tracker's models."""

from __future__ import annotations

import msgspec

from supervisord_agents.core.model import Usage


class ModelView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model that may be asked. Times are Unix seconds; 0.0: not known."""

    name: str
    """As in `tracker.backends`."""
    state: str = "ready"
    """`ready`, `loading`, `unloaded` (loaded when somebody asks), `left_alone` (its breaker is open), `over_limit` (of money)."""
    since: float = 0.0
    """Of a local model: when it was loaded, or began to be, or was unloaded; of one that is left alone, when it last failed."""
    until: float = 0.0
    """When one that is left alone, or over its limit, may be asked again."""
    why: str = ""
    """The last failure, or what was spent."""
    about: str = ""
    """Which model it is, if it has been loaded."""


class TrackerView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Since the start of the daemon. The rules are not among the models."""

    models: list[ModelView]
    """In the order in which they are asked."""
    answers: int = 0
    refused: int = 0
    """Of these: not true, or not of the form."""
    failed: int = 0
    """Times that no model answered."""
    late: int = 0
    """Stories that were older than `tracker.stale_s` when they were there, and never shown."""
    usage: Usage = Usage()
    spent_usd: float = 0.0
    """What they have cost in the last 24 hours, also before the start of the daemon; what was given up counts as the most."""
    limit_usd: float = 0.0
    """`tracker.cost_usd_per_day`."""
