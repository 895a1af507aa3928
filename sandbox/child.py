"""A sandbox as the fork server sees it."""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import select
import signal
import socket
import time

from sandbox import linux, notify, protocol
from sandbox.cgroup import Group
from sandbox.enter import Failure
from sandbox.errors import SandboxError
from sandbox.plan import Plan
from sandbox.root import Owner
from sandbox.shield import Shielded

SETUP_TIMEOUT_S = 30.0
"""For a sandbox to be built: a bind source on a dead network file system must not hold a place for ever."""


class Child:
    """A sandbox from its clone to its burial; parked, until it is ordered for a request."""

    id = 0
    label = b""
    worker: Owner = (0, 0)

    def __init__(self, pid: int, pidfd: int, group: Group | None, status: socket.socket, made: Plan) -> None:
        self.pid = pid
        """In the namespace of the server."""
        self.pidfd = pidfd
        self.group = group
        self.status = status
        self.made = made
        """What it makes of its root beforehand."""
        self.oom = -1
        self.kept: list[int] = []
        """Descriptors for a successor of the client."""
        self.listeners: list[int] = []
        """And last, if it is supervised, the socket of its events."""
        self.watch: notify.Watch | None = None
        """What its supervisor is to know; None: it has none."""
        self.supervisor = -1
        """The pidfd of the process that answers for its filter."""
        self.ended = False
        self.failure: Failure | None = None
        self.ordered = False
        self.ready = False
        self.running = False
        self.abandoned = False
        """Its client is gone, and it is not for another."""
        self.wall_s = 0.0
        self.timed_out = False
        self.disk_limit_hit = False
        self.deadline = time.monotonic() + SETUP_TIMEOUT_S
        """When it is to be built; once it runs, when it is to have ended."""

    def start(self) -> None:
        """It runs from now on, for as long as it may."""
        self.running = True
        self.deadline = time.monotonic() + self.wall_s if self.wall_s else math.inf

    def order(self, request: protocol.Spawn, worker: Owner, kept: list[int], watch: notify.Watch | None) -> None:
        """It is for this request from now on."""
        self.id, self.label, self.worker, self.kept = request.id, request.label, worker, kept
        self.watch = watch
        self.oom = self.group.oom_descriptor() if self.group else -1
        self.wall_s = request.spec.wall_s
        self.ordered = True
        self.deadline = time.monotonic() + SETUP_TIMEOUT_S

    def park(self) -> None:
        """All that can be made before it is ordered is made: it waits from now on."""
        self.deadline = math.inf

    @functools.cached_property
    def number(self) -> int:
        """Of its process, for those outside."""
        return linux.pid_in_proc(self.pidfd)

    def alive(self) -> bool:
        """Whether it listens still: its end is known by its socket first, by its pidfd when its namespaces are gone too."""
        if self.status.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self.status, 0)
        return not poll.poll(0)

    def kill(self) -> None:
        """End PID 1, and with it the whole namespace."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def fail(self, error: SandboxError) -> None:
        """It is not to become what it is for, and this is why."""
        self.failure = self.failure or Failure.of(error)
        self.kill()

    def supervise(self, shielded: tuple[Shielded, ...], descriptors: list[int], *, born_in_group: bool) -> None:
        """Start the process that answers for its filter. Raises SandboxError; what it asks is then answered ENOSYS."""
        assert self.watch is not None
        if not descriptors:
            raise SandboxError(
                "what its filter shows got lost: too many files are open here.", step="supervise", errno=errno.EMFILE
            )
        (filtered,) = descriptors
        try:
            reader, writer = protocol.pair()
            with reader, writer:
                self.supervisor = notify.start(
                    self.watch.with_shielded(shielded), filtered, writer, self.group, born_in_it=born_in_group
                )
                self.listeners.append(reader.detach())
        except OSError as error:
            raise SandboxError(f"{error.strerror}.", step="supervise", errno=error.errno or 0) from error
        finally:
            os.close(filtered)

    def exited(self, ended: os.waitid_result) -> protocol.Exited:
        """How it ended, for whoever waits for that."""
        died = ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
        events = self.group.events() if self.group else None
        return protocol.Exited(
            id=self.id,
            code=-1 if died else ended.si_status,
            signal=ended.si_status if died else 0,
            oom_killed=bool(events and events.oom_kills),
            pids_limit_hit=bool(events and events.pids_limit_hits),
            memory_peak_bytes=events.memory_peak_bytes if events else 0,
            cpu_s=events.cpu_s if events else 0.0,
            timed_out=self.timed_out,
            stalled_s=events.stalled_s if events else {},
            disk_limit_hit=self.disk_limit_hit,
        )

    def forget_descriptors(self) -> None:
        """Close what a client may want of it."""
        for descriptor in (*self.kept, *self.listeners):
            os.close(descriptor)
        self.kept, self.listeners = [], []
