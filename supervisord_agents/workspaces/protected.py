"""Paths whose content is run, or decides what is run, outside of any sandbox: nothing is put there unless somebody says so."""

from __future__ import annotations

import re

NAMES = (
    rb"(.*/)?\.git/(hooks|info)(/.*)?",
    rb"(.*/)?\.git/(config|config\.worktree|commondir|gitdir|objects/info/alternates)",
    rb"(.*/)?\.git/modules/(.*/)?(hooks(/.*)?|config)",
    rb"(.*/)?\.(gitmodules|gitconfig|envrc|mcp\.json)",
    rb"(.*/)?\.(bashrc|bash_profile|bash_login|bash_logout|profile|zshrc|zshenv|zprofile|zlogin|inputrc)",
    rb"(.*/)?\.(vscode|idea|devcontainer|husky|claude|codex|gemini|qwen|opencode)(/.*)?",
    rb"\.(github|circleci)(/.*)?",
    rb"\.(gitlab-ci\.yml|travis\.yml|pre-commit-config\.yaml)",
)
_PATTERN = re.compile(b"|".join(b"(?:" + name + b")" for name in NAMES), re.DOTALL | re.IGNORECASE)


def is_protected(path: bytes) -> bool:
    """Of a path relative to the workspace."""
    return _PATTERN.fullmatch(path) is not None
