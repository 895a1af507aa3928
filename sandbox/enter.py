"""The way of a new process into its sandbox, step by step, to the exec of its program.

It runs in the child of the fork server, which clone3 has put into namespaces of its own. A step that fails ends the child, and
the parent is told which it was: a sandbox is whole or is not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import stat
from typing import NamedTuple, NoReturn

import msgspec

from sandbox import init, linux, protocol, seccomp
from sandbox.errors import SandboxError
from sandbox.linux import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
from sandbox.mounts import NODEV, NOSUID, RDONLY, PrivateMounts
from sandbox.plan import Plan, Tree
from sandbox.spec import HOME, SandboxSpec

BUILD_AT = "/tmp"
"""Where the new root is put together; hidden in this mount namespace alone."""
INODES = 200_000
FIRST_FREE_FD = 64
CANNOT_START = 127
READY, GO = b"ready", b"go"
OVERFLOW = 65534
"""How a user namespace shows ids that it has no map for, unless the host says otherwise (proc_sys_kernel(5))."""
NO_CORE_BYTES = 1
"""Less than any core dump. 0 would not keep one from a core_pattern that is a pipe, which runs as root outside (core(5))."""


class Entry(NamedTuple):
    """All that a child needs to know."""

    spec: SandboxSpec
    plan: Plan
    uid: int
    gid: int
    change_ids: bool
    """Made by root: take the ids on. Otherwise they are the caller's own already."""
    filter: bytes
    status: socket.socket
    """To the fork server: READY with the listeners, then GO from it; a failure; its end when the program runs."""
    descriptors: dict[int, int]
    """What the program inherits: its number for it, and ours."""
    rlimit_pids: int
    """For lack of a cgroup: a limit on all processes of the user. 0: none."""


Owner = tuple[int, int]
"""uid and gid."""
Shift = tuple[int, int, bool]
"""uid and gid whose files are to be the worker's, and whether root keeps a place beside them (idmap.namespace)."""


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="failure"):
    """What a child says when it cannot go on."""

    message: str
    step: str
    errno: int
    hint: str = ""


class Owners(msgspec.Struct, frozen=True, array_like=True, tag="owners"):
    """A child asks the fork server for user namespaces that shift what these have on disk to the worker, one each."""

    owners: tuple[Shift, ...]


def enter(entry: Entry) -> NoReturn:
    """Build the sandbox around this process and become its program."""
    try:
        _enter(entry)
    except SandboxError as error:
        failure = Failure(error.message, error.step, error.errno, error.hint)
    except OSError as error:
        failure = Failure(
            f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}.", "build", error.errno or 0
        )
    except BaseException as error:
        failure = Failure(f"{type(error).__name__}: {error}", "build", 0)
    with contextlib.suppress(OSError):
        entry.status.send(msgspec.msgpack.encode(failure))
    os._exit(CANNOT_START)


def _enter(entry: Entry) -> NoReturn:
    os.setsid()
    _prefer_for_memory_kills()
    _build_root(entry)
    socket.sethostname(entry.spec.hostname)
    linux.loopback_up()
    listeners = [_listener(port) for port in entry.spec.loopback_listen]
    socket.send_fds(entry.status, [READY], [listener.fileno() for listener in listeners])
    if entry.status.recv(16) != GO:
        os._exit(CANNOT_START)
    # Now in its cgroup, which becomes the root of what it can see of them.
    linux.unshare(linux.CLONE_NEWCGROUP)
    _inherit(entry.descriptors)
    _limit(entry)
    _change_directory(entry.spec.cwd)
    _lock_down(entry)
    if entry.spec.init:
        init.fork_program(terminal=entry.spec.terminal)
    _execute(entry.spec)


def _prefer_for_memory_kills() -> None:
    """When the whole machine runs out of memory, workers go before what the user looks at (proc_pid_oom_score_adj(5))."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def _build_root(entry: Entry) -> None:
    plan = entry.plan
    mounts = PrivateMounts()
    # Opened before BUILD_AT hides what is below it.
    sources = [(_open_source(tree), tree) for tree in plan.trees]
    layers = {tree: _open_layers(tree) for tree in plan.trees if tree.layers}
    owners = {tree: _owner(source, tree, entry) for source, tree in sources if tree.writable or tree.owner is not None}
    users = _users(entry, owners)
    trees = [(_copy(mounts, source, tree, _shifted(users, owners, tree)), tree) for source, tree in sources]
    uppers = {tree: _copy_layers(mounts, source, _shifted(users, owners, tree)) for tree, source in layers.items()}
    for descriptor in set(users.values()):
        os.close(descriptor)
    mounts.tmpfs(BUILD_AT, entry.spec.tmp_bytes, INODES)
    os.chdir(BUILD_AT)
    trees = [(_overlay(mounts, lower, tree, uppers[tree]) if tree.layers else lower, tree) for lower, tree in trees]
    _skeleton(trees, entry)
    mounts.proc("proc")
    mounts.devpts("dev/pts")
    for descriptor, tree in trees:
        _attach(mounts, descriptor, tree)
    for path in plan.private:
        _make_private(mounts, path)
    mounts.make_root()
    mounts.seal_root()


def _open_source(tree: Tree) -> int:
    try:
        return linux.open_path(tree.source, RESOLVE_NO_SYMLINKS if tree.writable else 0)
    except OSError as error:
        why = "is reached through a symbolic link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
        raise SandboxError(f"{tree.source}: {why}.", step="bind", errno=error.errno or 0) from error


def _owner(source: int, tree: Tree, entry: Entry) -> Owner:
    """Who owns what was opened, which nobody can exchange any more; raises SandboxError if it is not who it should be."""
    found = os.fstat(source)
    owner = (found.st_uid, found.st_gid)
    if tree.owner is None or owner == tree.owner:
        return owner
    # In a user namespace that knows no ids but our own, all others look alike; there the kernel gives no right to them either.
    seen = tuple(id if id == own else OVERFLOW for id, own in zip(tree.owner, (entry.uid, entry.gid), strict=True))
    if not entry.change_ids and owner == seen:
        return owner
    raise SandboxError(
        f"{tree.source} belongs to {owner[0]}:{owner[1]} now, no longer to {tree.owner[0]}:{tree.owner[1]}.",
        step="bind",
        errno=errno.EPERM,
        hint="It has been exchanged or given away meanwhile: start again.",
    )


def _open_layers(tree: Tree) -> int:
    try:
        return linux.open_path(tree.layers, RESOLVE_NO_SYMLINKS)
    except OSError as error:
        raise SandboxError(f"{tree.layers}: {error.strerror}.", step="overlay", errno=error.errno or 0) from error


def _copy_layers(mounts: PrivateMounts, source: int, users: int) -> int:
    try:
        return mounts.tree(source, attributes=NOSUID | NODEV, users=users)
    finally:
        os.close(source)


def _overlay(mounts: PrivateMounts, lower: int, tree: Tree, layers: int) -> int:
    try:
        return mounts.overlay(lower, layers)
    except SandboxError as error:
        error.message = f"no copy-on-write view of {tree.source}: {error.message}"
        error.hint = "What this host lacks for one: agentctl doctor. A copy needs nothing."
        raise
    finally:
        os.close(lower)
        os.close(layers)


def _shifted(users: dict[Shift, int], owners: dict[Tree, Owner], tree: Tree) -> int:
    """The user namespace for a tree; -1: its owner is the worker, or it is only to be read."""
    return users.get((*owners[tree], bool(tree.layers)), -1) if tree.writable else -1


def _users(entry: Entry, owners: dict[Tree, Owner]) -> dict[Shift, int]:
    """A user namespace for each owner of a writable bind who is not the worker itself, made by the fork server."""
    shifted = [(*owner, bool(tree.layers)) for tree, owner in owners.items() if tree.writable and owner != (entry.uid, entry.gid)]
    if not shifted or not entry.change_ids:
        return {}
    others = tuple(dict.fromkeys(shifted))
    entry.status.send(msgspec.msgpack.encode(Owners(others)))
    packet, users = protocol.receive_packet(entry.status, 16)
    if packet != GO or len(users) != len(others):
        os._exit(CANNOT_START)
    return dict(zip(others, users, strict=True))


def _copy(mounts: PrivateMounts, source: int, tree: Tree, users: int) -> int:
    attributes = NOSUID | (0 if tree.writable else RDONLY) | (0 if tree.device else NODEV)
    try:
        return mounts.tree(source, attributes=attributes, users=users)
    except SandboxError as error:
        if users >= 0 and error.errno == errno.EINVAL:
            error.hint = "Its file system has no id-mapped mounts: use another directory, or run as its owner."
        error.message = f"{tree.source}: {error.message}"
        raise
    finally:
        os.close(source)


def _skeleton(trees: list[tuple[int, Tree]], entry: Entry) -> None:
    """Everything of the root that is made in memory, before anything of the host is attached to it.

    Links come last: they lead out of it as long as it is not the root, and so nothing may be made by way of one.
    """
    plan = entry.plan
    os.umask(0o022)
    for path in (*plan.directories, *plan.private):
        os.makedirs(_inside(path), exist_ok=True)
    for path in plan.private:
        os.chmod(_inside(path), 0o700 if path == HOME else 0o1777)
        if entry.change_ids:
            os.chown(_inside(path), entry.uid, entry.gid)
    for path, text in plan.files.items():
        with open(_inside(path), "x") as file:
            file.write(text)
    for descriptor, tree in trees:
        place = _inside(tree.place)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    for path, target in plan.links.items():
        os.makedirs(os.path.dirname(_inside(path)) or ".", exist_ok=True)
        os.symlink(target, _inside(path))


def _inside(path: str) -> str:
    """A path of the plan, relative to the root that is being built."""
    return path.lstrip("/")


def _attach(mounts: PrivateMounts, descriptor: int, tree: Tree) -> None:
    """Attach a tree; never through a symbolic link, for what was attached before may hold what a worker has made."""
    try:
        place = linux.open_path(_inside(tree.place), RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        why = "a symbolic link is in the way" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
        raise SandboxError(f"no place for {tree.place} inside: {why}.", step="bind", errno=error.errno or 0) from error
    mounts.attach(descriptor, place)
    os.close(place)
    os.close(descriptor)


def _make_private(mounts: PrivateMounts, path: str) -> None:
    """Leave a directory of the root writable when the root itself is sealed, by a mount of its own."""
    place = linux.open_path(_inside(path), RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    tree = mounts.tree(place, attributes=NOSUID | NODEV)
    mounts.attach(tree, place)
    os.close(tree)
    os.close(place)


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener


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


def _lock_down(entry: Entry) -> None:
    """From here on there is no way back to any privilege."""
    if entry.change_ids:
        _change_ids(entry.uid, entry.gid)
    linux.drop_capabilities()
    # What this process remembers of the fork server is not for the program, which may have the same user (proc_pid_mem(5)). The
    # exec makes the program's own memory its own again.
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    _die_with_parent(entry.status)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.load_filter(entry.filter)


def _change_ids(uid: int, gid: int) -> None:
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        hint = "/proc/self/uid_map tells which there are: give another uid." if error.errno == errno.EINVAL else ""
        raise SandboxError(
            f"cannot become user {uid}: {error.strerror}.", step="privileges", errno=error.errno or 0, hint=hint
        ) from error
    # Some numbers mean "as it is" to these calls: what counts is what has become of it.
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or os.getgroups() or 0 in (uid, gid):
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
