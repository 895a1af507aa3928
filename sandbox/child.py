"""A sandbox as the fork server sees it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import time

from sandbox import protocol
from sandbox.cgroup import Group
from sandbox.enter import Failure, Owner

SETUP_TIMEOUT_S = 30.0
"""For a sandbox to be built: a bind source on a dead network file system must not hold a place for ever."""


class Child:
    """A sandbox from its clone to its burial."""

    def __init__(
        self,
        request: protocol.Spawn,
        pid: int,
        pidfd: int,
        worker: Owner,
        group: Group | None,
        status: socket.socket,
        kept: list[int],
    ) -> None:
        self.id = request.id
        self.label = request.label
        self.kept = kept
        """Descriptors for a successor of the client."""
        self.pid = pid
        """In the namespace of the server."""
        self.pidfd = pidfd
        self.worker = worker
        self.group = group
        self.status = status
        self.oom = group.oom_descriptor() if group else -1
        self.listeners: list[int] = []
        self.failure: Failure | None = None
        self.ready = False
        self.running = False
        self.abandoned = False
        """Its client is gone, and it is not for another."""
        self.wall_s = request.spec.wall_s
        self.timed_out = False
        self.deadline = time.monotonic() + SETUP_TIMEOUT_S
        """When it is to be built; once it runs, when it is to have ended."""

    def start(self) -> None:
        """It runs from now on, for as long as it may."""
        self.running = True
        self.deadline = time.monotonic() + self.wall_s if self.wall_s else math.inf

    def kill(self) -> None:
        """End PID 1, and with it the whole namespace."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def forget_descriptors(self) -> None:
        """Close what a client may want of it."""
        for descriptor in (*self.kept, *self.listeners):
            os.close(descriptor)
        self.kept, self.listeners = [], []
