"""From a view that nobody works in any more to the list of what was changed in it."""

from __future__ import annotations

import bisect
import contextlib
import os
import stat
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from supervisord_agents.workspaces.paths import FILE, Found, LeftOut, opened, walk
from supervisord_agents.workspaces.stamps import CHUNK_BYTES, Base, Kind, Stamp, digest, digest_and_close, stamp, untouched

OPAQUE = "user.overlay.opaque"
RENAME_BYTES = 256 * 1024 * 1024
"""Read at most to find out what was renamed; beyond, a rename is a deletion and an addition."""


class What(StrEnum):
    """What was done to a path."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    RENAMED = "renamed"
    MODE = "mode"
    """Only its permissions."""


class Change(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One change. `kind`, `mode` (permissions) and `size` are those of what is there now, of a deletion of what was."""

    path: bytes
    what: What
    kind: Kind
    mode: int = 0
    size: int = 0
    target: bytes = b""
    """Of a link."""
    stored: int = -1
    """The number of the file that holds its content; -1: it has none."""
    origin: bytes = b""
    """Where it was before it was renamed."""
    before: Stamp | None = None
    """What the task began with at the path, or at its origin."""
    binary: bool = False


class Store:
    """Files put aside, by number, in a directory of ours."""

    def __init__(self, directory: int) -> None:
        self.directory = directory
        self._count = 0

    def take(self, found: Found) -> int:
        """Keep the file of a quiescent tree by a link, or a copy where that cannot be; gives its number. Raises OSError."""
        number = self._count
        if found.info.st_mode & 0o400 and self._linked(found, number):
            pass
        elif found.info.st_mode & 0o400:
            self._copy(found, number)
        else:
            # With its mode as it was, for the tree may have to be read again.
            os.chmod(found.name, 0o600, dir_fd=found.parent)
            try:
                self._copy(found, number)
            finally:
                os.chmod(found.name, stat.S_IMODE(found.info.st_mode), dir_fd=found.parent)
        self._count += 1
        return number

    def _linked(self, found: Found, number: int) -> bool:
        with contextlib.suppress(OSError):
            os.link(found.name, str(number), src_dir_fd=found.parent, dst_dir_fd=self.directory, follow_symlinks=False)
            return True
        return False

    def _copy(self, found: Found, number: int) -> None:
        source = os.open(found.name, FILE, dir_fd=found.parent)
        try:
            target = os.open(str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.directory)
            try:
                while piece := os.read(source, CHUNK_BYTES):
                    while piece:
                        piece = piece[os.write(target, piece) :]
            finally:
                os.close(target)
        finally:
            os.close(source)

    def open(self, number: int) -> int:
        return os.open(str(number), FILE, dir_fd=self.directory)

    def drop(self, number: int) -> None:
        os.unlink(str(number), dir_fd=self.directory)


class Tree:
    """The paths of a base, to be asked for what lies below one of them."""

    def __init__(self, base: Base) -> None:
        self._paths = sorted(base)

    def below(self, path: bytes) -> list[bytes]:
        prefix = path + b"/"
        start = bisect.bisect_left(self._paths, prefix)
        return self._paths[start : bisect.bisect_left(self._paths, path + b"0", start)]  # "0" comes next after "/"


class Now(msgspec.Struct):
    """What a path has in the view, if that may differ from the base."""

    stamp: Stamp
    stored: int = -1


class Seen(msgspec.Struct):
    """A view, read: what may differ, and what is gone."""

    now: dict[bytes, Now] = {}
    gone: set[bytes] = set()


def read_copy(tree: int, base: Base, store: Store, left_out: LeftOut, skip: bytes = b"") -> Seen:
    """Of a whole tree: what is not there is gone. `skip` is a directory that is not looked at."""
    seen = Seen(gone={path for path, before in base.items() if not before.hidden})
    for found in walk(tree, left_out, own=True):
        if skip and (found.path == skip or found.path.startswith(skip + b"/")):
            continue
        before = base.get(found.path)
        seen.gone.discard(found.path)
        if before is not None and _same_copy(before, found.info):
            continue
        _note(seen, found, store, left_out)
    known = Tree(base)
    for path, _ in left_out:
        # What cannot be looked into is not said to be empty.
        seen.gone.difference_update(known.below(path))
    return seen


def _same_copy(before: Stamp, info: os.stat_result) -> bool:
    return (before.view_inode, before.view_ctime_ns) == (info.st_ino, info.st_ctime_ns) and before.kind != "directory"


def read_upper(upper: int, base: Base, store: Store, left_out: LeftOut) -> Seen:
    """Of the upper layer of an overlay: what it hides is gone.

    Nobody but the kernel can have written it: whiteouts and attributes of overlayfs are refused to whoever works in the view. All
    the same they can only hide what the base has, and say nothing of any other place.
    """
    seen, tree = Seen(), Tree(base)
    for found in walk(upper, left_out, own=True):
        before = base.get(found.path)
        if _is_whiteout(found.info):
            if before is not None:
                seen.gone.update([found.path, *tree.below(found.path)])
            continue
        directory = stat.S_ISDIR(found.info.st_mode)
        if not directory or _is_opaque(found.descriptor):
            seen.gone.update(tree.below(found.path))
        seen.gone.discard(found.path)
        _note(seen, found, store, left_out)
    return seen


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _is_opaque(descriptor: int) -> bool:
    if descriptor < 0:
        return False
    try:
        return os.getxattr(descriptor, OPAQUE) == b"y"
    except OSError:
        return False


def _note(seen: Seen, found: Found, store: Store, left_out: LeftOut) -> None:
    now = stamp(found.info, found.name, found.parent)
    if now.kind == "special":
        left_out.append((found.path, "it is neither file, directory nor link"))
    elif now.kind != "file":
        seen.now[found.path] = Now(now)
    else:
        try:
            seen.now[found.path] = Now(now, store.take(found))
        except OSError as error:
            left_out.append((found.path, os.strerror(error.errno or 0)))


class Compared:
    """The changes of a view against the base; contents that the base has no digest of are read from the workspace."""

    def __init__(self, workspace: int, base: Base, store: Store) -> None:
        self._workspace = workspace
        self._base = base
        self._store = store
        self._rename_bytes = RENAME_BYTES

    def changes(self, seen: Seen) -> list[Change]:
        """In the order of paths."""
        changes = [change for path, now in seen.now.items() for change in self._changes_of(path, now)]
        changes += [self._deletion(path) for path in seen.gone]
        return sorted(self._with_renames(changes), key=lambda change: (change.path, change.what != What.DELETED))

    def _changes_of(self, path: bytes, now: Now) -> Iterable[Change]:
        before, after = self._base.get(path), now.stamp
        mode = after.mode & 0o777 if after.kind != "link" else 0
        change = Change(
            path=path, what=What.ADDED, kind=after.kind, mode=mode, size=after.size, target=after.target, stored=now.stored
        )
        if before is None:
            return [change]
        if "directory" in (before.kind, after.kind) and before.kind != after.kind:
            return [self._deletion(path), change]
        if self._same_content(path, before, now):
            if now.stored >= 0:
                self._store.drop(now.stored)
            if after.kind == "link" or before.mode & 0o777 == mode:
                return []
            return [msgspec.structs.replace(change, what=What.MODE, before=before, stored=-1)]
        return [msgspec.structs.replace(change, what=What.MODIFIED, before=before)]

    def _deletion(self, path: bytes) -> Change:
        before = self._base[path]
        return Change(
            path=path,
            what=What.DELETED,
            kind=before.kind,
            mode=before.mode & 0o777,
            size=before.size,
            target=before.target,
            before=before,
        )

    def _same_content(self, path: bytes, before: Stamp, now: Now) -> bool:
        after = now.stamp
        if before.kind != after.kind or before.hidden:
            return False
        if before.kind != "file":
            return before.target == after.target
        if before.size != after.size:
            return False
        known = before.digest or self._digest_in_workspace(path, before)
        return bool(known) and known == self._digest_of(now.stored)

    def _digest_of(self, number: int) -> bytes:
        descriptor = self._store.open(number)
        try:
            return digest(descriptor)
        finally:
            os.close(descriptor)

    def _digest_in_workspace(self, path: bytes, before: Stamp) -> bytes:
        descriptor = as_it_was(self._workspace, path, before)
        return digest_and_close(descriptor) if descriptor >= 0 else b""

    def _with_renames(self, changes: list[Change]) -> list[Change]:
        """Where a file is gone and the same content has come up elsewhere, that is a rename."""
        gone: dict[int, list[Change]] = {}
        for change in changes:
            if change.what is What.DELETED and change.kind == "file" and change.size:
                gone.setdefault(change.size, []).append(change)
        renamed: dict[bytes, Change] = {}
        paired: set[bytes] = set()
        for change in sorted(changes, key=lambda change: change.path):
            if change.what is What.ADDED and change.kind == "file" and change.size in gone:
                origin = self._origin(change, gone[change.size])
                if origin is not None:
                    gone[change.size].remove(origin)
                    paired.add(origin.path)
                    renamed[change.path] = msgspec.structs.replace(
                        change, what=What.RENAMED, origin=origin.path, before=origin.before
                    )
        kept = [change for change in changes if change.what is not What.DELETED or change.path not in paired]
        return [renamed.get(change.path, change) if change.what is What.ADDED else change for change in kept]

    def _origin(self, change: Change, candidates: list[Change]) -> Change | None:
        """The one of these deletions whose file has the same content, rather one of the same name."""
        if not self._affordable(change.size):
            return None
        own, name = self._digest_of(change.stored), os.path.basename(change.path)
        for candidate in sorted(candidates, key=lambda candidate: os.path.basename(candidate.path) != name):
            before = candidate.before
            if before is None or before.hidden:
                continue
            known = before.digest
            if not known and self._affordable(change.size):
                known = self._digest_in_workspace(candidate.path, before)
            if known == own:
                return candidate
        return None

    def _affordable(self, size: int) -> bool:
        self._rename_bytes -= size
        return self._rename_bytes >= 0


def as_it_was(workspace: int, path: bytes, before: Stamp) -> int:
    """A descriptor of a file of the workspace that nobody has touched since; -1 if it is not that any more."""
    try:
        descriptor = opened(workspace, path, FILE)
    except OSError:
        return -1
    if untouched(before, stamp(os.fstat(descriptor))):
        return descriptor
    os.close(descriptor)
    return -1
