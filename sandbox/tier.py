"""The tier without namespaces, for a user whom the host forbids them: Landlock and a filter, on the file system as it is.

Nothing is mounted, so that every path is the host's own: what is not granted is there and cannot be opened. What a sandbox has as
private directories lies in one made for it, and a mention of theirs in the specification means that. What this tier cannot hold
is in LACKS; a specification must name the namespaces as optional to be run in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Container, Iterable
from functools import partial

import msgspec

from sandbox import idmap, landlock, linux, seccomp
from sandbox.elsewhere import elsewhere
from sandbox.errors import SandboxError
from sandbox.plan import VAR_TMP, Plan, Tree
from sandbox.spec import HOME, WORKSPACE, SandboxSpec, listeners_of

LACKS = (
    "without Landlock's scopes (Linux 6.12) it can send signals to this user's other processes",
    "it can see which files there are anywhere, their sizes and times, and change the modes and times of this user's own",
    "it has no network at all, not even loopback: no models, no servers under test; no Unix sockets but pairs",
    "its private directories lie on disk, at $TMPDIR and $HOME, without tmp_bytes; /tmp and /dev/shm are closed to it",
    "it has no terminals to open, no shared memory, no /proc of what it starts; it sees the names of the host and its accounts",
    "what is not granted is there and closed, which some programs take worse than if it were not there",
    "no path can be shown to it at another place",
    "what would be protected in a writable directory, such as git's hooks, it can change",
)
"""For people: what a sandbox with namespaces would hold, or have."""
MINIMUM_LANDLOCK = landlock.MINIMUM
ACCOUNTS = ("/etc/group", "/etc/nsswitch.conf", "/etc/passwd")
PROC = ("cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "sys/kernel", "sys/vm", "uptime", "version")
"""What programs read of the machine. What they would read of themselves cannot be told from what others are."""
STAND_INS = {"/tmp": "tmp", "/dev/shm": "shm", VAR_TMP: "var", HOME: "home", WORKSPACE: "workspace"}
KILL_TIMEOUT_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36


def why_no_namespaces() -> SandboxError | None:
    """None: this user, not root, can make the namespaces of a sandbox. Tried in a child: a failure half way would spoil us."""
    try:
        elsewhere(_make_namespaces)
    except SandboxError as error:
        return SandboxError(
            f"this host does not let user {os.geteuid()} use user namespaces ({error.message.removesuffix('.')}).",
            step="user namespace",
            errno=error.errno or errno.EPERM,
            hint="See: agentctl doctor, or python -m sandbox doctor",
        )
    return None


def _make_namespaces() -> None:
    idmap.own_namespace()
    # Where AppArmor takes the rights away in it, the user namespace itself is made.
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET)


def check(spec: SandboxSpec, plan: Plan, why: SandboxError) -> None:
    """Raise SandboxError for what this tier may not, or cannot, run. `why` there are no namespaces."""
    if "namespaces" not in spec.optional_layers:
        hint = (
            'Or put "namespaces" into optional_layers (python -m sandbox run: --optional namespaces) to run with Landlock alone.'
        )
        raise SandboxError(why.message, step=why.step, errno=why.errno, hint=f"{why.hint}. {hint}")
    if landlock.version() < MINIMUM_LANDLOCK:
        raise SandboxError(
            f"neither user namespaces nor Landlock: {why.message}",
            step="landlock",
            errno=errno.ENOTSUP,
            hint=landlock.WITHOUT_HINT,
        )
    if listeners_of(spec):
        field = "dns" if spec.dns else "loopback_any" if spec.loopback_any else "loopback_listen"
        raise _impossible(field, "a port would be the host's, open to every program of it")
    if any(path not in STAND_INS or path in plan.covered for path in spec.tmpfs):
        raise _impossible("tmpfs", f"no directory but {', '.join(STAND_INS)} can be private")
    if spec.supervise != "off":
        raise _impossible("supervise", "what is tried in vain cannot be told")
    if spec.masked:
        raise _impossible("masked", "no path of the host can be hidden")
    if view := next((tree for tree in plan.trees if tree.layers), None):
        raise _impossible("binds", f"no copy-on-write view of {view.source} can be had")
    if moved := next((tree for tree in plan.trees if tree.source != tree.place), None):
        raise _impossible("binds", f"{moved.source} cannot be seen at {moved.place}")


def _impossible(field: str, what: str) -> SandboxError:
    hint = "Run as the system service, or load the AppArmor profile: agentctl doctor tells how."
    return SandboxError(f"{field}: {what} without namespaces.", step="namespaces", errno=errno.ENOTSUP, hint=hint)


def remove_private(path: str) -> int:
    """Remove a directory, in a child whose number is given: there may be much in it. To be waited for by the caller."""
    child = os.fork()
    if child == 0:
        try:
            remove(path)
        finally:
            os._exit(0)
    return child


def remove(path: str) -> None:
    shutil.rmtree(path, onerror=_open_and_retry)


def _open_and_retry(function: Callable[..., object], path: str, _: object) -> None:
    """A directory that its owner has closed to himself."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.chmod(path, 0o700)
            shutil.rmtree(path)
        else:
            os.chmod(os.path.dirname(path), 0o700)
            os.unlink(path)


def translated(spec: SandboxSpec, plan: Plan, private: str) -> SandboxSpec:
    """The specification with the private directories where they are: as words of the command, in `env`, and as `cwd`."""
    granted = tuple(tree.place for tree in plan.trees)
    places = {place: f"{private}/{STAND_INS[place]}" for place in plan.private}

    def real(path: str) -> str:
        place = next((place for place in places if path == place or path.startswith(f"{place}/")), "")
        return places[place] + path.removeprefix(place) if place and not _within(path, granted) else path

    # git gives up on settings of the system that are there and closed to it.
    env = {"HOME": HOME, "TMPDIR": "/tmp", "WORKSPACE": WORKSPACE, "GIT_CONFIG_NOSYSTEM": "1", **spec.env}
    return msgspec.structs.replace(
        spec,
        argv=tuple(places.get(word, word) for word in spec.argv),
        env={name: real(value) for name, value in env.items()},
        cwd=real(spec.cwd),
    )


def _within(path: str, parents: Iterable[str]) -> bool:
    return any(path == parent or path.startswith(f"{parent}/") for parent in parents)


def grants(plan: Plan, private: str) -> dict[str, int]:
    """The rights at each path of the host, for this very process. Raises SandboxError for a tree that has changed hands."""
    rights: dict[str, int] = {}
    for tree in plan.trees:
        given = landlock.DEVICE if tree.device else landlock.CHANGE if tree.writable else landlock.READ
        rights[tree.place] = rights.get(tree.place, 0) | given
    for tree in plan.trees:
        _check_owner(tree)
    files = (*ACCOUNTS, *(f"/proc/{name}" for name in PROC))
    rights |= {path: landlock.READ for path in files if os.path.exists(path)}
    # Of its processes it sees the first alone: there is nothing yet that a rule could be on for the others.
    return {**rights, os.path.realpath("/proc/self"): landlock.READ, private: landlock.CHANGE}


def _check_owner(tree: Tree) -> None:
    found = os.stat(tree.source)
    if tree.owner is not None and (found.st_uid, found.st_gid) != tree.owner:
        raise SandboxError(
            f"{tree.source} does not belong to {tree.owner[0]}:{tree.owner[1]} any more.", step="bind", errno=errno.EPERM
        )


class Tier:
    """What the fork server knows of it. `why` there are no namespaces."""

    def __init__(self, why: SandboxError) -> None:
        """Raises SandboxError where the filter cannot be made."""
        self.why = why
        self.filter = elsewhere(partial(seccomp.compile_tier_filter, landlock.version()))
        self._directory = ""
        self._private: dict[int, str] = {}
        """By the number of a sandbox's first process."""
        self._removing: set[int] = set()

    def open(self) -> None:
        """Make a directory for the private ones of all sandboxes; the keeper `close`s it."""
        self._directory = tempfile.mkdtemp(prefix="agent-sandbox-", dir="/tmp")
        adopt_orphans()

    def close(self) -> None:
        """The fork server has ended: end what it has left, and remove the private directories."""
        end_strays(())
        remove(self._directory)

    def make_private(self) -> str:
        """A directory with those that stand in for the private ones of a plan."""
        made = tempfile.mkdtemp(dir=self._directory)
        for name in STAND_INS.values():
            os.mkdir(f"{made}/{name}", 0o700)
        return made

    def began(self, pid: int, private: str) -> None:
        self._private[pid] = private

    def ended(self, pid: int, running: Iterable[int]) -> None:
        """Its first process is buried: what it has left behind is ended, then its directories are removed."""
        self._removing = {child for child in self._removing if not _reaped(child)}
        end_strays({*running, *self._removing})
        if private := self._private.pop(pid, ""):
            self._removing.add(remove_private(private))


def _reaped(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True


def adopt_orphans() -> None:
    """What a child of this process leaves behind becomes its own child (PR_SET_CHILD_SUBREAPER in prctl(2))."""
    linux.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_strays(known: Container[int]) -> None:
    """Kill and bury the children that are not known, and what becomes a child by that, until there are none."""
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while time.monotonic() < deadline:
        strays = [pid for pid in _children() if pid not in known]
        if not strays:
            return
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in strays:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]
