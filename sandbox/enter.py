"""The way of a new process into its sandbox, step by step, to the exec of its program.

It runs in the child of the fork server, which clone3 has put into namespaces of its own. First comes what all sandboxes have in
common: the child is then parked, and waits for the order that makes it a particular one. A step that fails ends the child, and
the parent is told which it was: a sandbox is whole or is not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import resource
import select
import signal
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

import msgspec

from sandbox import init, landlock, linux, notify_kernel, protocol, seccomp
from sandbox.cgroup import Group
from sandbox.errors import SandboxError
from sandbox.plan import COMMON, Plan
from sandbox.root import Root, Worker
from sandbox.shield import Shielded
from sandbox.spec import Listener, SandboxSpec, listeners_of

FIRST_FREE_FD = 64
CANNOT_START = 127
PARKED, READY = b"parked", b"ready"
MOST_SHIELDED_BYTES = 32 * 1024
"""Of paths that a supervisor is told; of what is tried with more nothing is told."""
SECOND_ADDRESS = "127.0.0.2"
"""With 127.0.0.1 alone, programs that ask for what can be reached (AI_ADDRCONFIG, getaddrinfo(3)) get no IPv4 address."""
TIME_NAMESPACES = os.path.exists("/proc/self/ns/time_for_children")
NO_CORE_BYTES = 1
"""Less than any core dump. 0 would not keep one from a core_pattern that is a pipe, which runs as root outside (core(5))."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """The order for one sandbox: all that a child needs to know. The descriptors of the program come beside it."""

    spec: SandboxSpec
    plan: Plan
    uid: int
    gid: int
    change_ids: bool
    """Made by root: take the ids on. Otherwise they are the caller's own already."""
    filter: bytes
    numbers: tuple[int, ...]
    """What the program calls its descriptors."""
    rlimit_pids: int
    """For lack of a cgroup: a limit on all processes of the user. 0: none."""
    private: str = ""
    """Without namespaces: what stands in for private directories (tier.py)."""
    tier_filter: bytes = b""
    """Without namespaces: the filter that is loaded beside the usual one."""


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="failure"):
    """What a child says when it cannot go on."""

    message: str
    step: str
    errno: int
    hint: str = ""

    @classmethod
    def of(cls, error: SandboxError) -> Failure:
        return cls(error.message, error.step, error.errno, error.hint)


class Supervise(msgspec.Struct, frozen=True, array_like=True, tag="supervise"):
    """A child asks for its supervisor. Beside it comes the descriptor of what its filter shows."""

    shielded: tuple[Shielded, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


class Beginning(NamedTuple):
    """What a child knows when it is cloned."""

    plan: Plan
    """The part of the root that it makes before it is ordered."""
    status: socket.socket
    """To the fork server: PARKED, then the order from it; READY with the listeners; Supervise; a failure; its end when the
    program runs."""
    group: Group | None
    """The cgroup that it is to move into; None: it was born in it, or there is none."""
    way: Callable[[Beginning], NoReturn] | None = None
    """Another way than the usual one."""


def order(status: socket.socket, entry: Entry, descriptors: list[int]) -> None:
    """Make of a child what it is for. Raises OSError."""
    socket.send_fds(status, [_encoder.encode(entry)], descriptors)


def ordered(status: socket.socket) -> tuple[Entry, dict[int, int]]:
    """What this child is for, and the descriptors of its program: its number for each, and ours."""
    packet, descriptors = protocol.receive_packet(status, protocol.MAX_ORDER_BYTES)
    if not packet:
        os._exit(CANNOT_START)
    entry = _decoder.decode(packet)
    return entry, dict(zip(entry.numbers, descriptors, strict=True))


def enter(beginning: Beginning) -> NoReturn:
    """Build a sandbox around this process and become the program that it is ordered for."""
    try:
        (beginning.way or _enter)(beginning)
    except SandboxError as error:
        failure = Failure.of(error)
    except OSError as error:
        failure = Failure(
            f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}.", "build", error.errno or 0
        )
    except BaseException as error:
        failure = Failure(f"{type(error).__name__}: {error}", "build", 0)
    with contextlib.suppress(OSError):
        beginning.status.send(msgspec.msgpack.encode(failure))
    os._exit(CANNOT_START)


def _enter(beginning: Beginning) -> NoReturn:
    status = beginning.status
    built = _park(beginning)
    status.send(PARKED)
    entry, descriptors = ordered(status)
    groups = built.complete(entry.plan, entry.spec, Worker(entry.uid, entry.gid, entry.change_ids), status)
    if entry.spec.hostname != COMMON.hostname:
        socket.sethostname(entry.spec.hostname)
    if entry.spec.dns:
        linux.loopback_address(SECOND_ADDRESS)
    sockets = [_listener(listener) for listener in listeners_of(entry.spec)]
    socket.send_fds(status, [READY], [sock.fileno() for sock in sockets])
    _inherit(descriptors)
    _limit(entry)
    _change_directory(entry.spec.cwd)
    _lock_down(entry, groups)
    _filter(entry, built.shielded, status)
    _die_with_parent(status)
    if entry.spec.init:
        init.fork_program(terminal=entry.spec.terminal)
    _execute(entry.spec)


def _park(beginning: Beginning) -> Root:
    """Everything that needs no order. What the fork server has open is not for a child that may wait for long."""
    gc.disable()
    linux.close_all_but(beginning.status.fileno())
    os.setsid()
    _prefer_for_memory_kills()
    if beginning.group is not None:
        beginning.group.join()
    # The cgroup that it is in now becomes the root of what it can see of them.
    linux.unshare(linux.CLONE_NEWCGROUP | (linux.CLONE_NEWTIME if TIME_NAMESPACES else 0))
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    built = Root(beginning.plan)
    socket.sethostname(COMMON.hostname)
    linux.loopback_up()
    return built


def _prefer_for_memory_kills() -> None:
    """When the whole machine runs out of memory, workers go before what the user looks at (proc_pid_oom_score_adj(5))."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def _listener(listener: Listener) -> socket.socket:
    kind = socket.SOCK_DGRAM if listener.udp else socket.SOCK_STREAM
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    if not listener.udp:  # of a UDP socket it would share the port with whoever binds it next (socket(7))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((listener.address, listener.port))
    except OSError as error:
        hint = "Below 1024 that takes CAP_NET_BIND_SERVICE." if error.errno == errno.EACCES else ""
        what = f"port {listener.port} of its loopback: {os.strerror(error.errno or 0)}."
        raise SandboxError(what, step="listen", errno=error.errno or 0, hint=hint) from error
    if not listener.udp:
        sock.listen(128)
    return sock


def _inherit(descriptors: dict[int, int]) -> None:
    """Put the program's descriptors where it wants them, /dev/null on 0 to 2 otherwise, and close all else at the exec."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    wanted = dict.fromkeys(range(3), null) | descriptors
    # First all out of the way, so that none is overwritten by another's number.
    out_of_the_way = max(FIRST_FREE_FD, *wanted) + 1
    moved = {target: fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, out_of_the_way) for target, descriptor in wanted.items()}
    linux.close_on_exec_from(3)
    for target, descriptor in moved.items():
        os.dup2(descriptor, target, inheritable=True)


def _limit(entry: Entry) -> None:
    """None is on memory: RLIMIT_AS counts one process, and programs reserve far more than they use (V8, Go, the JVM)."""
    spec = entry.spec
    _set_limit(resource.RLIMIT_CORE, NO_CORE_BYTES)
    if spec.open_files:
        _set_limit(resource.RLIMIT_NOFILE, spec.open_files)
    if spec.file_size_bytes:
        _set_limit(resource.RLIMIT_FSIZE, spec.file_size_bytes)
    if entry.rlimit_pids:
        _set_limit(resource.RLIMIT_NPROC, entry.rlimit_pids)


def _set_limit(which: int, value: int) -> None:
    """Only root can go above what it has been given itself; less than was asked for keeps the limit too."""
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _change_directory(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        raise SandboxError(f"{path}: {error.strerror} inside the sandbox.", step="cwd", errno=error.errno or 0) from error


def _lock_down(entry: Entry, groups: list[int]) -> None:
    """From here on there is no way back to any privilege."""
    rules = _landlock_rules(entry)
    if entry.change_ids:
        _change_ids(entry.uid, entry.gid, groups)
    linux.drop_capabilities()
    # What this process remembers of the fork server is not for the program, which may have the same user (proc_pid_mem(5)). The
    # exec makes the program's own memory its own again.
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if rules is not None:
        landlock.restrict(rules)


def _filter(entry: Entry, shielded: tuple[Shielded, ...], status: socket.socket) -> None:
    if entry.spec.supervise == "off":
        seccomp.load_filter(entry.filter)
        return
    asked = _encoder.encode(Supervise(tuple(_first(shielded))))
    listener = notify_kernel.load(entry.filter)
    socket.send_fds(status, [asked], [listener])
    # Whoever holds it answers for the filter.
    os.close(listener)


def _first(shielded: tuple[Shielded, ...]) -> Iterator[Shielded]:
    room = MOST_SHIELDED_BYTES
    for one in shielded:
        room -= len(one.path.encode())
        if room < 0:
            return
        yield one


def _landlock_rules(entry: Entry) -> int | None:
    abi = landlock.version()
    if abi < landlock.MINIMUM and "landlock" in entry.spec.optional_layers:
        return None
    landlock.check(abi)
    return landlock.ruleset(abi, landlock.grants(entry.plan), descriptors={0, 1, 2, *entry.numbers})


def _change_ids(uid: int, gid: int, groups: list[int]) -> None:
    try:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        hint = "/proc/self/uid_map tells which there are: give another uid." if error.errno == errno.EINVAL else ""
        raise SandboxError(
            f"cannot become user {uid}: {error.strerror}.", step="privileges", errno=error.errno or 0, hint=hint
        ) from error
    # Some numbers mean "as it is" to these calls: what counts is what has become of it.
    if (
        os.getresuid() != (uid,) * 3
        or os.getresgid() != (gid,) * 3
        or sorted(os.getgroups()) != groups
        or 0 in (uid, gid, *groups)
    ):
        raise SandboxError(f"still not user {uid} alone.", step="privileges")


def _die_with_parent(status: socket.socket) -> None:
    """Be killed when the fork server ends; a change of ids would have cleared this (prctl(2))."""
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    poll = select.poll()
    poll.register(status, 0)
    if poll.poll(0):
        os._exit(CANNOT_START)


def _execute(spec: SandboxSpec) -> NoReturn:
    program = spec.argv[0]
    places = [program] if "/" in program else [f"{place}/{program}" for place in spec.env.get("PATH", "/usr/bin:/bin").split(":")]
    denied = 0
    for place in places:
        try:
            os.execve(place, spec.argv, spec.env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                denied = error.errno or errno.EACCES
    if denied:
        raise SandboxError(f"{program} cannot be run inside: {os.strerror(denied)}.", step="exec", errno=denied)
    raise SandboxError(f"{program} is not there inside.", step="exec", errno=errno.ENOENT)
