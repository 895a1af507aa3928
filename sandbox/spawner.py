"""The fork server as its client sees it, from an event loop.

spawner = Spawner.start(cgroup_name="agent-supervisor")
sandbox = await spawner.spawn(SandboxSpec(argv=("true",)), {1: sys.stdout.fileno()})
exit = await sandbox.wait()
await spawner.aclose()
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, NoReturn

import msgspec

from sandbox import apparmor, linux, protocol, rendezvous
from sandbox.errors import SandboxError
from sandbox.spec import MAX_DESCRIPTOR, SandboxSpec, check, limits_disks, listeners_of

START_TIMEOUT_S = 30.0


class Exit(NamedTuple):
    """How a sandbox ended. `code` is -1 after a `signal`; `cpu_s` is seconds; without cgroups what they tell is 0 or False."""

    code: int
    signal: int = 0
    oom_killed: bool = False
    pids_limit_hit: bool = False
    memory_peak_bytes: int = 0
    cpu_s: float = 0.0
    timed_out: bool = False
    """Killed for `wall_s`."""
    stalled_s: Mapping[str, float] = MappingProxyType({})
    """How long some of it waited for cpu, memory and io; cgroup v2 alone tells."""
    disk_limit_hit: bool = False
    """Killed for `disk_bytes` or `disk_files`."""


class Sandbox:
    """A sandbox whose program runs. `pid` is that of its PID 1 on the host; `listeners` are the sockets it was asked to open."""

    label = b""
    """What it was labelled with, if an earlier client made it."""
    kept: tuple[int, ...] = ()
    """The descriptors that were kept for it meanwhile; they belong to the caller."""
    counted = True
    """Whether what it adds to disks may be limited."""
    events: socket.socket | None = None
    """Where its supervisor tells what it tries (notify_events.Follower); it belongs to the caller."""

    def __init__(self, id: int, pid: int, pidfd: int, listeners: list[socket.socket], exit: asyncio.Future[Exit]) -> None:
        self.id = id
        self.pid = pid
        self.listeners = listeners
        self._pidfd = pidfd
        self._exit = exit
        exit.add_done_callback(self._ended)

    async def wait(self) -> Exit:
        """How it ended, once everything in it has."""
        return await asyncio.shield(self._exit)

    def signal(self, number: int) -> None:
        """Send a signal to PID 1, which ignores those it has no handler for, but for SIGKILL and SIGSTOP. Ended: nothing."""
        if not self._exit.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End everything in it at once; again, or when it has ended, is harmless."""
        self.signal(signal.SIGKILL)

    def _ended(self, exit: asyncio.Future[Exit]) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class Spawner:
    """Makes sandboxes. Made by `start` or `find`; all other methods belong to the loop that first calls one of them."""

    def __init__(
        self, process: subprocess.Popen[bytes] | None, control: socket.socket, started: protocol.Started, found: list[_Found]
    ) -> None:
        self.cgroup = started.cgroup
        """`v1`, `v2` or `none`."""
        self.limits = started.layers
        """Each resource of cgroup.FIELDS, with the cgroup version that enforces it or why none does."""
        self.without = started.without
        """Why the sandboxes here have no namespaces, as far as they may lack them (tier.py); empty: they have."""
        self.left = False
        """Whether we have let go of it."""
        self._process = process
        self._control = control
        self._found = found
        self._last_id = started.last_id
        self._to_send: deque[tuple[bytes, list[int]]] = deque()
        self._spawning: dict[int, tuple[asyncio.Future[Sandbox], int]] = {}
        """With the number of sockets that are to come."""
        self._running: dict[int, asyncio.Future[Exit]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gone = asyncio.Event()

    @classmethod
    def start(
        cls, *, cgroup_name: str, lock_fd: int = -1, orphan_grace_s: float = 0.0, door: Path | None = None, parked: int = 0
    ) -> Spawner:
        """Start the fork server; blocks until it is ready, some 100 ms.

        It keeps `parked` sandboxes ready, so far as they can be made before it is known what for: each takes about 2 MB.

        Its sandboxes' cgroups lie in a directory `cgroup_name` of this process's own cgroup. If this process dies, they may go on
        for `orphan_grace_s` seconds; `lock_fd` (a locked file's descriptor) is held until the last of them is gone. At `door` a
        successor of this process can `find` the server meanwhile; the caller knows that no other server is behind that path.
        Raises SandboxError if the host cannot make sandboxes.
        """
        behind = _door(door)
        ours, theirs = protocol.pair()
        # Below 3 it would be closed in favour of /dev/null.
        lock, entry = (linux.above_standard(number) if number >= 0 else -1 for number in (lock_fd, behind))
        passed = [number for number in (theirs.fileno(), lock, entry) if number >= 0]
        try:
            process = subprocess.Popen(
                [*_server_argv(), str(theirs.fileno()), str(entry), cgroup_name, str(orphan_grace_s), str(parked)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"LANG": "C.UTF-8"},
                pass_fds=passed,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise SandboxError(f"{sys.executable}: {error.strerror}.", step="spawner", errno=error.errno or 0) from error
        finally:
            theirs.close()
            for number in (lock, entry, behind):
                if number >= 0:
                    os.close(number)
        try:
            started, found = _await_start(ours)
        except BaseException:
            ours.close()
            process.kill()
            process.wait()
            raise
        ours.setblocking(False)
        return cls(process, ours, started, found)

    @classmethod
    def find(cls, door: Path) -> Spawner | None:
        """The server that an earlier client has left, or that somebody else has started for us; None if there is none.

        What it runs is told by `adopt`. Blocks for as long as a server that is about to end takes for that, START_TIMEOUT_S at
        most. One that speaks another version of the protocol is told to end, with its sandboxes. Raises SandboxError for one
        that does not answer.
        """
        try:
            control = rendezvous.connect(door)
        except OSError as error:
            raise SandboxError(f"{door}: {error.strerror}.", step="spawner", errno=error.errno or 0) from error
        if control is None:
            return None
        try:
            started, found = _await_start(control)
        except _Ended:
            control.close()
            return None
        except BaseException:
            control.close()
            raise
        control.setblocking(False)
        return cls(None, control, started, found)

    def adopt(self) -> list[Sandbox]:
        """The sandboxes that were found, with their labels and what was kept; they and all descriptors belong to the caller now.

        One that has ended meanwhile says so on `wait`. To be called once.
        """
        self._attach_to_loop()
        found, self._found = self._found, []
        return [self._adopted(*one) for one in found]

    def _adopted(self, said: protocol.Found, descriptors: list[int], ended: protocol.Exited | None) -> Sandbox:
        assert self._loop is not None
        exit: asyncio.Future[Exit] = self._loop.create_future()
        pidfd, *others = descriptors or [-1]
        listeners = [socket.socket(fileno=listener) for listener in others[said.kept :]]
        sandbox = Sandbox(said.id, said.pid, pidfd, listeners, exit)
        if said.supervised and listeners:
            sandbox.events = listeners.pop()
        sandbox.label, sandbox.kept = said.label, tuple(others[: said.kept])
        if ended is not None or self._gone.is_set():
            exit.set_result(_exit_of(ended) if ended is not None else _KILLED)
        else:
            self._running[said.id] = exit
        return sandbox

    async def spawn(
        self, spec: SandboxSpec, descriptors: Mapping[int, int], *, label: bytes = b"", kept: Sequence[int] = ()
    ) -> Sandbox:
        """A sandbox in which `spec.argv` runs, with `descriptors` (its number: ours); 0 to 2 are /dev/null unless given.

        The listening sockets in it belong to the caller. With a `label` it outlives this client for the server's grace, and a
        successor gets the label, its listening sockets and the descriptors in `kept`. Raises SandboxError, with nothing left
        running, if any part of the specification cannot be enforced.
        """
        check(spec)
        if self._gone.is_set():
            raise _server_gone()
        self._check_descriptors(descriptors, kept)
        self._attach_to_loop()
        self._last_id += 1
        request = protocol.Spawn(self._last_id, spec, tuple(descriptors), label, len(kept))
        packet = protocol.encode(request)
        if len(packet) > protocol.MAX_PACKET_BYTES:
            raise SandboxError(f"it is {len(packet)} bytes, the limit is {protocol.MAX_PACKET_BYTES}.", step="spec")
        copies = _copies((*descriptors.values(), *kept))
        future: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self._spawning[request.id] = (future, len(listeners_of(spec)) + (spec.supervise != "off"))
        self._send(packet, copies)
        sandbox = await future
        sandbox.counted = limits_disks(spec)
        return sandbox

    def renew(self, sandbox: Sandbox) -> None:
        """What it adds to disks is counted from now on (`disk_bytes`, `disk_files`): it begins something else."""
        if sandbox.counted and not self._gone.is_set():
            self._send(protocol.encode(protocol.Renew(sandbox.id)), [])

    def _check_descriptors(self, descriptors: Mapping[int, int], kept: Sequence[int]) -> None:
        count = len(descriptors) + len(kept)
        if count > protocol.MAX_DESCRIPTORS:
            raise SandboxError(f"{count} descriptors, the limit is {protocol.MAX_DESCRIPTORS}.", step="spec")
        control = os.fstat(self._control.fileno())
        for number, descriptor in descriptors.items():
            if not 0 <= number <= MAX_DESCRIPTOR:
                raise SandboxError(f"descriptor {number}: must be from 0 to {MAX_DESCRIPTOR}.", step="spec")
            try:
                given = os.fstat(descriptor)
            except OSError as error:
                raise SandboxError(
                    f"descriptor {descriptor}, for {number}: {error.strerror}.", step="spec", errno=error.errno or 0
                ) from error
            # Whoever holds it commands the fork server, which may be root's.
            if os.path.samestat(given, control):
                raise SandboxError(f"descriptor {number} would be the way to the fork server itself.", step="spec")

    async def aclose(self) -> None:
        """Kill all sandboxes and end the server; returns when both are gone."""
        if not self._gone.is_set():
            self._attach_to_loop()
            self._send(protocol.encode(protocol.Stop()), [])
            await self._gone.wait()
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)

    def leave(self) -> None:
        """Let go of the server and its sandboxes, as a death of this process would: a successor may take them over.

        Every `Sandbox` of it is told that it has ended, and none can be killed by us any more.
        """
        self._attach_to_loop()
        self.left = True
        if not self._gone.is_set():
            self._lose_server()

    @property
    def ended(self) -> bool:
        """Whether the server has ended, and all its sandboxes with it."""
        return self._gone.is_set()

    async def gone(self) -> None:
        """Return when the server has ended, whatever the reason: no sandbox of it runs on, and no new one can be made."""
        self._attach_to_loop()
        await self._gone.wait()

    def _attach_to_loop(self) -> None:
        if self._loop is None and not self._gone.is_set():
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._control.fileno(), self._on_readable)

    def _send(self, packet: bytes, descriptors: list[int]) -> None:
        self._to_send.append((packet, descriptors))
        if len(self._to_send) == 1:
            self._flush()

    def _flush(self) -> None:
        assert self._loop is not None
        while self._to_send:
            packet, descriptors = self._to_send[0]
            try:
                socket.send_fds(self._control, [packet], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._control.fileno(), self._flush)
                return
            except OSError:
                self._lose_server()
                return
            self._drop_sent()
        self._loop.remove_writer(self._control.fileno())

    def _drop_sent(self) -> None:
        _, descriptors = self._to_send.popleft()
        for descriptor in descriptors:
            os.close(descriptor)

    def _on_readable(self) -> None:
        try:
            while (received := protocol.receive_answer(self._control)) is not None:
                self._on_answer(*received)
        except BlockingIOError:
            return
        self._lose_server()

    def _on_answer(self, answer: protocol.Message, descriptors: list[int]) -> None:
        if isinstance(answer, protocol.Spawned):
            self._on_spawned(answer, descriptors)
        elif isinstance(answer, protocol.Refused):
            future, _ = self._spawning.pop(answer.id)
            if not future.done():
                future.set_exception(SandboxError(answer.message, step=answer.step, errno=answer.errno, hint=answer.hint))
        elif isinstance(answer, protocol.Exited):
            self._running.pop(answer.id).set_result(_exit_of(answer))

    def _on_spawned(self, answer: protocol.Spawned, descriptors: list[int]) -> None:
        assert self._loop is not None
        exit: asyncio.Future[Exit] = self._loop.create_future()
        self._running[answer.id] = exit
        future, expected = self._spawning.pop(answer.id)
        if len(descriptors) != 1 + expected:
            self._end_unheld(answer, descriptors, future)
            return
        pidfd, *listeners = descriptors
        sandbox = Sandbox(answer.id, answer.pid, pidfd, [socket.socket(fileno=listener) for listener in listeners], exit)
        if answer.supervised:
            sandbox.events = sandbox.listeners.pop()
        if future.done():  # the caller has been cancelled meanwhile
            sandbox.kill()
            for sock in filter(None, (*sandbox.listeners, sandbox.events)):
                sock.close()
        else:
            future.set_result(sandbox)

    def _end_unheld(self, answer: protocol.Spawned, descriptors: list[int], future: asyncio.Future[Sandbox]) -> None:
        """The kernel drops what a process has no room for (unix(7)): without its descriptors a sandbox cannot be kept."""
        # By its number, which is its own until the server, whose child it is, has told of its end.
        with contextlib.suppress(ProcessLookupError):
            os.kill(answer.pid, signal.SIGKILL)
        for descriptor in descriptors:
            os.close(descriptor)
        if not future.done():
            message = "there was no room for its descriptors, so it was ended."
            future.set_exception(SandboxError(message, step="spawner", errno=errno.EMFILE, hint="Raise the limit of open files."))

    def _lose_server(self) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        self._gone.set()
        while self._to_send:
            self._drop_sent()
        for future, _ in self._spawning.values():
            if not future.done():
                future.set_exception(_server_gone())
        for exit in self._running.values():
            exit.set_result(_KILLED)
        self._spawning.clear()
        self._running.clear()


def become(door: Path, cgroup_name: str, *, lock_fd: int, orphan_grace_s: float, parked: int = 0) -> NoReturn:
    """Turn this process into a fork server whose clients come in at `door`, for which see `Spawner.start` and `Spawner.find`.

    Raises SandboxError or OSError.
    """
    entry = linux.above_standard(_door(door))
    for descriptor in (entry, linux.above_standard(lock_fd)):
        os.set_inheritable(descriptor, True)
    argv = [*_server_argv(), "-1", str(entry), cgroup_name, str(orphan_grace_s), str(parked)]
    environment = {"LANG": "C.UTF-8", **{name: os.environ[name] for name in ("NOTIFY_SOCKET",) if name in os.environ}}
    os.execve(argv[0], argv, environment)


def _server_argv() -> list[str]:
    if launcher := apparmor.launcher():
        return [launcher]
    places = dict.fromkeys(str(Path(file).parent.parent) for file in (__file__, str(msgspec.__file__)))
    return [sys.executable, "-I", "-S", "-c", _SERVE, os.pathsep.join(places)]


_SERVE = """
import sys
sys.path[:0] = sys.argv.pop(1).split(":")
from sandbox.keeper import main
sys.exit(main(sys.argv[1:]))
"""
"""-I and -S keep the environment, the working directory and other packages out of the import path, and the process small.

What it needs must be in it even when it is not installed."""


_KILLED = Exit(code=-1, signal=signal.SIGKILL)
_Found = tuple[protocol.Found, list[int], protocol.Exited | None]


class _Ended(SandboxError):
    """The server has ended instead of answering."""


def _await_start(control: socket.socket) -> tuple[protocol.Started, list[_Found]]:
    control.settimeout(START_TIMEOUT_S)
    answer, _ = _answer(control)
    if isinstance(answer, protocol.NotStarted):
        raise SandboxError(answer.message, step=answer.step, errno=answer.errno, hint=answer.hint)
    assert isinstance(answer, protocol.Started)
    if answer.version != protocol.VERSION:
        control.send(protocol.encode(protocol.Stop()))
        while True:  # not closed before: with something left unread in it, what was sent would be lost
            _answer(control)
    found: list[_Found] = []
    while len(found) < answer.found:
        said, descriptors = _answer(control)
        assert isinstance(said, protocol.Found)
        ended, _ = (None, []) if descriptors else _answer(control)
        assert ended is None or isinstance(ended, protocol.Exited)
        found.append((said, descriptors, ended))
    return answer, found


def _answer(control: socket.socket) -> tuple[protocol.Answer, list[int]]:
    try:
        received = protocol.receive_answer(control)
    except TimeoutError as error:
        raise SandboxError(f"the fork server did not answer within {START_TIMEOUT_S:.0f} s.", step="spawner") from error
    if received is None:
        raise _Ended("the fork server ended while it started; what it said is above.", step="spawner")
    return received


def _exit_of(answer: protocol.Exited) -> Exit:
    return Exit(
        answer.code,
        answer.signal,
        answer.oom_killed,
        answer.pids_limit_hit,
        answer.memory_peak_bytes,
        answer.cpu_s,
        answer.timed_out,
        answer.stalled_s,
        answer.disk_limit_hit,
    )


def _door(path: Path | None) -> int:
    if path is None:
        return -1
    try:
        return rendezvous.listen(path).detach()
    except OSError as error:
        raise SandboxError(f"{path}: {error.strerror}.", step="spawner", errno=error.errno or 0) from error


def _copies(descriptors: Iterable[int]) -> list[int]:
    """All or none; ours, for the caller may close his while they wait to be sent."""
    with contextlib.ExitStack() as on_failure:
        copies = []
        try:
            for descriptor in descriptors:
                copy = os.dup(descriptor)
                on_failure.callback(os.close, copy)
                copies.append(copy)
        except OSError as error:
            raise SandboxError(f"no copy of a descriptor: {error.strerror}.", step="spawner", errno=error.errno or 0) from error
        on_failure.pop_all()
        return copies


def _server_gone() -> SandboxError:
    return SandboxError("the fork server has ended.", step="spawner", hint="Restart the daemon; its tasks are kept.")
