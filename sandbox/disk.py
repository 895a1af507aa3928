"""The limit on what a sandbox adds to the host's disks: how it is noticed, and who says so.

A quota of the kernel (quotactl(2)) needs root and a file system that was made and mounted for it. This needs neither: a process
of its own looks again and again at how much room the file systems have (statvfs(3)), and counts files (tally.py) only when one
has got fuller by what a sandbox may add. It is thus a moment late: what is written meanwhile is more than was allowed. It is a
process because a network file system that is gone answers nobody, or after minutes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from functools import partial

import msgspec

from sandbox import linux, protocol
from sandbox.cgroup_paths import unescape
from sandbox.helper import live
from sandbox.spec import SandboxSpec
from sandbox.tally import Room, Tally, Uncountable, lines_of

FASTEST = Room(4 << 30, 500_000)
"""What a sandbox adds in a second at most, by experience."""
SOONEST_S, LATEST_S = 0.05, 2.0
"""Between two looks."""
COARSE_NS = 20_000_000
"""File systems take the time of a file from the last tick of the clock."""
RIGHTS = 1 << 2 | 1 << 19 | 1 << 40
"""CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE: to see files, and which ones processes hold."""
MAX_PACKET_BYTES = 256 * 1024
END_TIMEOUT_MS = 1000
REST = 4.0
"""A sandbox whose files took so long to count is left alone for so many times as long."""


class Count(msgspec.Struct, frozen=True, tag=True):
    """From `since_ns` on, tell when files below `paths`, or held by a process, have been added by more than `limit`."""

    id: int
    process: int
    """In the mounted /proc: what it holds counts, and what its descendants hold."""
    trusted: bool
    """It is our init: it holds nothing, and shows nobody what it holds."""
    paths: tuple[str, ...]
    limit: Room
    """0 is no limit."""
    since_ns: int
    round: int = 0
    """Which count of this sandbox it is."""


class Forget(msgspec.Struct, frozen=True, tag=True):
    id: int


_decoder = msgspec.msgpack.Decoder(Count | Forget)


def wanted(id: int, spec: SandboxSpec, private: str, process: int, *, trusted: bool) -> Count | None:
    """What is to be counted of a sandbox, if anything. `private` is a directory of its own on the host's disks, if it has one."""
    limit = Room(spec.disk_bytes, spec.disk_files)
    places = {bind.layers or bind.source for bind in spec.binds if bind.writable} | ({private} if private else set())
    if not any(limit) or not places:
        return None
    return Count(id, process, trusted, tuple(sorted(places)), limit, time.time_ns())


class Disks:
    """The fork server's side: what is to be counted. Readable when there is something to `read`."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._pidfd = -1
        self.pid = 0
        """Of the process that counts; 0: there is none."""
        self._counting: dict[int, Count] = {}

    def begin(self, count: Count) -> bool:
        """Count from now on. Whether a counter had to be started for that, which is to be `read`. Raises OSError."""
        started = self._sock is None
        if started:
            self._start()
        try:
            self._send(count)
        except OSError:
            if started:
                self.close()
            raise
        self._counting[count.id] = count
        return started

    def again(self, id: int) -> None:
        """Count anew from now on, if it is counted at all."""
        if (count := self._counting.get(id)) and self._sock:
            self._counting[id] = msgspec.structs.replace(count, since_ns=time.time_ns(), round=count.round + 1)
            with contextlib.suppress(OSError):
                self._send(self._counting[id])

    def forget(self, id: int) -> None:
        if self._counting.pop(id, None) and self._sock:
            with contextlib.suppress(OSError):
                self._send(Forget(id))

    def read(self) -> set[int] | None:
        """Whose limit has been passed; None: the counter has ended, and is to be given up by `lose`."""
        assert self._sock is not None
        packet, _ = protocol.receive_packet(self._sock, 64)
        if not packet:
            return None
        id, round = map(int, packet.split())
        count = self._counting.get(id)
        return {id} if count and count.round == round else set()

    def lose(self) -> set[int]:
        """Give up the counter: all that were counted, whose limits nobody holds any more."""
        print("sandbox: who counts what is added to disks has ended, and so do those whose limit that was.", file=sys.stderr)  # noqa: T201
        self.close()
        lost, self._counting = set(self._counting), {}
        return lost

    def fileno(self) -> int:
        return self._sock.fileno() if self._sock else -1

    def close(self) -> None:
        """End the counter. One that hangs at a dead disk cannot be ended: it is not waited for."""
        if self._sock is None:
            return
        self._sock.close()
        self._sock = None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if poll.poll(END_TIMEOUT_MS):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        self._pidfd, self.pid = -1, 0

    def _start(self) -> None:
        ours, theirs = protocol.pair()
        rights = RIGHTS & linux.held_capabilities()
        with theirs:
            self.pid, self._pidfd = linux.clone(0)
            if self.pid == 0:
                end_with_server = partial(linux.prctl, linux.PR_SET_PDEATHSIG, signal.SIGKILL)
                live("who counts what is added to disks", Counter(theirs).run, (theirs.fileno(),), rights, first=end_with_server)
        self._sock = ours

    def _send(self, message: Count | Forget) -> None:
        assert self._sock is not None
        self._sock.send(msgspec.msgpack.encode(message), socket.MSG_DONTWAIT)


class Counter:
    """The loop of the process that counts."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._counted: dict[int, Counted] = {}

    def run(self) -> None:
        """Until the fork server is gone."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while True:
            if poll.poll(self._patience_ms()) and not self._hear():
                return
            now = time.monotonic()
            for one in [one for one in self._counted.values() if one.due <= now]:
                self._look(one)

    def _look(self, one: Counted) -> None:
        """Whatever is wrong with one ends the limit of no other."""
        try:
            passed = one.passed()
        except Exception as error:
            print(f"sandbox: what it adds to disks cannot be counted: {error!r}", file=sys.stderr, flush=True)  # noqa: T201
            passed = True
        if passed:
            self._forget(one.count.id)
            self._sock.send(b"%d %d" % (one.count.id, one.count.round))

    def _patience_ms(self) -> float | None:
        dues = [one.due for one in self._counted.values()]
        return max(0.0, min(dues) - time.monotonic()) * 1000 if dues else None

    def _hear(self) -> bool:
        packet, _ = protocol.receive_packet(self._sock, MAX_PACKET_BYTES)
        if not packet:
            return False
        said = _decoder.decode(packet)
        self._forget(said.id)
        if isinstance(said, Count):
            self._counted[said.id] = Counted(said)
        return True

    def _forget(self, id: int) -> None:
        if id in self._counted:
            self._counted.pop(id).close()


class Counted:
    """What is counted of one sandbox."""

    def __init__(self, count: Count) -> None:
        self.count = count
        self.due = 0.0
        """When to look again, by the monotonic clock."""
        self._roots: list[int] | None = None
        self._filled: dict[int, Room] = {}
        """The least that each file system has held meanwhile: what others free is not for the sandbox to take."""
        self._allowed = count.limit
        """How much fuller they may get before files are counted."""

    def passed(self) -> bool:
        """Whether more has been added than may be. Raises OSError where that cannot be told."""
        if self._roots is None:
            self._roots = _opened(self.count.paths)
        grown = Room()
        for device, filled in _fill(self._roots).items():
            least = self._filled[device] = self._filled.get(device, filled).least(filled)
            grown = grown.plus(filled.less(least))
        began = time.monotonic()
        if grown.exceeds(self._allowed):
            added = self._added(self._roots)
            if added is None or added.exceeds(self.count.limit):
                return True
            self._allowed = grown.plus(self.count.limit.less(added)).where(self.count.limit)
        counted = time.monotonic()
        # A sandbox of very many files must not keep the counter from all others.
        self.due = counted + max(self._patience_s(grown), REST * (counted - began))
        return False

    def close(self) -> None:
        for root in self._roots or ():
            os.close(root)

    def _added(self, roots: list[int]) -> Room | None:
        """None: it may have added anything, where nobody can look."""
        tally = Tally(self.count.since_ns - COARSE_NS, self.count.limit)
        try:
            for root in roots:
                tally.below(root)
            tally.held_by(self.count.process, trusted=self.count.trusted)
        except Uncountable:
            return None
        return tally.room

    def _patience_s(self, grown: Room) -> float:
        left = self._allowed.less(grown)
        limited = zip(left, FASTEST, self.count.limit, strict=True)
        return max(SOONEST_S, min([LATEST_S, *(room / a_second for room, a_second, limit in limited if limit)]))


def _fill(roots: list[int]) -> dict[int, Room]:
    """How full the file systems are, by their devices."""
    filled = {}
    for root in roots:
        with contextlib.suppress(OSError):  # the disk is gone: nothing is added to it
            told = os.fstatvfs(root)
            filled[os.fstat(root).st_dev] = Room((told.f_blocks - told.f_bfree) * told.f_frsize, told.f_files - told.f_ffree)
    return filled


def _opened(paths: tuple[str, ...]) -> list[int]:
    """What is there of these, and what is mounted below them."""
    below = [point for point in _mount_points() if any(point.startswith(f"{path}/") for path in paths)]
    roots: list[int] = []
    for path in (*paths, *below):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            roots.append(os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW))
    return roots


def _mount_points() -> list[str]:
    with lines_of("/proc/self/mountinfo") as file:
        return [unescape(line.split(" ")[4]) for line in file]
