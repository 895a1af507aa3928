"""The process that touches a user's files: one request, with the rights of their owner, and an answer.

It is started by the daemon, which may be root, and gives up all that before it looks at anything. What it may reach it is handed
as open directories. The request comes on standard input, the answer goes to standard output (msgpack).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import sys

import msgspec

from sandbox import linux
from supervisord_agents.errors import DiskFull, ErrorCode, SupervisorError
from supervisord_agents.journal.files import NO_SPACE
from supervisord_agents.workspaces import stamps
from supervisord_agents.workspaces.applying import Applying
from supervisord_agents.workspaces.changes import Change, Compared, Store, read_copy, read_upper
from supervisord_agents.workspaces.conflicts import Conflict
from supervisord_agents.workspaces.diffs import diff, of_workspace
from supervisord_agents.workspaces.git import DIRECTORY, Repository
from supervisord_agents.workspaces.paths import LeftOut
from supervisord_agents.workspaces.views import Limits, copied, noted

MAX_LEFT_OUT = 1_000


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="do"):
    """Numbers are those of inherited descriptors. `uid` and `gid` are the owner's, and taken on only from root."""

    uid: int
    gid: int
    workspace: int


class Prepare(Request, frozen=True, tag="prepare"):
    """Make a view: `tree` is where a copy goes, -1 for an overlay, and `base` takes the note of what it begins with."""

    tree: int
    base: int
    limits: Limits
    branch: str = ""
    """Of a checkout of the last commit, instead of a copy of the directory."""


class Collect(Request, frozen=True, tag="collect"):
    """Find out what was changed in `tree`, or in the upper layer of an overlay, and put it aside in `files`."""

    tree: int
    upper: bool
    base: int
    files: int
    diff_bytes: int
    commit: str = ""
    """That the tree is a checkout of."""


class Apply(Request, frozen=True, tag="apply"):
    """Apply the changes, or only look what stands against them. `staging` is the name of a directory to be made meanwhile."""

    files: int
    intent: int
    staging: str
    changes: list[Change]
    only_look: bool = False


class Commit(Request, frozen=True, tag="commit"):
    """Make a branch of the changes, with one commit upon `base` (git.Repository.commit)."""

    files: int
    branch: str
    base: str
    message: str
    at: float
    changes: list[Change]


class Resume(Request, frozen=True, tag="resume"):
    """Go on with what a crash has interrupted."""

    intent: int
    staging: str


class Prepared(msgspec.Struct, frozen=True, tag="prepared"):
    files: int
    left_out: LeftOut
    commit: str = ""


class Collected(msgspec.Struct, frozen=True, tag="collected"):
    changes: list[Change]
    left_out: LeftOut
    diff: str
    diff_cut: bool


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    applied: bool
    conflicts: list[Conflict]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    code: ErrorCode
    message: str
    field: str = ""
    hint: str = ""


Reply = Prepared | Collected | Applied | Refused
_decoder = msgspec.msgpack.Decoder(Prepare | Collect | Apply | Commit | Resume)


def main() -> int:
    request = _decoder.decode(sys.stdin.buffer.read())
    try:
        become(request.uid, request.gid)
        reply = answer(request)
    except SupervisorError as error:
        reply = Refused(error.code, error.message, error.field, error.hint)
    except OSError as error:
        reply = _refusal(error)
    sys.stdout.buffer.write(msgspec.msgpack.encode(reply))
    sys.stdout.buffer.flush()
    return 0


def become(uid: int, gid: int) -> None:
    """Take on the rights of an owner, for good, and end with the daemon. Raises OSError."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o077)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def answer(request: Prepare | Collect | Apply | Commit | Resume) -> Reply:
    """Do what is asked. Raises SupervisorError or OSError."""
    if isinstance(request, Prepare):
        return _prepare(request)
    if isinstance(request, Collect):
        return _collect(request)
    if isinstance(request, Commit):
        store = Store(request.files)
        Repository(request.workspace).commit(request.branch, request.base, request.message, request.at, request.changes, store)
        return Applied(True, [])
    # One at a time: the hand of a daemon that was killed may not have ended yet.
    fcntl.flock(request.intent, fcntl.LOCK_EX)
    applying = Applying(request.workspace, request.intent)
    if isinstance(request, Resume):
        return Applied(*applying.resume(request.staging))
    conflicts = applying.begin(request.staging, request.changes, Store(request.files), only_look=request.only_look)
    return Applied(not conflicts and not request.only_look, conflicts)


def _prepare(request: Prepare) -> Prepared:
    left_out: LeftOut = []
    commit = ""
    if request.branch:
        repository = Repository(request.workspace)
        commit = repository.head()
        base = repository.checked_out(commit, request.branch, request.tree, request.limits, left_out)
    elif request.tree < 0:
        base = noted(request.workspace, request.limits, left_out)
    else:
        base = copied(request.workspace, request.tree, request.limits, left_out)
    with os.fdopen(request.base, "wb") as file:
        file.write(stamps.encode(base))
    return Prepared(len(base), left_out[:MAX_LEFT_OUT], commit)


def _collect(request: Collect) -> Collected:
    left_out: LeftOut = []
    with os.fdopen(request.base, "rb") as file:
        base = stamps.decode(file.read())
    store = Store(request.files)
    if request.upper:
        seen = read_upper(request.tree, base, store, left_out)
    else:
        seen = read_copy(request.tree, base, store, left_out, DIRECTORY if request.commit else b"")
    changes = Compared(request.workspace, base, store).changes(seen)
    old = of_workspace(request.workspace)
    if request.commit:
        repository = Repository(request.workspace)
        changes = repository.committable(changes, left_out)
        old = repository.before
    changes, found = diff(changes, old, store, request.diff_bytes)
    return Collected(changes, left_out[:MAX_LEFT_OUT], found.text, found.cut)


def _refusal(error: OSError) -> Refused:
    what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}."
    if error.errno in NO_SPACE:
        return Refused(DiskFull.code, f"no space for it: {what}", hint="Free some space and try again.")
    return Refused(ErrorCode.INTERNAL, what)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
