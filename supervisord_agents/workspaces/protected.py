"""Paths whose content is run, or decides what is run, outside of any sandbox: nothing is put there unless somebody says so."""

from __future__ import annotations

import re

from sandbox.protected import PROTECTED

MORE = (
    rb"\.git/(info|modules/(.*/)?hooks)",
    rb"\.git/(commondir|gitdir|objects/info/alternates|modules/(.*/)?config)",
    rb"\.(gitmodules|inputrc|github|travis\.yml)",
)
"""What is not kept from a sandbox that has the directory itself: parts of a repository that git needs to change, and files that
are read on request."""
_NAMES = (*(re.escape(name.encode()) for name in PROTECTED), *MORE)
_PATTERN = re.compile(b"(.*/)?(?:" + b"|".join(_NAMES) + b")(/.*)?", re.DOTALL | re.IGNORECASE)


def is_protected(path: bytes) -> bool:
    """Of a path relative to the workspace; at any depth, and whatever the case, for file systems that do not tell it apart."""
    return _PATTERN.fullmatch(path) is not None
