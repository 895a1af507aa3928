"""All families."""

from __future__ import annotations

from tests.escape.attempt import Attempt
from tests.escape.families import (
    bombs,
    cgroups,
    files,
    kernel,
    mounts,
    network,
    paths,
    persistence,
    privileges,
    processes,
    sharing,
    sockets,
)

FAMILIES = tuple(
    module.family
    for module in (files, paths, mounts, processes, sockets, kernel, privileges, bombs, sharing, cgroups, network, persistence)
)
ATTEMPTS: tuple[Attempt, ...] = tuple(attempt for family in FAMILIES for attempt in family.attempts)

OPEN: dict[str, str] = {
    "lock-a-file-of-the-system": "a lock needs no more than a file that may be read; nothing can refuse it by path",
}
"""What ours is known to let through, and why."""
