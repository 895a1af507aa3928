"""The root of a sandbox: what all have in common, made beforehand, then what one of them has besides.

The common part is made in memory, with the host's system attached, and is the root already when a worker's directories become
known. The host's own root lies where no path inside leads, until these have been attached.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import socket
import stat
from typing import NamedTuple

import msgspec

from sandbox import linux, protocol
from sandbox.errors import SandboxError
from sandbox.linux import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV
from sandbox.mounts import NODEV, NOSUID, RDONLY, PrivateMounts
from sandbox.plan import COMMON, Plan, Tree
from sandbox.shield import Shield, Shielded
from sandbox.spec import HOME, SandboxSpec

BUILD_AT = "/tmp"
"""Where the new root is put together; hidden in this mount namespace alone, until it is the root."""
INODES = 200_000
OVERFLOW = 65534
"""How a user namespace shows ids that it has no map for, unless the host says otherwise (proc_sys_kernel(5))."""
IN_MEMORY = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
GO = b"go"
Owner = tuple[int, int]
"""uid and gid."""
Shift = tuple[int, int, bool]
"""uid and gid whose files are to be the worker's, and whether root keeps a place beside them (idmap.namespace)."""
Opened = list[tuple[int, Tree]]
"""Trees, each with a descriptor."""


class Owners(msgspec.Struct, frozen=True, array_like=True, tag="owners"):
    """A child asks the fork server for user namespaces that shift what these have on disk to the worker, one each."""

    owners: tuple[Shift, ...]


class Worker(NamedTuple):
    """Whose root it is to be."""

    uid: int
    gid: int
    change_ids: bool
    """Whether root makes it, who can give things away."""

    @property
    def owner(self) -> Owner:
        return (self.uid, self.gid)


class Root:
    """The root of this process, which is in a mount namespace of its own."""

    shielded: tuple[Shielded, ...] = ()
    """Known when it is complete."""

    def __init__(self, common: Plan) -> None:
        """Make this part of it, and become it. Raises SandboxError and OSError."""
        self._made = common
        self._mounts = PrivateMounts()
        self._host = linux.open_path("/", 0)
        # Taken before BUILD_AT hides what is below it.
        trees = [(self._mounts.tree_at(tree.source), tree) for tree in common.trees]
        self._mounts.tmpfs(BUILD_AT, COMMON.tmp_bytes, INODES)
        os.chdir(BUILD_AT)
        _skeleton(common, trees)
        self._attach_system(trees)
        self._mounts.proc("proc")
        self._mounts.devpts("dev/pts")
        self._private = {path: self._private_copy(path) for path in common.private}
        self._mounts.make_root()

    def complete(self, plan: Plan, spec: SandboxSpec, worker: Worker, status: socket.socket) -> list[int]:
        """Add what this plan has besides, for a worker, and part with the host. `status` leads to the fork server.

        Gives the groups that the devices in it are for.
        """
        sources = self._sources(plan)
        groups = _groups_of_devices(sources, spec)
        trees = self._trees(sources, worker, status)
        if spec.tmp_bytes != COMMON.tmp_bytes:
            self._mounts.resize_root(spec.tmp_bytes)
        self._write_files(plan)
        self._make_places(plan, trees)
        self._make_private(plan, worker)
        self._attach(trees)
        self._shield(plan, spec, worker)
        self._mounts.let_go()
        os.close(self._host)
        self._mounts.seal_root()
        return groups

    def _sources(self, plan: Plan) -> Opened:
        made = set(self._made.trees)
        return [(self._open(tree), tree) for tree in plan.trees if tree not in made]

    def _trees(self, sources: Opened, worker: Worker, status: socket.socket) -> Opened:
        layers = {tree: self._open_layers(tree) for _, tree in sources if tree.layers}
        owners = {tree: _owner(source, tree, worker) for source, tree in sources if tree.writable or tree.owner is not None}
        users = _users(owners, worker, status)
        trees = [(self._copy(source, tree, users.get(tree, -1)), tree) for source, tree in sources]
        uppers = {tree: self._copy_layers(source, users.get(tree, -1)) for tree, source in layers.items()}
        for descriptor in set(users.values()):
            os.close(descriptor)
        return [(self._view(made, tree, uppers[tree]) if tree.layers else made, tree) for made, tree in trees]

    def _open(self, tree: Tree) -> int:
        try:
            return linux.open_path(tree.source, RESOLVE_IN_ROOT | (RESOLVE_NO_SYMLINKS if tree.writable else 0), self._host)
        except OSError as error:
            why = "is reached through a symbolic link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
            raise SandboxError(f"{tree.source}: {why}.", step="bind", errno=error.errno or 0) from error

    def _copy(self, source: int, tree: Tree, users: int = -1) -> int:
        attributes = NOSUID | (0 if tree.writable else RDONLY) | (0 if tree.device else NODEV)
        try:
            return self._mounts.tree(source, attributes=attributes, users=users)
        except SandboxError as error:
            if users >= 0 and error.errno == errno.EINVAL:
                error.hint = "Its file system has no id-mapped mounts: use another directory, or run as its owner."
            error.message = f"{tree.source}: {error.message}"
            raise
        finally:
            os.close(source)

    def _open_layers(self, tree: Tree) -> int:
        try:
            return linux.open_path(tree.layers, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS, self._host)
        except OSError as error:
            raise SandboxError(f"{tree.layers}: {error.strerror}.", step="overlay", errno=error.errno or 0) from error

    def _copy_layers(self, source: int, users: int) -> int:
        try:
            return self._mounts.tree(source, attributes=NOSUID | NODEV, users=users)
        finally:
            os.close(source)

    def _view(self, lower: int, tree: Tree, layers: int) -> int:
        try:
            return self._mounts.overlay(lower, layers)
        except SandboxError as error:
            error.message = f"no copy-on-write view of {tree.source}: {error.message}"
            error.hint = "It needs Linux 5.19, id-mapped mounts, and user.* attributes where it writes. A copy needs nothing."
            raise
        finally:
            os.close(lower)
            os.close(layers)

    def _attach_system(self, trees: Opened) -> None:
        """Attach what is the same in all sandboxes, to places that were made here and now."""
        for descriptor, tree in trees:
            if not tree.device:
                self._mounts.attach_at(descriptor, _inside(tree.place))
        self._mounts.protect()
        for descriptor, tree in trees:
            if tree.device:
                self._mounts.protect_tree(descriptor, RDONLY | NOSUID)
                self._mounts.attach_at(descriptor, _inside(tree.place))
            os.close(descriptor)

    def _attach(self, trees: Opened) -> None:
        """Attach trees; never through a symbolic link, for what was attached before may hold what a worker has made."""
        for descriptor, tree in trees:
            try:
                place = linux.open_path(_inside(tree.place), RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
            except OSError as error:
                why = "a symbolic link is in the way" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
                raise SandboxError(f"no place for {tree.place} inside: {why}.", step="bind", errno=error.errno or 0) from error
            self._mounts.attach(descriptor, place)
            os.close(place)
            os.close(descriptor)

    def _private_copy(self, path: str) -> int:
        """A directory of the root as a mount of its own, which stays writable when the root is sealed."""
        place = linux.open_path(_inside(path), IN_MEMORY)
        try:
            return self._mounts.tree(place, attributes=NOSUID | NODEV)
        finally:
            os.close(place)

    def _make_private(self, plan: Plan, worker: Worker) -> None:
        for path in plan.private:
            if worker.change_ids:
                os.chown(path, *worker.owner)
            made = self._private.pop(path, -1)
            if made < 0:
                os.chmod(path, _mode(path))
                made = self._private_copy(path)
            self._mounts.attach_at(made, _inside(path))
            os.close(made)
        for unused in self._private.values():
            os.close(unused)
        for cover in _covers(plan):
            os.chmod(cover, 0o1777)
            if worker.change_ids:
                os.chown(cover, *worker.owner)

    def _shield(self, plan: Plan, spec: SandboxSpec, worker: Worker) -> None:
        """What is read-only or hidden within what was attached."""
        shield = Shield(self._mounts, worker.owner if worker.change_ids else None)
        writable = [tree.place for tree in plan.trees if tree.writable]
        for place in (tree.place for tree in plan.trees if tree.writable and not tree.reviewed):
            names = [name for name in spec.protected if f"{place}/{name}" not in writable]
            if os.path.isdir(_inside(place)):
                shield.protect(_inside(place), names, missing=spec.protect_missing)
        for path, cover in zip(plan.covered, _covers(plan), strict=True):
            shield.overlay(_inside(path), _inside(cover))
        for path in plan.masked:
            shield.hide(_inside(path))
        self.shielded = shield.done

    def _write_files(self, plan: Plan) -> None:
        for path, text in plan.files.items():
            if self._made.files.get(path) != text:
                _make(os.path.dirname(path))
                with open(path, "w") as file:
                    file.write(text)

    def _make_places(self, plan: Plan, trees: Opened) -> None:
        """Everything that is still missing for what will be attached."""
        made = {*self._made.directories, *self._made.private}
        for path in (*plan.directories, *plan.private, *_covers(plan)):
            if path not in made:
                _make(path)
        for descriptor, tree in trees:
            _make(tree.place, directory=_is_directory(descriptor))
        for path, target in plan.links.items():
            if path not in self._made.links:
                _make(os.path.dirname(path))
                os.symlink(target, path)


def _groups_of_devices(sources: Opened, spec: SandboxSpec) -> list[int]:
    """Whom the devices that were granted are for, but for root."""
    groups = set()
    for source, tree in sources:
        if tree.device and any(fnmatch.fnmatchcase(tree.place, pattern) for pattern in spec.devices):
            info = os.fstat(source)
            if not stat.S_ISCHR(info.st_mode):
                raise SandboxError(f"devices: {tree.source} is no character device.", step="bind", errno=errno.ENODEV)
            groups.add(info.st_gid)
    return sorted(groups - {0})


def _covers(plan: Plan) -> list[str]:
    """What is put over directories below trees, one each."""
    return [f"/run/.private/{number}" for number, _ in enumerate(plan.covered)]


def _mode(private: str) -> int:
    return 0o700 if private == HOME else 0o1777


def _is_directory(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def _owner(source: int, tree: Tree, worker: Worker) -> Owner:
    """Who owns what was opened, which nobody can exchange any more; raises SandboxError if it is not who it should be."""
    found = os.fstat(source)
    owner = (found.st_uid, found.st_gid)
    if tree.owner is None or owner == tree.owner:
        return owner
    # In a user namespace that knows no ids but our own, all others look alike; there the kernel gives no right to them either.
    seen = tuple(id if id == own else OVERFLOW for id, own in zip(tree.owner, worker.owner, strict=True))
    if not worker.change_ids and owner == seen:
        return owner
    raise SandboxError(
        f"{tree.source} belongs to {owner[0]}:{owner[1]} now, no longer to {tree.owner[0]}:{tree.owner[1]}.",
        step="bind",
        errno=errno.EPERM,
        hint="It has been exchanged or given away meanwhile: start again.",
    )


def _users(owners: dict[Tree, Owner], worker: Worker, status: socket.socket) -> dict[Tree, int]:
    """A user namespace for each writable bind whose owner is not the worker itself, made by the fork server, one a shift."""
    shifted: dict[Tree, Shift] = {
        tree: (*owner, bool(tree.layers)) for tree, owner in owners.items() if tree.writable and owner != worker.owner
    }
    if not shifted or not worker.change_ids:
        return {}
    others = tuple(dict.fromkeys(shifted.values()))
    status.send(msgspec.msgpack.encode(Owners(others)))
    packet, users = protocol.receive_packet(status, 16)
    if packet != GO or len(users) != len(others):
        raise SandboxError("the fork server has ended.", step="idmap")
    made = dict(zip(others, users, strict=True))
    return {tree: made[shift] for tree, shift in shifted.items()}


def _skeleton(plan: Plan, trees: Opened) -> None:
    """Everything of a plan that is made in memory, in the working directory, before anything of the host is attached to it.

    Links come last: they lead out of it as long as it is not the root, and so nothing may be made by way of one.
    """
    os.umask(0o022)
    for path in plan.directories:
        os.mkdir(_inside(path))
    for path in plan.private:
        os.chmod(_inside(path), _mode(path))
    for path, text in plan.files.items():
        with open(_inside(path), "x") as file:
            file.write(text)
    for descriptor, tree in trees:
        place = _inside(tree.place)
        with contextlib.suppress(FileExistsError):
            if _is_directory(descriptor):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    for path, target in plan.links.items():
        os.symlink(target, _inside(path))


def _make(path: str, *, directory: bool = True) -> None:
    """Make a directory or an empty file in the memory of the root, with those above it.

    What is in the way of that, such as a link or something of the host, is left alone: that a place is missing will be found.
    """
    inner = _inside(path)
    if not inner:
        return
    try:
        os.close(linux.open_path(inner, IN_MEMORY))
    except FileNotFoundError:
        pass
    except OSError:
        return
    else:
        return
    above, name = os.path.split(path)
    _make(above)
    try:
        parent = linux.open_path(_inside(above) or ".", IN_MEMORY)
    except OSError:
        return
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444, dir_fd=parent))
    finally:
        os.close(parent)


def _inside(path: str) -> str:
    """A path of the plan, relative to the root, which is the working directory."""
    return path.lstrip("/")
