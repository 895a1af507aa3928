"""`estimate`: what tasks would take, and whether it is worth handing them over."""

from __future__ import annotations

import msgspec

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.wire.messages import Reply, Request


class Estimate(Request, tag="estimate", frozen=True):
    """As `submit`, but nothing is submitted."""

    tasks: list[TaskSpec]


class TaskEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """One task as it would go if it were submitted now. Times are seconds."""

    id: str
    """Short id."""
    agent: str
    type: str
    pool: str
    advice: str
    """`delegate`, `do it yourself`, `split`."""
    reason: str
    seconds: float
    """How long an attempt takes; 0: not known."""
    low_s: float
    high_s: float
    """Between these lie about eight of ten."""
    method: str
    """Where that comes from: `given`, `rule`, `average`, `regression`, `unknown`."""
    error: float
    """How far the method was off so far, as a part of the durations; -1: not known."""
    observations: int
    """How many such tasks have succeeded."""
    cold: bool
    """No worker is up for it: `seconds` holds what that was seen to cost."""
    overhead_s: float
    """To hand it over and to have a worker begin."""
    idle: int
    """Tasks that its pool could take at once."""
    before: int
    """Tasks that wait and come before it, the first 200."""
    wait_s: float
    """Until a worker is free for it."""
    input_bytes: int
    workspace_bytes: int
    """That are copied for it, as far as was counted."""
    copy_s: float
    timeout_s: float
    """That an attempt would have."""


class EstimateReply(Reply, frozen=True):
    tasks: list[TaskEstimate]
    """In the order of the request."""
    path_s: float
    """Longest chain of dependencies: no number of workers is done sooner."""
    work_s: float
    """All of them together."""
