"""What is kept of a view in the state directory: what it is a view of, and then its changes with what has become of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from sandbox.protected import PROTECTED
from supervisord_agents.errors import SupervisorError
from supervisord_agents.journal.files import REAL_FILES
from supervisord_agents.workers.shape import Identity
from supervisord_agents.workspaces.changes import Change
from supervisord_agents.workspaces.paths import LeftOut

VIEW, BASE, RECORD, DIFF, FILES, INTENT = "view", "base", "record", "diff", "files", "intent"
VERSION = 1
T = TypeVar("T")


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A view of a workspace for one attempt of a task."""

    task: str
    attempt: int
    mode: str
    workspace: str
    workspace_id: Identity
    version: int = VERSION
    left_out: LeftOut = []
    """What of the workspace the view does not have."""
    commit: str = ""
    """That it is a checkout of."""
    protected: tuple[str, ...] = PROTECTED
    """What of its changes is not carried over unless a person says so (protected.py)."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that were made in a view. `at` and `settled_at` are Unix seconds."""

    view: View
    at: float
    changes: list[Change]
    left_out: LeftOut
    diff_cut: bool
    state: Literal["kept", "applied", "discarded"] = "kept"
    settled_at: float = 0.0


def written(path: Path, record: View | Kept) -> None:
    """Put a record on disk, whole or not at all. Raises OSError."""
    data = msgspec.msgpack.encode(record)
    temporary = path.with_name(f"{path.name}.new")
    descriptor = REAL_FILES.create(temporary, 0o600)
    try:
        REAL_FILES.write(descriptor, data, 0)
        REAL_FILES.sync(descriptor)
    finally:
        REAL_FILES.close(descriptor)
    REAL_FILES.rename(temporary, path)
    REAL_FILES.sync_directory(path.parent)


def read_view(directory: Path) -> View | None:
    """None: the view was never ready. Raises SupervisorError."""
    return _read(directory / VIEW, View)


def read_kept(directory: Path) -> Kept | None:
    """None: there is none. Raises SupervisorError."""
    return _read(directory / RECORD, Kept)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise SupervisorError(
            f"cannot be read: {error}.", field=str(path), kept="It is left as it is.", hint="Look at the files beside it."
        ) from error


def bytes_of(directory: Path) -> int:
    """What the changes of a task take on the disk."""
    total = 0
    for place in (directory, directory / FILES):
        try:
            with os.scandir(place) as entries:
                total += sum(
                    entry.stat(follow_symlinks=False).st_size for entry in entries if entry.is_file(follow_symlinks=False)
                )
        except OSError:
            continue
    return total
