"""What clients ask about the changes that tasks made in views of workspaces: to see them, to have them applied or thrown away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from supervisord_agents.daemon.archivist import ArchivedTask
from supervisord_agents.errors import Forbidden, InvalidInput, NotFound
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire import changes as m
from supervisord_agents.workers.shape import owns
from supervisord_agents.workspaces.changes import Change
from supervisord_agents.workspaces.keeper import Keeper
from supervisord_agents.workspaces.protected import protected_of
from supervisord_agents.workspaces.records import Kept

MAX_LIST_BYTES = 1024 * 1024
"""Of the paths that an answer names; the others are counted."""
MAX_NOTES = 100
Resolve = Callable[[str], Awaitable[ArchivedTask]]


class Outcomes:
    """The handlers of `changes`, `apply` and `discard`; `resolve` finds the one task behind a name."""

    def __init__(self, keeper: Keeper, resolve: Resolve) -> None:
        self._keeper = keeper
        self._resolve = resolve

    async def changes(self, request: m.Changes, peer: Peer) -> m.ChangesReply:
        task = await self._task(request.task, peer)
        kept, diff = await self._keeper.kept(task)
        conflicts = await self._keeper.conflicts(task)
        views = [view(change, kept.view.protected) for change in kept.changes]
        return m.ChangesReply(
            task=task,
            attempt=kept.view.attempt,
            mode=kept.view.mode,
            workspace=kept.view.workspace,
            state=kept.state,
            changes=first(views),
            count=len(views),
            left_out=[m.PathNote(path=text(path), why=why) for path, why in kept.left_out[:MAX_NOTES]],
            conflicts=[m.PathNote(path=text(one.path), why=one.why) for one in conflicts[:MAX_NOTES]],
            diff=diff if request.diff else "",
            diff_cut=kept.diff_cut,
            settled_at=kept.settled_at,
        )

    async def apply(self, request: m.Apply, peer: Peer) -> m.ApplyReply:
        task = await self._task(request.task, peer)
        return m.ApplyReply(task=task, count=await self._keeper.apply(task, protected=request.protected))

    async def discard(self, request: m.Discard, peer: Peer) -> m.DiscardReply:
        task = await self._task(request.task, peer)
        return m.DiscardReply(task=task, count=await self._keeper.discard(task))

    async def _task(self, name: str, peer: Peer) -> str:
        """The full id of a task whose changes this client may see. Raises SupervisorError."""
        task = (await self._resolve(name)).task
        if task.spec.workspace_mode is None:
            raise InvalidInput(
                f"task {task.id} worked in its directory itself: nothing is kept aside.",
                field="task",
                hint="Submit with workspace_mode `overlay` or `copy` to decide about changes afterwards.",
            )
        if task.ended:
            await self._keeper.ready(task.id)
        try:
            kept, _ = await self._keeper.kept(task.id)
        except NotFound as error:
            if not task.ended:
                error.hint = f"It is {task.state}: wait for its end."
            raise
        _refuse_stranger(kept, peer)
        return task.id


def _refuse_stranger(kept: Kept, peer: Peer) -> None:
    """A diff shows what is in files: it is for whoever may hand over the directory."""
    if not owns(peer.uid, kept.view.workspace_id.uid):
        raise Forbidden(
            f"{kept.view.workspace} does not belong to you.", field="task", hint="Its owner, or root, decides about the changes."
        )


def view(change: Change, protected: tuple[str, ...]) -> m.ChangeView:
    return m.ChangeView(
        path=text(change.path),
        what=str(change.what),
        kind=change.kind,
        mode=change.mode,
        size=change.size,
        origin=text(change.origin),
        target=text(change.target),
        binary=change.binary,
        protected=bool(protected_of(change, protected)),
    )


def first(views: list[m.ChangeView]) -> list[m.ChangeView]:
    """The first ones, whose paths together stay within MAX_LIST_BYTES."""
    room = MAX_LIST_BYTES
    for position, found in enumerate(views):
        room -= 4 * (len(found.path) + len(found.origin) + len(found.target)) + 100
        if room < 0:
            return views[:position]
    return views


def text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
