"""Trees of files for tests of workspaces: made, read back, and worked on as a task and a person would."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from supervisord_agents.workspaces import paths
from supervisord_agents.workspaces.changes import Change, Compared, Store, read_copy
from supervisord_agents.workspaces.stamps import Base
from supervisord_agents.workspaces.views import Limits, copied

Tree = dict[str, object]
"""By path: a text with its mode `(text, mode)`, None for a directory, or `Link`."""
LIMITS = Limits(files=10_000, bytes=1 << 24)


class Link(str):
    """A symbolic link to this."""

    __slots__ = ()


def make(root: Path, tree: Tree) -> None:
    """Make what the directory holds equal to the tree; what is so already is not touched."""
    have = read(root)
    for path in sorted(have, key=len, reverse=True):
        if path not in tree or type(have[path]) is not type(tree[path]):
            target = root / path
            if have[path] is None:
                shutil.rmtree(target, ignore_errors=True)
            else:
                target.unlink(missing_ok=True)
    for path in sorted(tree):
        wanted, target = tree[path], root / path
        if wanted is None:
            target.mkdir(exist_ok=True)
        elif have.get(path) != wanted:
            target.unlink(missing_ok=True)
            if isinstance(wanted, Link):
                target.symlink_to(wanted)
            else:
                assert isinstance(wanted, tuple)
                target.write_text(wanted[0])
                target.chmod(wanted[1])


def read(root: Path) -> Tree:
    found: Tree = {}
    for path in root.rglob("*"):
        info = path.lstat()
        name = str(path.relative_to(root))
        if stat.S_ISLNK(info.st_mode):
            found[name] = Link(os.readlink(path))
        elif stat.S_ISDIR(info.st_mode):
            found[name] = None
        else:
            found[name] = (path.read_bytes().decode(), stat.S_IMODE(info.st_mode))
    return found


class Project:
    """A workspace, a view of it and what is kept of the view, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.workspace, self.view, self.files, self.intent = (
            directory / name for name in ("workspace", "view", "files", "intent")
        )
        for path in (self.workspace, self.view, self.files):
            path.mkdir(parents=True)
        self.intent.touch()
        self.base: Base = {}

    def begin(self) -> None:
        """The view is made of what the workspace has."""
        workspace, view = opened(self.workspace), opened(self.view)
        self.base = copied(workspace, view, LIMITS, [])
        os.close(workspace)
        os.close(view)

    def changes(self) -> list[Change]:
        """What was done in the view."""
        workspace, view = opened(self.workspace), opened(self.view)
        store = self.store()
        try:
            return Compared(workspace, self.base, store).changes(read_copy(view, self.base, store, []))
        finally:
            for descriptor in (workspace, view, store.directory):
                os.close(descriptor)

    def store(self) -> Store:
        return Store(opened(self.files))


def opened(path: Path) -> int:
    return os.open(path, paths.DIRECTORY)
