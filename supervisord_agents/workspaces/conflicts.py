"""What a workspace has now, against what a task began with: the steps that apply its changes, or what stands against them."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

import msgspec

from supervisord_agents.workspaces import paths
from supervisord_agents.workspaces.changes import Change, Store, What
from supervisord_agents.workspaces.stamps import Stamp, digest_and_close, stamp, untouched

_WAYS = {errno.ELOOP: "a symbolic link is in the way", errno.EXDEV: "it lies on another file system"}


class Conflict(msgspec.Struct, frozen=True, array_like=True):
    """Why a path cannot be changed."""

    path: bytes
    why: str


class Step(NamedTuple):
    """Something to be done at a path: to take away what is there, or to put what the change says."""

    path: bytes
    change: Change
    found: Stamp | None
    drop: bool = False


class Found(NamedTuple):
    """What a path has; `obstacle` says why that cannot be told."""

    stamp: Stamp | None
    obstacle: str = ""
    no_parent: bool = False

    @classmethod
    def at(cls, workspace: int, path: bytes) -> Found:
        try:
            parent, name = paths.directory_of(workspace, path)
        except (FileNotFoundError, NotADirectoryError):
            return cls(None, no_parent=True)
        except OSError as error:
            return cls(None, _WAYS.get(error.errno or 0, os.strerror(error.errno or 0)))
        try:
            return cls(stamp(os.stat(name, dir_fd=parent, follow_symlinks=False), name, parent))
        except FileNotFoundError:
            return cls(None)
        except NotADirectoryError:
            return cls(None, no_parent=True)
        except OSError as error:
            return cls(None, os.strerror(error.errno or 0))
        finally:
            os.close(parent)


class Workspace:
    """A workspace as it is now; the contents of changes lie in `store`."""

    def __init__(self, directory: int, store: Store) -> None:
        self._directory = directory
        self._store = store

    def steps(self, changes: list[Change]) -> tuple[list[Step], list[Conflict]]:
        """What is to be done, in an order in which it can be done, and what stands against it.

        What the workspace has already is not done again.
        """
        asked = [step for change in changes for step in _steps(change)]
        dropped = {step.path for step in asked if step.drop}
        put = {step.path for step in asked if not step.drop}
        steps, conflicts = [], []
        for step in asked:
            found = Found.at(self._directory, step.path)
            why, needed = self._judged(step, found, dropped, put)
            if why:
                conflicts.append(Conflict(step.path, why))
            elif needed:
                steps.append(step._replace(found=found.stamp if step.drop or step.path not in dropped else None))
        return _in_order(steps), conflicts

    def _judged(self, step: Step, found: Found, dropped: set[bytes], put: set[bytes]) -> tuple[str, bool]:
        """Why it cannot be done, or whether there is anything to do."""
        change = step.change
        if not step.drop and found.stamp is None and step.path.rpartition(b"/")[0] in put:
            return "", True  # in a new directory, which is judged itself
        if found.obstacle:
            return found.obstacle, False
        if step.drop:
            return self._judged_drop(step, found.stamp, dropped, put)
        if found.no_parent:
            return "its directory is gone", False
        if step.path in dropped or (change.what is What.MODE and change.before is None):
            return "", True
        if self._is_there(step, found.stamp):
            return "", False
        if change.what in (What.ADDED, What.RENAMED):
            return ("", True) if found.stamp is None else ("there is something of this name now", False)
        return self._judged_before(step, found.stamp), True

    def _judged_drop(self, step: Step, found: Stamp | None, dropped: set[bytes], put: set[bytes]) -> tuple[str, bool]:
        if found is None:
            return ("it was deleted meanwhile" if step.path in put else ""), False
        why = self._judged_before(step, found)
        if not why and found.kind == "directory":
            why = self._more_than(step.path, dropped)
        return why, True

    def _judged_before(self, step: Step, found: Stamp | None) -> str:
        before = step.change.before
        assert before is not None
        if before.hidden:
            return "the task could not see what is there"
        if found is None:
            return "it was deleted meanwhile"
        return "" if self._same(step.path, before, found) else "it was changed meanwhile"

    def _same(self, path: bytes, before: Stamp, found: Stamp) -> bool:
        if untouched(before, found):
            return True
        if (before.kind, before.mode, before.target, before.size) != (found.kind, found.mode, found.target, found.size):
            return False
        if before.kind != "file":
            return True
        return bool(before.digest) and before.digest == self._digest(path)

    def _is_there(self, step: Step, found: Stamp | None) -> bool:
        """Whether the workspace has what the change would put there."""
        change = step.change
        if found is None or found.kind != change.kind:
            return False
        if change.kind == "link":
            return found.target == change.target
        if change.kind == "directory":
            return change.what is What.ADDED or found.mode & 0o777 == change.mode
        if found.mode & 0o777 != change.mode or found.size != change.size:
            return False
        return change.what is What.MODE or self._digest(step.path) == digest_and_close(self._store.open(change.stored))

    def _digest(self, path: bytes) -> bytes:
        try:
            return digest_and_close(paths.opened(self._directory, path, paths.FILE))
        except OSError:
            return b""

    def _more_than(self, path: bytes, dropped: set[bytes]) -> str:
        """What a directory holds beside what is to go."""
        try:
            descriptor = paths.opened(self._directory, path, paths.DIRECTORY)
        except OSError as error:
            return os.strerror(error.errno or 0)
        try:
            inner = (path + b"/" + os.fsencode(name) for name in os.listdir(descriptor))
            more = next((found for found in inner if found not in dropped), None)
        finally:
            os.close(descriptor)
        return f"it holds {os.path.basename(os.fsdecode(more))!r}, which the task did not delete" if more else ""


def _steps(change: Change) -> list[Step]:
    if change.what is What.DELETED:
        return [Step(change.path, change, None, drop=True)]
    put = Step(change.path, change, None)
    if change.what is What.RENAMED:
        return [Step(change.origin, change, None, drop=True), put]
    if change.what is What.ADDED and change.kind == "directory" and change.mode & 0o700 != 0o700:
        return [put, Step(change.path, msgspec.structs.replace(change, what=What.MODE, before=None), None)]
    return [put]


def _in_order(steps: list[Step]) -> list[Step]:
    """Files go before their directories, and come after them; modes come last, for they may close a directory."""

    def rank(step: Step) -> tuple[int, object]:
        directory = (step.found is not None and step.found.kind == "directory") if step.drop else step.change.kind == "directory"
        if step.drop:
            return (1, -step.path.count(b"/")) if directory else (0, 0)
        if step.change.what is What.MODE:
            return (4, -step.path.count(b"/"))
        return (2, step.path.count(b"/")) if directory else (3, 0)

    return sorted(steps, key=rank)
