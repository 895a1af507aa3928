"""What a program in a writable directory of the host must not change: files that run outside of the sandbox, or say what does.

What is there is read-only (shield.py). What is missing must not come to be: an empty directory of ours takes its place on the
host meanwhile, because a mount needs something to be mounted on; git does not see it, and it is removed by rmdir(2), which can
take nothing of anybody's. Its mode says that it is ours, so that one left by a crash is removed by the next sandbox there.

    with holding(["/home/ann/project"], PROTECTED):
        ...                                         # run sandboxes that are given the directory

Sources: git-config(1) (core.fsmonitor, core.hooksPath, alias), gitrepository-layout(5), and what peers protect.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from sandbox import linux
from sandbox.linux import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS

GIT = ("hooks", "config", "config.worktree")
"""In the directory of a repository: commands that git runs."""
DETOURS = ("commondir", "gitdir", "info", "objects/info/alternates")
"""There too: they lead git elsewhere. Git writes some of them itself: only who looks at changes afterwards can mind them."""
_SHELLS = (".bash_login", ".bash_logout", ".bash_profile", ".bashrc", ".profile", ".zlogin", ".zprofile", ".zshenv", ".zshrc")
_IF_THERE = (*_SHELLS, ".gitconfig", ".husky", ".pre-commit-config.yaml", ".devcontainer", ".circleci")
"""Without effect where they are made anew: shells and git read those of a home, and the others are named by files that are
protected, or ask first."""
PROTECTED = (
    *(f".git/{name}" for name in GIT),
    *_IF_THERE,
    ".envrc",
    ".idea",
    ".vscode",
    ".claude",
    ".codex",
    ".cursor",
    ".gemini",
    ".mcp.json",
    ".opencode",
    ".qwen",
    ".github/workflows",
    ".gitlab-ci.yml",
)
"""Relative to a writable directory. Those of `.git` count in every repository that is found in it (repositories())."""
Missing = Literal["all", "repository", "none"]
"""What of them is kept from being made where it is missing: all, what is in repositories, where nobody sees it, or nothing."""
PLACEHOLDER_MODE = 0o1755
"""Of a directory of ours: nobody else makes such."""
NESTED_DEPTH = 2
"""Repositories are looked for in the directory, in those in it, and in those in these."""
NESTED_LOOKS = 500
"""At so many directories, at most."""
_HOLD_TRIES, _HOLD_STEP_S = 100, 0.01
_RESOLVE = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


def kept_from_being_made(names: Iterable[str], missing: Missing, *, home: bool) -> set[str]:
    """Those that must not come to be where they are missing; `home`: the directory has start files of shells."""
    match missing:
        case "all":
            return {name for name in names if name not in _IF_THERE or (home and name in (*_SHELLS, ".gitconfig"))}
        case "repository":
            return {name for name in names if name.startswith(".git/")}
    return set()


def is_home(directory: int) -> bool:
    return any(_exists(directory, name) for name in _SHELLS)


def repositories(root: int) -> Iterator[str]:
    """The directories of repositories in the directory of a descriptor, relative to it and without a link in them.

    They are what is called .git there, submodules', and "" if it is one itself. Raises nothing.
    """
    if _is_repository(root, "."):
        yield ""
    level, looks = [""], 0
    for depth in range(NESTED_DEPTH + 1):
        below: list[str] = []
        for path in level:
            looks += 1
            if looks > NESTED_LOOKS:
                return
            if _exists(root, git := os.path.join(path, ".git")):
                yield git
                yield from _submodules(root, os.path.join(git, "modules"), NESTED_DEPTH)
            if depth < NESTED_DEPTH:
                below += [os.path.join(path, name) for name in _directories(root, path) if name != ".git"]
        level = below


def _submodules(root: int, path: str, depth: int) -> Iterator[str]:
    for name in _directories(root, path):
        below = os.path.join(path, name)
        if _is_repository(root, below):
            yield below
        elif depth:
            yield from _submodules(root, below, depth - 1)


def _is_repository(root: int, path: str) -> bool:
    return all(_exists(root, os.path.join(path, name)) for name in ("HEAD", "objects"))


def _exists(root: int, path: str) -> bool:
    try:
        os.close(linux.open_path(path, _RESOLVE, root, flags=os.O_NOFOLLOW))
    except OSError:
        return False
    return True


def _directories(root: int, path: str) -> list[str]:
    try:
        descriptor = linux.open_path(path or ".", _RESOLVE, root)
    except OSError:
        return []
    try:
        # Not by the descriptor itself: it was opened only to be looked at.
        with os.scandir(f"/proc/self/fd/{descriptor}") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    finally:
        os.close(descriptor)


def is_placeholder(info: os.stat_result) -> bool:
    return stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) == PLACEHOLDER_MODE


@contextlib.contextmanager
def holding(directories: Iterable[str], names: Sequence[str]) -> Iterator[None]:
    """Keep the placeholders in these writable directories from being removed; at the end, remove them if nobody else does that.

    Raises nothing: a directory that cannot be held, or cleared, is passed over.
    """
    held = [descriptor for directory in dict.fromkeys(directories) if names and (descriptor := hold(directory)) >= 0]
    try:
        yield
    finally:
        for descriptor in held:
            let_go(descriptor, names)


def hold(directory: str) -> int:
    """A descriptor for `let_go`; -1: it cannot be had."""
    try:
        path = linux.open_path(directory, _RESOLVE)
    except OSError:
        return -1
    try:
        descriptor = os.open(f"/proc/self/fd/{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    finally:
        os.close(path)
    for _ in range(_HOLD_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:  # another clears up
            time.sleep(_HOLD_STEP_S)
        except OSError:
            break
    os.close(descriptor)
    return -1


def let_go(descriptor: int, names: Sequence[str]) -> None:
    """Close what `hold` gave; the last to do so for a directory clears up in it."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clear_up(descriptor, names)
    os.close(descriptor)


def _clear_up(descriptor: int, names: Sequence[str]) -> None:
    repos = list(repositories(descriptor))
    wanted = [name for name in names if not name.startswith(".git/")]
    for repository in repos:
        wanted += [os.path.join(repository, name) for name in GIT]
    for name in wanted:
        parts = name.split("/")
        for depth in range(len(parts), 0, -1):
            _remove_placeholder(descriptor, "/".join(parts[:depth]))
    for repository in repos:
        _remove_detour(descriptor, repository)


def _remove_placeholder(directory: int, path: str) -> None:
    with contextlib.suppress(OSError), _parent(directory, path) as (parent, name):
        if is_placeholder(os.stat(name, dir_fd=parent, follow_symlinks=False)):
            os.rmdir(name, dir_fd=parent)


def _remove_detour(directory: int, repository: str) -> None:
    """`commondir` in a repository that is no linked worktree would have git take hooks and configuration from elsewhere.

    git itself makes it in `.git/worktrees/` alone. Nothing can keep it from being made while a sandbox runs: git refuses to work
    where anything at all has the name.
    """
    with contextlib.suppress(OSError), _parent(directory, f"{repository}/commondir") as (parent, name):
        if _is_repository(parent, "."):
            os.unlink(name, dir_fd=parent)


@contextlib.contextmanager
def _parent(directory: int, path: str) -> Iterator[tuple[int, str]]:
    head, _, name = path.rpartition("/")
    parent = linux.open_path(head or ".", _RESOLVE, directory)
    try:
        yield parent, name
    finally:
        os.close(parent)
