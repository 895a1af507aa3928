"""The part of the client protocol that is about what tasks have changed in their views of workspaces."""

from __future__ import annotations

import msgspec

from supervisord_agents.wire.messages import Reply, Request


class Changes(Request, tag="changes", frozen=True):
    """What a task has changed in its view of the workspace. Waits until that is known, if the task has ended."""

    task: str
    diff: bool = True
    """False: only the list."""


class ChangeView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change. Bytes of paths that are no UTF-8 are shown as `\\xff`."""

    path: str
    what: str
    """`added`, `modified`, `deleted`, `renamed`, `mode`."""
    kind: str
    """`file`, `directory`, `link`."""
    mode: int = 0
    """Permissions."""
    size: int = 0
    origin: str = ""
    """Of a rename: where it was."""
    target: str = ""
    """Of a link."""
    binary: bool = False
    protected: bool = False
    """Not applied unless that is asked for."""


class PathNote(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    why: str


class ChangesReply(Reply, frozen=True):
    task: str
    attempt: int
    mode: str
    workspace: str
    state: str
    """`kept`, `applied`, `discarded`."""
    changes: list[ChangeView]
    """The first ones, as many as fit."""
    count: int
    """Of all."""
    left_out: list[PathNote] = []
    """What is not carried over, or was not in the view."""
    conflicts: list[PathNote] = []
    """What stands against applying them now."""
    diff: str = ""
    """As git writes it."""
    diff_cut: bool = False
    """The diff was longer than what is kept of it."""
    settled_at: float = 0.0
    """When they were applied or discarded."""


class Apply(Request, tag="apply", frozen=True):
    """Carry the changes of a task over into its workspace: all of them, or none."""

    task: str
    protected: bool = False
    """Also those of files that are run, or decide what is run, outside of the sandbox."""


class ApplyReply(Reply, frozen=True):
    task: str
    count: int
    """How many changes."""


class Discard(Request, tag="discard", frozen=True):
    """Throw the changes of a task away."""

    task: str


class DiscardReply(Reply, frozen=True):
    task: str
    count: int
