"""A sandbox as the fork server sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

from sandbox import protocol
from sandbox.cgroup import Group
from sandbox.enter import Failure, Owner
from sandbox.notify import Watch

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
        """And last, if it is supervised, the socket of its events."""
        self.watch: Watch | None = None
        self.supervisor = -1
        """The pidfd of the process that answers for its filter."""
        self.ended = False
        self.failure: Failure | None = None
        self.ready = False
        self.running = False
        self.abandoned = False
        """Its client is gone, and it is not for another."""
        self.deadline = time.monotonic() + SETUP_TIMEOUT_S

    def kill(self) -> None:
        """End PID 1, and with it the whole namespace."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def forget_descriptors(self) -> None:
        """Close what a client may want of it."""
        for descriptor in (*self.kept, *self.listeners):
            os.close(descriptor)
        self.kept, self.listeners = [], []
