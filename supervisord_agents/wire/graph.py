"""A graph as it is planned: when each of its tasks may start, must start, and is likely to.

All times are seconds from the moment of the answer on: what is past is negative.
"""

from __future__ import annotations

import msgspec

from supervisord_agents.core.model import State
from supervisord_agents.wire.messages import Reply, Request


class ShowGraph(Request, tag="graph", frozen=True):
    """The plan of a graph, and a page of its tasks in the order of submission. A task stands for its graph."""

    graph: str
    limit: int = 100
    after: str = ""
    """The `next` of the page before."""
    edges: bool = False
    """Name the dependencies too; then a page may hold fewer tasks than `limit`."""


class TaskTimes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a task may start, must start, and is likely to."""

    id: str
    state: State
    pool: str
    priority: int
    estimate_s: float
    estimated: bool
    """False: nobody knows how long it takes, and it is counted as one second."""
    est_s: float = 0.0
    """Earliest start, with a free worker at any time; the real one of what runs or has ended."""
    lst_s: float = 0.0
    """Latest start that does not delay the end of the graph."""
    slack_s: float = 0.0
    """Between the two."""
    critical: bool = False
    """What delays it delays the graph. Of what has ended: it is on `critical_path`."""
    needed: bool = True
    """False: it runs only if another task fails, and is taken not to."""
    start_s: float | None = None
    """As forecast with the workers that there are, or the real one; None: never, as things are."""
    end_s: float | None = None
    dependencies: list[str] = []
    """If asked for, as in the specification: short ids of tasks of the same graph, else full ones."""


class GraphReply(Reply, frozen=True):
    graph: str
    at: float
    """Unix seconds."""
    tasks: list[TaskTimes]
    total: int
    """Of the tasks, on every page."""
    open: int
    """How many have not ended."""
    next: str = ""
    critical_path: list[str] = []
    """Full ids, from its first task on, which may have ended or be of another graph; the first 1,000 of a longer one."""
    critical_count: int = 0
    """How many tasks are on it."""
    critical_s: float = 0.0
    """When the graph would end if there were always a free worker."""
    work_s: float = 0.0
    """What is left to do."""
    bound_s: float = 0.0
    """With these workers it cannot end earlier: the longer of the critical path and the work of a pool shared by its workers."""
    end_s: float | None = None
    """As forecast; None: never, as things are."""
    workers: dict[str, int] = {}
    """That the pools of its open tasks may have."""
    unknown: int = 0
    """Open tasks that nobody knows how long they take."""
    notes: list[str] = []
