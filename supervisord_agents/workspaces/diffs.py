"""Changes as a unified diff, bounded in size and time: both sides may be made to be hard to compare."""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
from collections.abc import Callable, Iterator

import msgspec

from supervisord_agents.workspaces.changes import Change, Store, What, as_it_was

FILE_BYTES = 512 * 1024
"""Larger files are not compared line by line."""
FILE_S = 2.0
CONTEXT_LINES = 3
NO_END = "\\ No newline at end of file\n"
_ESCAPES = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}
_GIT_TYPE = {"file": 0o100000, "link": 0o120000}


class Diff(msgspec.Struct, frozen=True):
    """`cut`: there was more than the limit."""

    text: str
    cut: bool


Old = Callable[[Change], bytes | None]
"""What a file was before a change; None: that is not to be had any more, or it is too large."""


class TooDifferent(Exception):
    """Comparing takes longer than it is worth."""


def diff(changes: list[Change], old_content: Old, store: Store, limit_bytes: int) -> tuple[list[Change], Diff]:
    """The changes, with those marked that are binary, and the diff of them all, as git would write it."""
    text, marked, cut = "", [], False
    for change in changes:
        old, new = _contents(change, old_content, store)
        binary = any(side is not None and _is_binary(side) for side in (old, new))
        marked.append(msgspec.structs.replace(change, binary=binary))
        if cut or change.kind == "directory":
            continue
        piece = _header(change) + _body(change, old, new, binary=binary)
        cut = len(text) + len(piece) > limit_bytes
        text += "" if cut else piece
    return marked, Diff(text, cut)


def _contents(change: Change, old_content: Old, store: Store) -> tuple[bytes | None, bytes | None]:
    """Both sides; None: there is none, or it is too large or not there any more."""
    if change.what in (What.MODE, What.RENAMED) or change.kind == "directory":
        return None, None
    old = new = None
    if change.before is not None:
        old = change.before.target if change.before.kind == "link" else old_content(change)
    if change.what is not What.DELETED:
        new = change.target if change.kind == "link" else _read(lambda: store.open(change.stored), change.size)
    return old, new


def of_workspace(workspace: int) -> Old:
    """The old side of a diff, out of a workspace."""

    def content(change: Change) -> bytes | None:
        before = change.before
        assert before is not None
        return _read(lambda: as_it_was(workspace, change.path, before), before.size) if before.kind == "file" else None

    return content


def _read(opened: Callable[[], int], size: int) -> bytes | None:
    if size > FILE_BYTES:
        return None
    descriptor = opened()
    if descriptor < 0:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(FILE_BYTES + 1)


def _is_binary(content: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        return "\0" in content.decode()
    return True


def _header(change: Change) -> str:
    old, new = quoted(b"a/" + (change.origin or change.path)), quoted(b"b/" + change.path)
    lines = [f"diff --git {old} {new}"]
    mode = f"{_GIT_TYPE.get(change.kind, 0) | change.mode:06o}"
    before = change.before
    if change.what is What.ADDED:
        lines.append(f"new file mode {mode}")
    elif change.what is What.DELETED:
        lines.append(f"deleted file mode {mode}")
    elif before is not None and (before.kind, before.mode & 0o777) != (change.kind, change.mode) and change.kind != "link":
        lines += [f"old mode {_GIT_TYPE.get(before.kind, 0) | before.mode & 0o777:06o}", f"new mode {mode}"]
    if change.what is What.RENAMED:
        lines += ["similarity index 100%", f"rename from {quoted(change.origin)}", f"rename to {quoted(change.path)}"]
    return "".join(f"{line}\n" for line in lines)


def _body(change: Change, old: bytes | None, new: bytes | None, *, binary: bool) -> str:
    if change.what in (What.MODE, What.RENAMED):
        return ""
    names = [quoted(b"a/" + change.path) if change.before else "/dev/null"]
    names.append(quoted(b"b/" + change.path) if change.what is not What.DELETED else "/dev/null")
    unknown = (old is None and change.before is not None) or (new is None and change.what is not What.DELETED)
    if binary or unknown:
        return (
            f"Binary files {names[0]} and {names[1]} differ\n" if binary else "# not compared: too large, or changed meanwhile\n"
        )
    try:
        with _no_longer_than(FILE_S):
            return "".join(_unified(_lines(old or b""), _lines(new or b""), *names))
    except TooDifferent:
        return "# not compared: too different\n"


def _lines(content: bytes) -> list[str]:
    """Split at line feeds alone: other things that end a line for Python are part of it here."""
    *whole, last = content.decode().split("\n")
    return [f"{line}\n" for line in whole] + ([last] if last else [])


def _unified(old: list[str], new: list[str], old_name: str, new_name: str) -> Iterator[str]:
    for line in difflib.unified_diff(old, new, old_name, new_name, n=CONTEXT_LINES):
        yield line if line.endswith("\n") else f"{line}\n{NO_END}"


def quoted(path: bytes) -> str:
    """A path as git writes it: as it is, or in quotes with escapes."""
    if all(0x20 <= byte < 0x7F and byte not in (0x22, 0x5C) for byte in path):
        return path.decode("ascii")
    shown = (
        f"\\{_ESCAPES[byte]}" if byte in _ESCAPES else chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}" for byte in path
    )
    return f'"{"".join(shown)}"'


@contextlib.contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Only in the main thread of a process that uses no other alarm."""

    def ring(*_: object) -> None:
        raise TooDifferent

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
