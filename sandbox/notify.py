"""The supervisor of a sandbox: a small process beside it that answers the calls which its filter shows, and tells what was tried.

It decides nothing. A call that the filter refuses gets the filter's own answer, found by running the filter on the registers
that the kernel shows; any other goes on to the kernel's own checks. Paths and addresses are read from the memory of a process
that may change them meanwhile: they are for people to read, never for a decision (seccomp_unotify(2)).

The fork server starts it, in the cgroup of the sandbox, so that what it costs counts there; with the last process of the sandbox
it ends. If it dies before, every call that it was to answer fails with ENOSYS, and none hangs or is let through.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import socket
import time
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from sandbox import linux, notify_calls, notify_kernel
from sandbox.cgroup import Group as Cgroup
from sandbox.elsewhere import elsewhere
from sandbox.helper import live
from sandbox.notify_calls import ADDRESSES, FILES, LOOKS, PATHS, Group
from sandbox.notify_events import ABSENT, ALLOWED, NO_NETWORK, READ_ONLY, Attempt, Event, Missed, encode
from sandbox.notify_filter import CALL, Machine, Watched, supervised
from sandbox.notify_kernel import Notification
from sandbox.plan import Plan
from sandbox.shield import Shielded
from sandbox.spec import SandboxSpec
from sandbox.syscalls import ALLOWED as ALLOWED_CALLS
from sandbox.syscalls import ALLOWED_WHEN, REFUSED

BURST = 100
"""So many events are told at once;"""
A_SECOND = 20.0
"""after that, so many a second, and the rest is counted."""
MOST_PATHS, MOST_RECORDED = 10_000, 200_000
"""Different ones that are told; more are counted."""
CAP_SYS_PTRACE = 19
HARMLESS = frozenset({"/run/nscd/socket", "/var/run/nscd/socket", "/dev/log", "/run/systemd/journal/socket"})
"""What the C library looks for by itself."""
COMPILED = "/__pycache__"
"""Where Python tries to keep compiled modules, and goes on without."""


class Sight(NamedTuple):
    """What a sandbox shows, to judge a path by its name."""

    places: tuple[tuple[str, str], ...]
    """Each with all below it, and why not all can be done there: READ_ONLY, ABSENT, or empty. Inner ones first."""
    directories: frozenset[str]
    """Bare directories that lead to them."""
    links: dict[str, str]

    @classmethod
    def of(cls, plan: Plan) -> Sight:
        shown = {tree.place: "" if tree.writable or tree.device else READ_ONLY for tree in plan.trees}
        shown |= dict.fromkeys((*plan.private, *plan.covered, "/proc", "/dev"), "") | dict.fromkeys(plan.files, READ_ONLY)
        directories = frozenset(plan.directories) | frozenset(map(os.path.dirname, plan.links))
        return cls(_inner_first(shown), directories, plan.links)

    def with_shielded(self, shielded: Iterable[Shielded]) -> Sight:
        """The same where this has been protected and hidden in it."""
        more = {one.path: ABSENT if one.hidden else READ_ONLY for one in shielded}
        return self._replace(places=_inner_first(dict(self.places) | more))

    def judge(self, path: str, *, written: bool) -> str:
        """Why a call on an absolute path cannot come far: ABSENT or READ_ONLY; empty: it may."""
        path = self._followed(path)
        for place, why in self.places:
            if path == place or path.startswith(f"{place}/"):
                return why if written or why == ABSENT else ""
        leads_to_one = path in self.directories or any(place.startswith(f"{path.rstrip('/')}/") for place, _ in self.places)
        if leads_to_one or path in self.links:
            return READ_ONLY if written else ""
        return READ_ONLY if written and os.path.dirname(path) in self.directories else ABSENT

    def _followed(self, path: str) -> str:
        for link, target in self.links.items():
            if path.startswith(f"{link}/"):
                return os.path.normpath(os.path.join(os.path.dirname(link), target) + path[len(link) :])
        return path


def _inner_first(places: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((path, places[path]) for path in sorted(places, key=len, reverse=True))


class Watch(NamedTuple):
    """What a supervisor must know of its sandbox."""

    group: Group
    program: bytes
    """The filter as it would be without a supervisor."""
    sight: Sight

    @classmethod
    def of(cls, spec: SandboxSpec, plan: Plan, program: bytes) -> Watch | None:
        """None: it has no supervisor."""
        return None if spec.supervise == "off" else cls(spec.supervise, program, Sight.of(plan))

    def with_shielded(self, shielded: Iterable[Shielded]) -> Watch:
        """The same where this has been protected and hidden in the sandbox."""
        return self._replace(sight=self.sight.with_shielded(shielded))


@functools.cache
def program_for(program: bytes, group: Group) -> bytes:
    """The filter that a sandbox of this group is put under, made from the one that it would have without."""
    return program if group == "off" else supervised(program, _watched(group))


def _watched(group: Group) -> list[Watched]:
    numbers = _numbers()
    calls = [Watched(numbers[name], 4 if name == "sendto" else -1) for name in ADDRESSES if name in numbers]
    names: dict[str, object] = {"refused": {}, "files": FILES, "record": {**FILES, **LOOKS}}
    wanted = names[group]
    assert isinstance(wanted, dict)
    return calls + [Watched(numbers[name]) for name in wanted if name in numbers]


@functools.cache
def _numbers() -> dict[str, int]:
    """Of this machine's architecture; libseccomp knows them."""
    return elsewhere(_resolved)


def _resolved() -> dict[str, int]:
    import pyseccomp

    names = chain(*ALLOWED_CALLS.values(), *REFUSED.values(), ALLOWED_WHEN)
    found = {name: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) for name in names}
    return {name: number for name, number in found.items() if number >= 0}


def start(watch: Watch, listener: int, teller: socket.socket, cgroup: Cgroup | None, *, born_in_it: bool) -> int:
    """Start a supervisor in this cgroup, by itself or by its birth: its pidfd. It holds copies of the descriptors."""
    supervisor = Supervisor(watch, listener, teller)
    pid, pidfd = linux.clone(0, cgroup.directory_fd() if cgroup and born_in_it else -1)
    if pid == 0:
        join = cgroup.join if cgroup and not born_in_it else None
        # All that it keeps is the right to read what the sandbox's processes have in memory.
        live("a supervisor", supervisor.run, (listener, teller.fileno()), 1 << CAP_SYS_PTRACE, first=join)
    return pidfd


class Supervisor:
    """The loop of the process."""

    def __init__(self, watch: Watch, listener: int, teller: socket.socket) -> None:
        self._watch = watch
        self._listener = listener
        self._teller = _Teller(teller, everything=watch.group == "record")
        self._machine = Machine(watch.program)
        self._names = {number: name for name, number in _numbers().items()}
        self._may_go_on = frozenset(call.number for call in _watched(watch.group))
        self._judge = functools.lru_cache(MOST_PATHS)(watch.sight.judge)

    def run(self) -> None:
        """Until the sandbox has ended."""
        notify_kernel.wake_at_once(self._listener)
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._teller, select.POLLIN)
        while True:
            happened = dict(poll.poll())
            # First, so that what is called after the reader's word is told after it.
            if self._teller.fileno() in happened and not self._teller.hear():
                poll.unregister(self._teller)
            if happened.get(self._listener, 0) & select.POLLIN:
                self._serve()
            elif self._listener in happened:
                self._teller.end()
                return

    def _serve(self) -> None:
        notification = notify_kernel.receive(self._listener)
        if notification is None:
            return
        number, _, _, *arguments = CALL.unpack(notification.data)
        error = self._machine.errno(notification.data)
        if error == 0 and number not in self._may_go_on:
            error = errno.EPERM
        try:
            event = self._look(notification, self._names.get(number, f"call {number}"), tuple(arguments), error)
            if event is not None and notify_kernel.is_waiting(self._listener, notification):
                self._teller.tell(event)
        finally:
            notify_kernel.answer(self._listener, notification, error)

    def _look(self, notification: Notification, name: str, arguments: tuple[int, ...], error: int) -> Attempt | None:
        """What is worth telling of a call; None: nothing."""
        path, decision, written = "", errno.errorcode.get(error, str(error)) if error else "", False
        if name in ADDRESSES:
            found = self._address(notification.thread, arguments[ADDRESSES[name] :])
            if found is None:
                return None
            path, decision = found.text, decision or self._of_address(found)
        elif name in PATHS:
            path = self._path(notification.thread, name, arguments)
            written = notify_calls.writes(name, arguments)
            decision = decision or self._of_path(path, written)
        if not decision or not self._teller.is_new(name, path, decision, written):
            return None
        who = notify_kernel.caller(notification.thread)
        return Attempt(name, path, who.pid, who.name, decision, notify_calls.in_words(name, arguments), written)

    def _address(self, thread: int, arguments: tuple[int, ...]) -> notify_calls.Address | None:
        pointer, size = arguments[0], arguments[1] & 0xFFFFFFFF
        try:
            return notify_calls.address(notify_kernel.read_memory(thread, pointer, min(size, 128)))
        except OSError:
            return None

    def _of_address(self, found: notify_calls.Address) -> str:
        if self._watch.group == "record":
            return ALLOWED
        if found.path:
            return self._of_path(found.path, written=False) if found.path not in HARMLESS else ""
        return NO_NETWORK if found.outside else ""

    def _of_path(self, path: str, written: bool) -> str:
        if self._watch.group == "record":
            return ALLOWED if path else ""
        if not path.startswith("/") or COMPILED in path:
            return ""
        return self._judge(path, written=written)

    def _path(self, thread: int, name: str, arguments: tuple[int, ...]) -> str:
        """The path of a call, absolute and without its dots if that can be told."""
        where = PATHS[name]
        try:
            path = notify_kernel.read_text(thread, arguments[where.path])
        except OSError:
            return ""
        if not path or path.startswith("/"):
            return os.path.normpath(path) if path else ""
        directory = notify_calls.signed(arguments[where.directory]) if where.directory >= 0 else notify_kernel.HERE
        base = notify_kernel.directory(thread, directory)
        return os.path.normpath(f"{base}/{path}") if base else path


class _Teller:
    """Sends events, and is never the reason for a call to wait: what the reader has no room for is counted."""

    def __init__(self, sock: socket.socket, *, everything: bool) -> None:
        self._sock = sock
        self._everything = everything
        self._told: set[tuple[str, str, bool]] = set()
        self._room = float(BURST)
        self._last = time.monotonic()
        self._missed = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def hear(self) -> bool:
        """Begin anew if the reader says so: what was told before is new again. False: there is no reader any more."""
        try:
            heard = self._sock.recv(16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._told.clear()
        return bool(heard)

    def is_new(self, name: str, path: str, decision: str, written: bool) -> bool:
        """Whether it is to be told: each path once where the kernel decides, as programs look in many places again and again."""
        if decision not in (ABSENT, READ_ONLY, ALLOWED):
            return True
        key = (notify_calls.kind(name) if decision == ALLOWED else "", path, written)
        if key in self._told:
            return False
        if len(self._told) >= (MOST_RECORDED if self._everything else MOST_PATHS):
            self._missed += 1
            return False
        self._told.add(key)
        return True

    def tell(self, event: Attempt) -> None:
        if not self._everything:
            now = time.monotonic()
            self._room = min(float(BURST), self._room + (now - self._last) * A_SECOND)
            self._last = now
            if self._room < 1.0:
                self._missed += 1
                return
            self._room -= 1.0
        self._tell_missed()
        if not self._send(event):
            self._missed += 1

    def end(self) -> None:
        self._tell_missed()

    def _tell_missed(self) -> None:
        if self._missed and self._send(Missed(self._missed)):
            self._missed = 0

    def _send(self, event: Event) -> bool:
        try:
            # While recording, what is told must be whole, and its reader is always there.
            self._sock.send(encode(event), 0 if self._everything else socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True
