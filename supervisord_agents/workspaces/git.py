"""The mode git-worktree: a checkout of the last commit with a repository of its own, and a branch for what became of it.

`git worktree` itself shares the repository, and who can write to it can have hooks and settings of it run outside. So the view
has a repository of its own: a copy of the objects, settings of ours, one branch. Nothing is ever run in that one outside of the
sandbox. What was changed is found out by comparing files, as for a copy, and becomes one commit on the branch `agent/TASK` of the
user's repository; commits of the task's own stay in its view.

In the user's repository only plumbing is run, as its owner, without hooks, without settings of the machine or the user, and with
everything turned off that could start another program.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

import msgspec

from supervisord_agents.errors import InvalidInput, SandboxRefused, SupervisorError
from supervisord_agents.workspaces import paths
from supervisord_agents.workspaces.changes import Change, Store, What
from supervisord_agents.workspaces.diffs import FILE_BYTES, quoted
from supervisord_agents.workspaces.paths import LeftOut
from supervisord_agents.workspaces.stamps import CHUNK_BYTES, DIGEST_BYTES, Base, Stamp
from supervisord_agents.workspaces.views import Limits, copied

DIRECTORY = b".git"
_OFF = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",
    "core.fsync=all",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
)
ARGV = (
    "git",
    "--no-pager",
    "--git-dir=.git",
    "--work-tree=.",
    *(word for setting in _OFF for word in ("-c", setting)),
)
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ALLOW_PROTOCOL": "none",
}
IDENTITY = "agent-supervisor <agent-supervisor@localhost>"
_CONFIG = "[core]\n\trepositoryformatversion = {version}\n\tbare = false\n\tfilemode = true\n{more}"
_SHA1_HEX = 40


class Repository:
    """The user's, at an open workspace. The process must have the rights of its owner; it moves there."""

    def __init__(self, workspace: int) -> None:
        """Raises SandboxRefused for a workspace that has no repository of its own."""
        self._workspace = workspace
        os.fchdir(workspace)
        try:
            self._directory = os.open(DIRECTORY, paths.DIRECTORY)
            os.stat("commondir", dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError as error:
            if error.filename == "commondir":
                return
            raise _no_repository() from error
        except OSError as error:
            raise _no_repository() from error
        raise _no_repository()

    def head(self) -> str:
        """The last commit. Raises SandboxRefused if there is none."""
        done = _run("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if done.stderr:
            raise _broken(done)
        if done.returncode != 0:
            raise SandboxRefused(
                "the workspace has no commit to begin with.", field="workspace", hint="Commit something, or use another mode."
            )
        return done.stdout.decode().strip()

    # The view

    def checked_out(self, commit: str, branch: str, tree: int, limits: Limits, left_out: LeftOut) -> Base:
        """Make the view of a commit in an empty directory; gives what it has. Raises SupervisorError or OSError."""
        base = _Checkout(tree, limits).of(commit)
        os.mkdir(DIRECTORY, 0o755, dir_fd=tree)
        own = os.open(DIRECTORY, paths.DIRECTORY, dir_fd=tree)
        try:
            self._make_own(own, commit, branch, limits, left_out)
        finally:
            os.close(own)
        return base

    def _make_own(self, own: int, commit: str, branch: str, limits: Limits, left_out: LeftOut) -> None:
        for name in ("objects", "refs"):
            os.mkdir(name, 0o755, dir_fd=own)
        objects, target = (
            os.open("objects", paths.DIRECTORY, dir_fd=self._directory),
            os.open("objects", paths.DIRECTORY, dir_fd=own),
        )
        try:
            if b"info/alternates" in copied(objects, target, limits, left_out):
                raise SandboxRefused(
                    "the repository of the workspace has its objects elsewhere (objects/info/alternates).",
                    field="workspace",
                    hint="Make them its own, with `git repack -a -d` and without that file, or use the mode overlay.",
                )
        finally:
            os.close(objects)
            os.close(target)
        sha256 = len(commit) > _SHA1_HEX
        more = "[extensions]\n\tobjectformat = sha256\n" if sha256 else ""
        _write(own, "config", _CONFIG.format(version=int(sha256), more=more).encode())
        _write(own, "HEAD", f"ref: refs/heads/{branch}\n".encode())
        _write(own, "packed-refs", f"{commit} refs/heads/{branch}\n".encode())
        _write(own, "index", _index_of(commit))
        if (shallow := _read(self._directory, "shallow")) is not None:
            _write(own, "shallow", shallow)

    def before(self, change: Change) -> bytes | None:
        """What a file was in the commit, for a diff; None: it is too large."""
        before = change.before
        if before is None or before.kind != "file" or before.size > FILE_BYTES:
            return None
        done = _run("cat-file", "blob", before.blob)
        return done.stdout if done.returncode == 0 else None

    def ignored(self, candidates: Iterable[bytes]) -> set[bytes]:
        """Those of the paths that the workspace's own rules leave out of commits."""
        done = _run("check-ignore", "-z", "--stdin", "--no-index", given=b"".join(b"./" + path + b"\0" for path in candidates))
        if done.returncode > 1:
            raise _broken(done)
        return {path[2:] for path in done.stdout.split(b"\0") if path}

    def committable(self, changes: list[Change], left_out: LeftOut) -> list[Change]:
        """Those that a commit can hold: no directories, and nothing new that the workspace's own rules leave out."""
        ignored = self.ignored(change.path for change in changes if change.what is What.ADDED and change.kind != "directory")
        left_out += [(path, "it is ignored by git") for path in sorted(ignored)]
        changes = [_as_committed(change) for change in changes if change.kind != "directory" and change.path not in ignored]
        return [change for change in changes if change.what is not What.MODE or change.mode != _before_mode(change)]

    # The branch

    def commit(self, branch: str, base: str, message: str, at: float, changes: list[Change], store: Store) -> None:
        """Make a branch with one commit upon `base` that has the changes. Done already, it is not done again.

        Raises InvalidInput if there is another branch of that name, SupervisorError if git fails.
        """
        found = _run("log", "-1", "--format=%P%n%B", f"refs/heads/{branch}", "--")
        if found.returncode == 0:
            if found.stdout.decode(errors="replace").strip() == f"{base}\n{message}":
                return
            raise InvalidInput(
                f"there is a branch {branch} already.", field="task", hint="Rename or delete it, then apply again."
            )
        with subprocess.Popen(
            [*ARGV, "fast-import", "--quiet", "--done"],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as importer:
            assert importer.stdin is not None
            assert importer.stderr is not None
            with contextlib.suppress(BrokenPipeError):
                _tell(importer.stdin, branch, base, message, at, changes, store)
                importer.stdin.close()
            complaint = importer.stderr.read().decode(errors="replace").strip()
        if importer.returncode != 0:
            raise SupervisorError(
                f"git could not make the branch {branch}: {complaint[:1000]}.", kept="Nothing was applied; the changes are kept."
            )


def _as_committed(change: Change) -> Change:
    """Git knows whether a file may be run, and no more of its mode."""
    if change.kind != "file" or change.what is What.DELETED:
        return change
    return msgspec.structs.replace(change, mode=0o755 if change.mode & 0o100 else 0o644)


def _before_mode(change: Change) -> int:
    return change.before.mode if change.before is not None else 0


def branch_of(task: str) -> str:
    return f"agent/{task}"


def _tell(stream: IO[bytes], branch: str, base: str, message: str, at: float, changes: list[Change], store: Store) -> None:
    """A commit, as git-fast-import(1) reads it: what is taken away comes first."""
    text = message.encode()
    head = f"commit refs/heads/{branch}\ncommitter {IDENTITY} {int(at)} +0000\ndata {len(text)}\n"
    stream.write(head.encode() + text + f"\nfrom {base}\n".encode())
    for path in _taken_away(changes):
        stream.write(b"D " + _path(path) + b"\n")
    for change in changes:
        if change.what is What.DELETED or change.kind == "directory":
            continue
        if change.what is What.MODE:
            assert change.before is not None
            stream.write(f"M {_mode(change)} {change.before.blob} ".encode() + _path(change.path) + b"\n")
        else:
            stream.write(f"M {_mode(change)} inline ".encode() + _path(change.path) + b"\n")
            _tell_content(stream, change, store)
    stream.write(b"done\n")


def _taken_away(changes: list[Change]) -> Iterator[bytes]:
    for change in changes:
        if change.what is What.DELETED and change.kind != "directory":
            yield change.path
        elif change.what is What.RENAMED:
            yield change.origin


def _tell_content(stream: IO[bytes], change: Change, store: Store) -> None:
    if change.kind == "link":
        stream.write(f"data {len(change.target)}\n".encode() + change.target + b"\n")
        return
    with os.fdopen(store.open(change.stored), "rb") as file:
        stream.write(f"data {os.fstat(file.fileno()).st_size}\n".encode())
        while piece := file.read(CHUNK_BYTES):
            stream.write(piece)
        stream.write(b"\n")


def _path(path: bytes) -> bytes:
    shown = quoted(path)
    return shown.encode() if shown.startswith('"') or " " not in shown else f'"{shown}"'.encode()


def _mode(change: Change) -> str:
    return "120000" if change.kind == "link" else "100755" if change.mode & 0o100 else "100644"


class _Checkout:
    """Writes the files of a commit as they are in it: without filters, attributes or line ends of another system."""

    def __init__(self, tree: int, limits: Limits) -> None:
        self._tree = tree
        self._limits = limits
        self._bytes = 0
        self._base: Base = {}

    def of(self, commit: str) -> Base:
        listed = _run("ls-tree", "-r", "-t", "-z", "--full-tree", commit)
        if listed.returncode != 0:
            raise _broken(listed)
        with subprocess.Popen(
            [*ARGV, "cat-file", "--batch"], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as reader:
            for entry in filter(None, listed.stdout.split(b"\0")):
                facts, _, path = entry.partition(b"\t")
                mode, kind, blob = facts.decode().split()
                self._refuse_too_many(path)
                self._base[path] = self._made(path, mode, kind, blob, reader)
        return self._base

    def _refuse_too_many(self, path: bytes) -> None:
        if len(self._base) >= self._limits.files:
            raise InvalidInput(
                f"the last commit has more than {self._limits.files} files.",
                field="workspace",
                hint="Raise workspaces.limit_files.",
            )
        if any(part.lower() in (b"", b".", b"..", b".git") for part in path.split(b"/")):
            raise SandboxRefused(f"the last commit has a file of the name {quoted(path)}.", field="workspace")

    def _made(self, path: bytes, mode: str, kind: str, blob: str, reader: subprocess.Popen[bytes]) -> Stamp:
        parent, name = paths.directory_of(self._tree, path)
        try:
            if kind != "blob":  # a directory, or a submodule, which is left empty
                os.mkdir(name, 0o755, dir_fd=parent)
                return Stamp("directory", 0o755)
            content = self._content(blob, reader)
            if mode == "120000":
                os.symlink(content, name, dir_fd=parent)
                info = os.stat(name, dir_fd=parent, follow_symlinks=False)
                stamp = Stamp("link", target=content, blob=blob)
            else:
                permissions = 0o755 if mode == "100755" else 0o644
                info = _write(parent, name, content, permissions)
                stamp = Stamp("file", permissions, len(content), digest=_digest(content), blob=blob)
            return msgspec.structs.replace(stamp, view_inode=info.st_ino, view_ctime_ns=info.st_ctime_ns)
        finally:
            os.close(parent)

    def _content(self, blob: str, reader: subprocess.Popen[bytes]) -> bytes:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write(f"{blob}\n".encode())
        reader.stdin.flush()
        words = reader.stdout.readline().split()
        if len(words) != 3 or words[1] != b"blob":
            raise SandboxRefused(
                f"the repository of the workspace lacks the object {blob}.",
                field="workspace",
                hint="git fsck; a partial clone will not do.",
            )
        size = int(words[2])
        self._bytes += size
        if self._bytes > self._limits.bytes:
            raise InvalidInput(
                f"the last commit has more than {self._limits.bytes} bytes.",
                field="workspace",
                hint="Raise workspaces.copy_limit_bytes.",
            )
        content = reader.stdout.read(size)
        reader.stdout.read(1)
        return content


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _write(directory: int, name: str, content: bytes, mode: int = 0o644) -> os.stat_result:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        os.fchmod(descriptor, mode)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _read(directory: int, name: str) -> bytes | None:
    try:
        descriptor = os.open(name, paths.FILE, dir_fd=directory)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _index_of(commit: str) -> bytes:
    """The index of a checkout, for `git status` in the view."""
    with tempfile.TemporaryDirectory(prefix="agent-supervisor-") as directory:
        index = os.path.join(directory, "index")
        done = _run("read-tree", commit, GIT_INDEX_FILE=index)
        if done.returncode != 0:
            raise _broken(done)
        with open(index, "rb") as file:
            return file.read()


def _run(*words: str, given: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run([*ARGV, *words], env={**ENVIRONMENT, **variables}, input=given, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise SandboxRefused(
            "git is not on this host.", field="workspace_mode", hint="Install it, or use the mode overlay."
        ) from error


def _broken(done: subprocess.CompletedProcess[bytes]) -> SupervisorError:
    return SandboxRefused(
        f"git cannot read the last commit: {done.stderr.decode(errors='replace').strip()[:1000]}", field="workspace"
    )


def _no_repository() -> SandboxRefused:
    return SandboxRefused(
        "the workspace is not the top directory of a git repository of its own.",
        field="workspace",
        hint="Give the one that holds `.git`, as a directory (not of a linked worktree or submodule), or use the mode overlay.",
    )
