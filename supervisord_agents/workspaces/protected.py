"""Changes to what is run, or says what is run, outside of any sandbox: they are not applied unless somebody says so."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sandbox.protected import DETOURS, GIT, PROTECTED


def _patterns() -> Iterator[str]:
    """In every directory, with those on the way to them, which could be exchanged for a link."""
    for name in (name for name in PROTECTED if not name.startswith(".git/")):
        *above, last = map(re.escape, name.split("/"))
        pattern = f"{last}(/.*)?"
        for part in reversed(above):
            pattern = f"{part}(/{pattern})?"
        yield pattern
    in_repositories = "|".join(map(re.escape, (*GIT, *DETOURS)))
    yield rf"\.git(/(modules/(.*/)?)?({in_repositories})(/.*)?)?"


_PATTERN = re.compile(f"(.*/)?({'|'.join(_patterns())})".encode(), re.DOTALL | re.IGNORECASE)


def is_protected(path: bytes) -> bool:
    """Of a path relative to the workspace; at any depth, and whatever the case, for file systems that do not tell it apart."""
    return _PATTERN.fullmatch(path) is not None
