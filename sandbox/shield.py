"""Within a writable directory of a sandbox: what is read-only all the same, and what is hidden.

Everything here is done in the root that is being built (the working directory), by descriptors that no link leads astray; what
another process exchanges meanwhile is seen, because the result is looked at again at the end.

A mount keeps a name from being removed, renamed and replaced in the sandbox (rename(2), EBUSY), but only the name that it is on:
so the directories on the way to it, which could be moved aside with it, become mounts too. Outside of the sandbox it is no
hindrance: whoever replaces a protected file there takes the mount off it (mount_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from sandbox import linux
from sandbox.errors import SandboxError
from sandbox.linux import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
from sandbox.mounts import NODEV, NOSUID, RDONLY, PrivateMounts
from sandbox.protected import GIT, PLACEHOLDER_MODE, Missing, is_home, kept_from_being_made, repositories

EMPTY_FILE, EMPTY_DIRECTORY = "run/.nothing", "run/.nowhere"
"""In the root, closed to everybody: they lie over what is hidden."""
_TRIES = 10
_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


class Shielded(NamedTuple):
    """A path inside, to be told to people, that with all below it is read-only or hidden."""

    path: str
    hidden: bool


class Shield:
    """Protects and hides paths of one root, as a worker with these ids would find them."""

    def __init__(self, mounts: PrivateMounts, worker: tuple[int, int] | None) -> None:
        """`worker` is whom to act as where something is made on the host; None: as we are."""
        self._mounts = mounts
        self._worker = worker
        self._worker_uid = worker[0] if worker else os.geteuid()
        self._pinned: set[str] = set()
        self._sealed: set[str] = set()
        self._hidden: set[str] = set()

    @property
    def done(self) -> tuple[Shielded, ...]:
        """What has been protected and hidden, outer ones first."""
        found = [(path, False) for path in self._sealed] + [(path, True) for path in self._hidden]
        readable = [Shielded(os.fsencode(f"/{path}").decode(errors="backslashreplace"), hidden) for path, hidden in found]
        return tuple(sorted(readable, key=lambda one: (len(one.path), one)))

    def protect(self, place: str, names: Sequence[str], *, missing: Missing) -> None:
        """Make these paths below a writable directory read-only, and keep of those that are `missing` these from being made.

        Raises SandboxError, naming the path, for one that cannot be protected.
        """
        root = linux.open_path(place, _INSIDE | RESOLVE_NO_SYMLINKS)
        try:
            kept = kept_from_being_made(names, missing, home=is_home(root))
            wanted = [(name, name in kept) for name in names]
            wanted += [(path, missing != "none") for path in _of_repositories(root, names)]
        finally:
            os.close(root)
        for path, make in wanted:
            self._protect_path(place, path, make=make)

    def _protect_path(self, place: str, path: str, *, make: bool) -> None:
        for _ in range(_TRIES):
            if self._protect(place, path, make=make):
                return
        raise _unprotected(f"{place}/{path}", "it changes all the time")

    def hide(self, path: str) -> None:
        """Cover a path, if it is there, with an empty file or directory that nobody may open; links to it lead there too."""
        for _ in range(_TRIES):
            try:
                hidden = linux.open_path(path, _INSIDE)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    return
                raise SandboxError(f"/{path}: {os.strerror(error.errno or 0)}.", step="mask", errno=error.errno or 0) from error
            cover = _empty(directory=stat.S_ISDIR(os.fstat(hidden).st_mode))
            try:
                if self._put(cover, hidden, RDONLY):
                    self._hidden.add(path)
                    return
            finally:
                os.close(cover)
                os.close(hidden)
        raise SandboxError(f"/{path}: it changes all the time.", step="mask")

    def overlay(self, path: str, backing: str) -> None:
        """Put a directory of the root over one that is there. Raises SandboxError, naming it, if there is none."""
        source = linux.open_path(backing, _INSIDE | RESOLVE_NO_SYMLINKS)
        try:
            covered = linux.open_path(path, _INSIDE | RESOLVE_NO_SYMLINKS)
            try:
                self._mounts.attach(tree := self._mounts.tree(source, attributes=NOSUID | NODEV), covered)
                os.close(tree)
            finally:
                os.close(covered)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise SandboxError(
                f"/{path}: {why}.", step="tmpfs", errno=error.errno or 0, hint="Below a bind it must be a directory already."
            ) from error
        finally:
            os.close(source)

    def _protect(self, place: str, path: str, *, make: bool) -> bool:
        """Whether it is done; otherwise something has changed meanwhile, and it is to be tried again."""
        parts = path.split("/")
        here = place
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            found = self._look(here, part, make=make and part != ".git")
            here = f"{here}/{part}"
            if found is None:
                return True  # what is not there, and may not be made, or cannot be
            if here in self._sealed:
                os.close(found)
                return True
            try:
                mode = os.fstat(found).st_mode
                if stat.S_ISLNK(mode):
                    self._sealed.add(here)
                    self._protect_what_it_leads_to(place, here)
                    return self._put(found, found, RDONLY)
                if last or not stat.S_ISDIR(mode):
                    self._sealed.add(here)
                    return self._put(found, found, RDONLY) and _is_sealed(here)
                if here not in self._pinned and not self._put(found, found, 0):
                    return False
                self._pinned.add(here)
            finally:
                os.close(found)
        return True

    def _look(self, directory: str, name: str, *, make: bool) -> int | None:
        """What a name in a directory is, itself, be it a link; with `make`, a placeholder if it is nothing."""
        path = f"{directory}/{name}"
        for attempt in (True, False):
            try:
                return linux.open_path(path, _INSIDE | RESOLVE_NO_SYMLINKS, flags=os.O_NOFOLLOW)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise _unprotected(path, os.strerror(error.errno or 0), error.errno or 0) from error
            if attempt and (not make or not self._make(directory, name)):
                return None
        raise _unprotected(path, "it changes all the time")

    def _make(self, directory: str, name: str) -> bool:
        """Whether there is something of that name now; a worker that cannot make it needs not be kept from it."""
        parent = linux.open_path(directory, _INSIDE | RESOLVE_NO_SYMLINKS)
        info = os.fstat(parent)
        if info.st_uid == self._worker_uid and not info.st_mode & stat.S_IWUSR:
            os.close(parent)
            raise _unprotected(f"{directory}/{name}", "its directory is closed to its owner, who can open it")
        umask = os.umask(0)
        try:
            if self._worker:
                os.setegid(self._worker[1])
                os.seteuid(self._worker[0])
            os.mkdir(name, PLACEHOLDER_MODE, dir_fd=parent)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                return False
            raise _unprotected(f"{directory}/{name}", os.strerror(error.errno or 0), error.errno or 0) from error
        finally:
            if self._worker:
                os.seteuid(0)
                os.setegid(0)
            os.umask(umask)
            os.close(parent)
        return True

    def _protect_what_it_leads_to(self, place: str, link: str) -> None:
        """In the same directory of the host, that is: nothing else that can be written is there when the sandbox has gone."""
        root = os.getcwd().rstrip("/")
        try:
            shown = linux.open_path(link, _INSIDE)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise _unprotected(link, os.strerror(error.errno or 0), error.errno or 0) from error
            # Whoever makes what it leads to has made what is protected.
            text = os.readlink(link)
            leads_to = os.path.normpath(os.path.join("/", os.path.dirname(link), text))
            if f"{leads_to}/".startswith(f"/{place}/"):
                raise _unprotected(link, f"it is a link to {text}, which is not there") from error
            return
        try:
            leads_to = os.readlink(f"/proc/self/fd/{shown}").removeprefix(root)
        finally:
            os.close(shown)
        if leads_to.startswith(f"/{place}/"):
            self._protect_path(place, leads_to[len(place) + 2 :], make=False)

    def _put(self, what: int, where: int, attributes: int) -> bool:
        """False: the place has been removed meanwhile."""
        tree = self._mounts.tree(what, attributes=NOSUID | NODEV | attributes)
        try:
            self._mounts.attach(tree, where)
        except SandboxError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        finally:
            os.close(tree)
        return True


def _of_repositories(root: int, names: Sequence[str]) -> list[str]:
    """The same for every repository in a directory, but for its own, as is asked for of that."""
    wanted = [name for name in GIT if f".git/{name}" in names]
    found = [repository for repository in repositories(root) if repository != ".git"] if wanted else []
    return [os.path.join(repository, name) for repository in found for name in wanted]


def _empty(*, directory: bool) -> int:
    """Something that nobody may open, from the root in memory."""
    path = EMPTY_DIRECTORY if directory else EMPTY_FILE
    with contextlib.suppress(FileExistsError):
        if directory:
            os.mkdir(path, 0)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0))
    return linux.open_path(path, _INSIDE | RESOLVE_NO_SYMLINKS)


def _is_sealed(path: str) -> bool:
    """Whether the name now leads to a read-only mount."""
    try:
        found = linux.open_path(path, _INSIDE | RESOLVE_NO_SYMLINKS)
    except OSError:
        return False
    try:
        return bool(os.fstatvfs(found).f_flag & os.ST_RDONLY)
    finally:
        os.close(found)


def _unprotected(path: str, why: str, number: int = 0) -> SandboxError:
    return SandboxError(
        f"/{path} cannot be protected: {why}.", step="protect", errno=number, hint="To mean it: unprotect it in a profile."
    )
