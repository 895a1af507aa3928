"""Carrying changes over into a workspace: all of them, or none, also when the process is killed on the way.

Everything new is staged in a directory of the workspace itself and put on disk. Then the plan is written to a file of the
daemon's (`intent`): that is the moment of decision. From then on each step is a rename, of which can be seen whether it was done,
and so whoever comes after a crash goes on with the plan to its end. What is found changed at the last moment makes it go back
instead; what was there before lies in the staging directory until the end.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Callable
from enum import StrEnum

import msgspec

from supervisord_agents.workspaces import paths
from supervisord_agents.workspaces.changes import Change, Store, What
from supervisord_agents.workspaces.conflicts import Conflict, Found, Step, Workspace
from supervisord_agents.workspaces.stamps import CHUNK_BYTES, Stamp

_HEAD = struct.Struct("<4sII")
_MAGIC = b"PLAN"
_DONE, _BACK = b"D", b"B"


class Act(StrEnum):
    PUT = "put"
    EXCHANGE = "exchange"
    DROP = "drop"
    MODE = "mode"


class Op(msgspec.Struct, frozen=True, array_like=True):
    """One step of a plan. `inode` is that of what is staged under its number, `found` what the workspace has."""

    act: Act
    path: bytes
    number: int
    inode: int = 0
    mode: int = 0
    found: Stamp | None = None


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """`staging` is the name of the directory in the workspace."""

    staging: str
    ops: list[Op]


class Changed(Exception):
    """The workspace was found changed in the midst of it."""

    def __init__(self, path: bytes, why: str) -> None:
        super().__init__(path, why)
        self.conflict = Conflict(path, why)


class Intent:
    """The file that decides: nothing, or a plan, or a plan and what has become of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, plan: Plan) -> None:
        payload = msgspec.msgpack.encode(plan)
        self._put(_HEAD.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload, 0)

    def read(self) -> tuple[Plan, bytes] | None:
        """The plan and its mark; None: nothing was decided."""
        data = b"".join(iter(lambda: os.read(self._descriptor, CHUNK_BYTES), b""))
        if len(data) < _HEAD.size:
            return None
        magic, length, checksum = _HEAD.unpack_from(data)
        payload = data[_HEAD.size : _HEAD.size + length]
        if magic != _MAGIC or len(payload) != length or zlib.crc32(payload) != checksum:
            return None
        return msgspec.msgpack.decode(payload, type=Plan), data[_HEAD.size + length :][-1:]

    def forget(self) -> None:
        os.ftruncate(self._descriptor, 0)

    def mark(self, mark: bytes) -> None:
        self._put(mark, os.fstat(self._descriptor).st_size)

    def _put(self, data: bytes, offset: int) -> None:
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written
        os.fsync(self._descriptor)


def nothing() -> None:
    """Between two effects; tests end the process there."""


class Applying:
    """One application. `between` is called before each effect."""

    def __init__(self, workspace: int, intent: int, between: Callable[[], None] = nothing) -> None:
        self._workspace = workspace
        self._intent = Intent(intent)
        self._between = between
        self._staging = -1

    def begin(self, name: str, changes: list[Change], store: Store, *, only_look: bool = False) -> list[Conflict]:
        """Apply the changes; gives the conflicts, and with one nothing was done. Raises OSError, with nothing done."""
        steps, conflicts = Workspace(self._workspace, store).steps(changes)
        if conflicts or only_look:
            return conflicts
        try:
            plan = Plan(name, self._staged(name, steps, store))
            self._sync()
            self._between()
            self._intent.write(plan)
        except BaseException:
            with contextlib.suppress(OSError):
                self._intent.forget()
            self._sweep(name)
            raise
        return self._go_on(plan)

    def resume(self, name: str) -> tuple[bool, list[Conflict]]:
        """After a crash: whether the changes are in the workspace now, else what stood against it."""
        found = self._intent.read()
        if found is None:
            self._sweep(name)
            return False, []
        plan, mark = found
        with contextlib.suppress(FileNotFoundError):
            self._staging = os.open(plan.staging, paths.DIRECTORY, dir_fd=self._workspace)
        if mark == _DONE:
            self._sweep(plan.staging)
            return True, []
        if self._staging < 0:
            gone = "is gone: of the changes, nobody knows how many are there"
            return False, [] if mark == _BACK else [Conflict(os.fsencode(plan.staging), gone)]
        if mark == _BACK:
            return False, self._go_back(plan)
        conflicts = self._go_on(plan)
        return not conflicts, conflicts

    # Staging

    def _staged(self, name: str, steps: list[Step], store: Store) -> list[Op]:
        self._sweep(name)
        self._between()
        os.mkdir(name, 0o700, dir_fd=self._workspace)
        self._staging = os.open(name, paths.DIRECTORY, dir_fd=self._workspace)
        return [self._op(number, step, store) for number, step in enumerate(steps)]

    def _op(self, number: int, step: Step, store: Store) -> Op:
        change, found = step.change, step.found
        if step.drop:
            return Op(Act.DROP, step.path, number, found=found)
        if change.what is What.MODE:
            return Op(Act.MODE, step.path, number, mode=change.mode, found=found)
        self._between()
        inode = self._stage(f"new-{number}", change, found, store)
        return Op(Act.EXCHANGE if found is not None else Act.PUT, step.path, number, inode=inode, mode=change.mode, found=found)

    def _stage(self, name: str, change: Change, found: Stamp | None, store: Store) -> int:
        if change.kind == "link":
            os.symlink(change.target, name, dir_fd=self._staging)
        elif change.kind == "directory":
            os.mkdir(name, 0o700, dir_fd=self._staging)
            os.chmod(name, change.mode | 0o700, dir_fd=self._staging)
        else:
            self._stage_file(name, change, store)
        return os.stat(name, dir_fd=self._staging, follow_symlinks=False).st_ino

    def _stage_file(self, name: str, change: Change, store: Store) -> None:
        source = store.open(change.stored)
        try:
            target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._staging)
            try:
                while piece := os.read(source, CHUNK_BYTES):
                    while piece:
                        piece = piece[os.write(target, piece) :]
                os.fchmod(target, change.mode)
            finally:
                os.close(target)
        finally:
            os.close(source)

    # Forth

    def _go_on(self, plan: Plan) -> list[Conflict]:
        try:
            for op in plan.ops:
                if not self._done(op):
                    self._between()
                    self._do(op)
            self._sync()
        except (Changed, OSError) as error:
            conflict = (
                error.conflict if isinstance(error, Changed) else Conflict(os.fsencode(error.filename or ""), str(error.strerror))
            )
            self._between()
            self._intent.mark(_BACK)
            return [conflict, *self._go_back(plan)]
        self._between()
        self._intent.mark(_DONE)
        self._between()
        self._sweep(plan.staging)
        return []

    def _done(self, op: Op) -> bool:
        if op.act is Act.DROP:
            return self._staged_inode(f"old-{op.number}") != 0
        if op.act is Act.MODE:
            found = self._look(op.path)
            return found is not None and found.mode == op.mode
        staged = self._staged_inode(f"new-{op.number}")
        return staged != op.inode

    def _do(self, op: Op) -> None:
        try:
            parent, name = paths.directory_of(self._workspace, op.path)
        except OSError as error:
            raise Changed(op.path, f"its directory is not as it was: {error.strerror}") from error
        try:
            self._step(op, (parent, name))
        except FileExistsError as error:
            raise Changed(op.path, "it has come up meanwhile") from error
        except FileNotFoundError as error:
            raise Changed(op.path, "it is gone") from error
        finally:
            os.close(parent)

    def _step(self, op: Op, place: tuple[int, str]) -> None:
        new, old = (self._staging, f"new-{op.number}"), (self._staging, f"old-{op.number}")
        if op.act is Act.PUT:
            paths.move(new, place)
        elif op.act is Act.EXCHANGE:
            paths.exchange(new, place)
            self._verify(op, new)
        elif op.act is Act.DROP:
            paths.move(place, old)
            self._verify(op, old)
        else:
            _chmod(place, op.mode)

    def _verify(self, op: Op, taken: tuple[int, str]) -> None:
        """What came out must be what was looked at, else somebody was quicker."""
        info = os.stat(taken[1], dir_fd=taken[0], follow_symlinks=False)
        found = op.found
        assert found is not None
        if found.kind == "directory":
            descriptor = os.open(taken[1], paths.DIRECTORY, dir_fd=taken[0])
            try:
                same = not os.listdir(descriptor) and info.st_ino == found.inode
            finally:
                os.close(descriptor)
        else:
            same = (info.st_ino, info.st_mtime_ns, info.st_mode & 0o7777) == (found.inode, found.mtime_ns, found.mode)
        if not same:
            raise Changed(op.path, "it was changed at the last moment")

    # Back

    def _go_back(self, plan: Plan) -> list[Conflict]:
        left = [Conflict(op.path, why) for op in reversed(plan.ops) if (why := self._undone(plan, op))]
        self._sync()
        if not left:
            self._between()
            self._sweep(plan.staging)
        return left

    def _undone(self, plan: Plan, op: Op) -> str:
        """Undo a step if it was done; what cannot be undone is told, and lies in the staging directory."""
        if not self._done(op):
            return ""
        self._between()
        try:
            parent, name = paths.directory_of(self._workspace, op.path)
            try:
                return self._undo(op, (parent, name))
            finally:
                os.close(parent)
        except OSError as error:
            kept = f"{plan.staging}/{'old' if op.act is Act.DROP else 'new'}-{op.number}"
            return f"could not be put back ({error.strerror}): what it was lies in {kept}"

    def _undo(self, op: Op, place: tuple[int, str]) -> str:
        new, old = (self._staging, f"new-{op.number}"), (self._staging, f"old-{op.number}")
        if op.act is Act.DROP:
            paths.move(old, place)
        elif op.act is Act.MODE:
            if op.found is not None:  # else it belongs to a directory that is taken back itself
                _chmod(place, op.found.mode)
        elif os.stat(place[1], dir_fd=place[0], follow_symlinks=False).st_ino != op.inode:
            return "was replaced meanwhile, and is left as it is"
        elif op.act is Act.PUT:
            paths.move(place, new)
        else:
            paths.exchange(new, place)
        return ""

    # Places

    def _look(self, path: bytes) -> Stamp | None:
        return Found.at(self._workspace, path).stamp

    def _staged_inode(self, name: str) -> int:
        try:
            return os.stat(name, dir_fd=self._staging, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return 0

    def _sync(self) -> None:
        self._between()
        paths.sync(self._workspace)

    def _sweep(self, name: str) -> None:
        """Remove the staging directory with what it holds: files, links, empty directories."""
        with contextlib.suppress(FileNotFoundError):
            directory = os.open(name, paths.DIRECTORY, dir_fd=self._workspace)
            try:
                for inner in os.listdir(directory):
                    self._between()
                    _remove(directory, inner)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=self._workspace)


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except (IsADirectoryError, PermissionError):
        os.rmdir(name, dir_fd=directory)


def _chmod(place: tuple[int, str], mode: int) -> None:
    """Of the file or directory itself, never of what a link leads to."""
    descriptor = os.open(place[1], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place[0])
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)
