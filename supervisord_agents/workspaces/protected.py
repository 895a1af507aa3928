"""Changes to what is run, or says what is run, outside of any sandbox: they are not applied unless somebody says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from sandbox.protected import DETOURS, GIT, PROTECTED
from supervisord_agents.workspaces.changes import Change

PROFILES = 100
"""Whose names are kept compiled."""


def protected_of(change: Change, names: tuple[str, ...]) -> list[bytes]:
    """The paths of a change that are protected when these names are."""
    return [path for path in (change.path, change.origin) if path and is_protected(path, names)]


def is_protected(path: bytes, names: tuple[str, ...] = PROTECTED) -> bool:
    """Of a path relative to the workspace; at any depth, and whatever the case, for file systems that do not tell it apart."""
    return _pattern(names).fullmatch(path) is not None


@lru_cache(PROFILES)
def _pattern(names: tuple[str, ...]) -> re.Pattern[bytes]:
    any_of = "|".join(_patterns(names)) or "(?!)"
    return re.compile(f"(.*/)?({any_of})".encode("utf-8", "surrogateescape"), re.DOTALL | re.IGNORECASE)


def _patterns(names: tuple[str, ...]) -> Iterator[str]:
    """In every directory, with those on the way to them, which could be exchanged for a link."""
    of_git = [name for name in GIT if f".git/{name}" in names]
    for name in names:
        *above, last = map(re.escape, name.split("/"))
        pattern = f"{last}(/.*)?"
        for part in reversed(above):
            pattern = f"{part}(/{pattern})?"
        yield pattern
    if of_git:
        in_repositories = "|".join(map(re.escape, (*of_git, *DETOURS)))
        yield rf"\.git(/((modules|worktrees)/(.*/)?)?({in_repositories})(/.*)?)?"
