"""The fork server of a daemon: the one that the daemon before has left, one that runs by itself, or a new one.

Whoever runs a fork server of a state directory holds `spawner.lock` there until all its sandboxes are gone, and is found at
`spawner.sock`. Only the one daemon that holds the journal looks for it.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from pathlib import Path
from typing import NoReturn

import structlog

from sandbox import spawner as sandboxes
from sandbox.spawner import Spawner
from supervisord_agents.errors import Unavailable

ORPHAN_WAIT_S = 30.0
"""How long to wait for the sandboxes of an earlier fork server to be gone."""
APPEAR_WAIT_S = 30.0
"""How long a fork server that runs by itself may take to start."""
log = structlog.get_logger()


def obtained(state_dir: Path, *, orphan_grace_s: float, parked: int, external: bool) -> Spawner:
    """The fork server to work with; `external`: it runs by itself, and is waited for instead of started.

    One that is started keeps `parked` sandboxes ready.

    Raises SandboxError, or Unavailable if an earlier one neither answers nor ends.
    """
    door = state_dir / "spawner.sock"
    deadline = time.monotonic() + APPEAR_WAIT_S
    while (found := Spawner.find(door)) is None and external:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"no fork server has appeared within {APPEAR_WAIT_S:.0f} s.",
                field=str(door),
                kept="Nothing was changed.",
                hint="See why: systemctl status agent-supervisor-spawner. Without --external-spawner the daemon starts its own.",
            )
        time.sleep(0.02)
    if found is not None:
        log.info("fork_server_found", door=str(door))
        return found
    lock = _locked(state_dir)
    try:
        name = cgroup_name(state_dir)
        return Spawner.start(cgroup_name=name, lock_fd=lock, orphan_grace_s=orphan_grace_s, door=door, parked=parked)
    finally:
        os.close(lock)


def serve(state_dir: Path, *, parked: int) -> NoReturn:
    """Become a fork server that waits for daemons until it is ended. Raises Unavailable, OSError or SandboxError."""
    door, name = state_dir / "spawner.sock", cgroup_name(state_dir)
    sandboxes.become(door, name, lock_fd=_locked(state_dir), orphan_grace_s=math.inf, parked=parked)


def cgroup_name(state_dir: Path) -> str:
    """One that no other daemon has: the numbers of inodes repeat from one file system to the next."""
    found = os.stat(state_dir)
    return f"agent-supervisor-{found.st_dev:x}-{found.st_ino:x}"


def _locked(state_dir: Path) -> int:
    """Wait for an earlier fork server to have ended its sandboxes; gives the descriptor of the lock that tells.

    Raises Unavailable if it does not within ORPHAN_WAIT_S: starting anyway could run an attempt twice.
    """
    path = state_dir / "spawner.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + ORPHAN_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise Unavailable(
                    f"workers of an earlier daemon have not ended within {ORPHAN_WAIT_S:.0f} s.",
                    field=str(path),
                    kept="Nothing was changed.",
                    hint="See who holds the lock: fuser -v on this file.",
                ) from None
            time.sleep(0.01)
