"""Views and changes of all tasks, in the state directory:

    views/TASK.ATTEMPT/     view, base, and tree/ or layers/upper, layers/work: while an attempt has it
    changes/TASK/           record, diff, files/N, and intent while they are being applied

A view becomes changes when nobody works in it any more, by a rename, and takes the place of those of an earlier attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import msgspec
import structlog

from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
from supervisord_agents.config import Workspaces
from supervisord_agents.core.model import TaskSpec, WorkspaceMode
from supervisord_agents.errors import ErrorCode, InvalidInput, NotFound, SandboxRefused, SupervisorError
from supervisord_agents.journal.files import REAL_FILES, make_directory
from supervisord_agents.workers.emptying import empty
from supervisord_agents.workers.jobs import Jobs
from supervisord_agents.workers.shape import LAYERS, TREE, Shape, workspace_bind
from supervisord_agents.workspaces import records
from supervisord_agents.workspaces.conflicts import Conflict
from supervisord_agents.workspaces.diffs import quoted
from supervisord_agents.workspaces.git import branch_of
from supervisord_agents.workspaces.hand import Applied, Apply, Collect, Collected, Commit, Prepare, Prepared, Resume
from supervisord_agents.workspaces.hands import done, lending
from supervisord_agents.workspaces.protected import protected_of
from supervisord_agents.workspaces.records import Kept, View
from supervisord_agents.workspaces.views import Limits

UPPER, WORK = "upper", "work"
EMPTY_S = 600.0
NAMED = 20
"""Paths that an error names."""
log = structlog.get_logger()


class Keeper:
    """Implements workers.pool.Views."""

    def __init__(self, state_dir: Path, config: Workspaces, spawner: Spawner) -> None:
        self._spawner = spawner
        real = Path(os.path.realpath(state_dir))
        self._views, self._kept = real / "views", real / "changes"
        self._config = config
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._open: dict[str, asyncio.Event] = {}
        """Views that are not changes yet, by directory; set when they are, or never will be."""
        self._jobs = Jobs("workspace")
        for directory in (self._views, self._kept):
            make_directory(directory, 0o700)

    # Views (workers.pool.Views)

    def place(self, spec: TaskSpec, task: str, attempt: int) -> str:
        if not spec.workspace or spec.workspace_mode in (None, WorkspaceMode.DIR):
            return ""
        return str(self._views / f"{task}.{attempt}")

    async def prepare(self, shape: Shape, protected: tuple[str, ...]) -> None:
        if self._spawner.without:
            raise SandboxRefused(
                f"`{shape.mode}` is no way to see a workspace without namespaces: {self._spawner.without}", field="workspace_mode"
            )
        directory = Path(shape.view)
        task, _, attempt = directory.name.rpartition(".")
        view = View(
            task=task,
            attempt=int(attempt),
            mode=shape.mode,
            workspace=shape.workspace,
            workspace_id=shape.workspace_id,
            protected=protected,
        )
        self._open[shape.view] = asyncio.Event()
        try:
            await asyncio.to_thread(self._make, directory, view)
            if view.mode == WorkspaceMode.OVERLAY and self._config.overlay_fallback and not await self._can_overlay(shape):
                view = msgspec.structs.replace(view, mode=self._config.overlay_fallback)
                await asyncio.to_thread(self._make, directory, view)
            reply = await self._filled(directory, view)
            view = msgspec.structs.replace(view, left_out=reply.left_out, commit=reply.commit)
            await asyncio.to_thread(records.written, directory / records.VIEW, view)
        except SupervisorError as error:
            error.field = f"{view.workspace}" if error.field == "workspace" else error.field
            raise

    async def _can_overlay(self, shape: Shape) -> bool:
        """Whether this host can make it, for this workspace: by making it, for a program that does nothing."""
        spec = SandboxSpec(argv=("/bin/true",), binds=(workspace_bind(shape),), optional_layers=("landlock",))
        try:
            sandbox = await self._spawner.spawn(spec, {})
        except SandboxError as error:
            log.warning("no_overlay", workspace=shape.workspace, error=str(error), instead=self._config.overlay_fallback)
            return False
        await sandbox.wait()
        return True

    def _make(self, directory: Path, view: View) -> None:
        """Empty places of the workspace's owner."""
        if directory.exists():
            _remove(directory)
        directory.mkdir(mode=0o700)
        places = [directory / records.FILES]
        if view.mode == WorkspaceMode.OVERLAY:
            places += [directory / LAYERS, directory / LAYERS / UPPER, directory / LAYERS / WORK]
        else:
            places.append(directory / TREE)
        for place in places:
            place.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(place, view.workspace_id.uid, view.workspace_id.gid)
        mode = os.stat(view.workspace).st_mode & 0o777
        places[2 if view.mode == WorkspaceMode.OVERLAY else 1].chmod(mode | 0o700)

    async def _filled(self, directory: Path, view: View) -> Prepared:
        with lending() as lent:
            request = Prepare(
                uid=view.workspace_id.uid,
                gid=view.workspace_id.gid,
                workspace=lent.workspace(view),
                tree=-1 if view.mode == WorkspaceMode.OVERLAY else lent.directory(directory / TREE),
                base=lent.file(directory / records.BASE, os.O_WRONLY | os.O_CREAT),
                limits=Limits(files=self._config.limit_files, bytes=self._config.copy_limit_bytes),
                branch=branch_of(view.task) if view.mode == WorkspaceMode.GIT_WORKTREE else "",
            )
            reply = await done(request, lent)
        assert isinstance(reply, Prepared)
        return reply

    async def over(self, shape: Shape) -> None:
        await self._collect(Path(shape.view))

    async def _collect(self, directory: Path) -> None:
        """Make changes of a view; what cannot be done now is left for the next start."""
        task = directory.name.rpartition(".")[0]
        try:
            async with self._locks[task]:
                view = await asyncio.to_thread(records.read_view, directory)
                if view is None:
                    await asyncio.to_thread(_remove_if_there, directory)
                else:
                    await self._collected(directory, view)
        except (SupervisorError, OSError) as error:
            log.error("changes_not_collected", task=task, error=str(error), kept=str(directory))
        finally:
            event = self._open.pop(str(directory), None)
            if event is not None:
                event.set()

    async def _collected(self, directory: Path, view: View) -> None:
        if not (directory / records.RECORD).exists():
            await asyncio.to_thread(self._empty_files, directory, view)
            reply = await self._compared(directory, view)
            kept = Kept(
                view=view,
                at=time.time(),
                changes=reply.changes,
                left_out=[*view.left_out, *reply.left_out],
                diff_cut=reply.diff_cut,
            )
            await asyncio.to_thread(self._record, directory, kept, reply.diff)
            log.info("changes_kept", task=view.task, attempt=view.attempt, changes=len(kept.changes), left_out=len(kept.left_out))
        await asyncio.to_thread(self._put_aside, directory, view)

    def _empty_files(self, directory: Path, view: View) -> None:
        """Of what a collection that was interrupted had put there."""
        empty(str(directory / records.FILES), within_s=EMPTY_S)

    async def _compared(self, directory: Path, view: View) -> Collected:
        overlay = view.mode == WorkspaceMode.OVERLAY
        with lending() as lent:
            request = Collect(
                uid=view.workspace_id.uid,
                gid=view.workspace_id.gid,
                workspace=lent.workspace(view),
                tree=lent.directory(directory / LAYERS / UPPER if overlay else directory / TREE),
                upper=overlay,
                base=lent.file(directory / records.BASE),
                files=lent.directory(directory / records.FILES),
                diff_bytes=self._config.diff_limit_bytes,
                commit=view.commit,
            )
            reply = await done(request, lent)
        assert isinstance(reply, Collected)
        return reply

    def _record(self, directory: Path, kept: Kept, diff: str) -> None:
        (directory / records.DIFF).write_text(diff, encoding="utf-8")
        REAL_FILES.sync_all(directory)
        records.written(directory / records.RECORD, kept)

    def _put_aside(self, directory: Path, view: View) -> None:
        """What is recorded takes the place of an earlier attempt's, and the view itself is removed."""
        place = self._kept / view.task
        older = records.read_kept(place)
        if older is not None and older.view.attempt > view.attempt:
            _remove(directory)
            return
        if (place / records.INTENT).exists():
            raise SupervisorError("the changes of an earlier attempt are still being applied.", field=str(place))
        for left in (TREE, LAYERS):
            _remove_if_there(directory / left)
        _remove_if_there(place)
        directory.rename(place)
        REAL_FILES.sync_directory(self._kept)
        for over in (records.BASE, records.VIEW):
            (place / over).unlink(missing_ok=True)

    # After a start

    async def recover(self, in_use: Collection[str]) -> None:
        """Finish, or take back, what was being applied; views that nobody has any more become changes in the background."""
        for directory in sorted(self._kept.iterdir()):
            if (directory / records.INTENT).exists():
                await self._resumed(directory)
        left = [directory for directory in self._views.iterdir() if directory.is_dir()]
        for directory in left:
            self._open[str(directory)] = asyncio.Event()
        self._jobs.spawn(self._collect_all([directory for directory in left if str(directory) not in in_use]))

    async def _collect_all(self, directories: list[Path]) -> None:
        for directory in sorted(directories):
            await self._collect(directory)

    async def aclose(self) -> None:
        """What is being applied is finished by the next start."""
        self._jobs.cancel()
        await self._jobs.ended()

    async def _resumed(self, directory: Path) -> None:
        try:
            kept = await asyncio.to_thread(records.read_kept, directory)
            if kept is None:
                return
            with lending() as lent:
                request = Resume(
                    uid=kept.view.workspace_id.uid,
                    gid=kept.view.workspace_id.gid,
                    workspace=lent.workspace(kept.view),
                    intent=lent.file(directory / records.INTENT, os.O_RDWR),
                    staging=_staging(kept),
                )
                reply = await done(request, lent)
            assert isinstance(reply, Applied)
            log.info(
                "apply_resumed", task=kept.view.task, applied=reply.applied, conflicts=[_told(one) for one in reply.conflicts]
            )
            await asyncio.to_thread(self._settle, directory, kept, "applied" if reply.applied else "kept")
        except (SupervisorError, OSError) as error:
            log.error("apply_not_resumed", directory=str(directory), error=str(error), kept="as it is, for the next start")

    # Changes

    async def ready(self, task: str) -> None:
        """Return when no view of the task waits to become changes."""
        for directory, event in list(self._open.items()):
            if Path(directory).name.rpartition(".")[0] == task:
                await event.wait()

    async def kept(self, task: str) -> tuple[Kept, str]:
        """The changes of a task, and their diff. Raises NotFound."""
        directory = self._kept / task
        async with self._locks[task]:
            return await asyncio.to_thread(self._read, directory, task)

    def _read(self, directory: Path, task: str) -> tuple[Kept, str]:
        kept = records.read_kept(directory)
        if kept is None:
            raise NotFound(f"no changes of task {task} are kept.", field="task", hint="It has not run, or it is forgotten.")
        with contextlib.suppress(FileNotFoundError):
            return kept, (directory / records.DIFF).read_text(encoding="utf-8")
        return kept, ""

    async def conflicts(self, task: str) -> list[Conflict]:
        """What stands against applying them now. Raises SupervisorError."""
        async with self._locks[task]:
            kept, _ = await asyncio.to_thread(self._read, self._kept / task, task)
            if kept.state != "kept" or kept.view.commit:
                return []
            return (await self._apply(self._kept / task, kept, only_look=True)).conflicts

    async def apply(self, task: str, *, protected: bool) -> int:
        """Carry the changes of a task over into its workspace, all or none; gives how many.

        Raises SupervisorError: CONFLICT, naming what stands against it, or another.
        """
        # A client that goes away does not stop it half-way.
        job = asyncio.get_running_loop().create_task(self._applied(task, protected=protected))
        self._jobs.spawn(_heard(job))
        return await asyncio.shield(job)

    async def _applied(self, task: str, *, protected: bool) -> int:
        directory = self._kept / task
        async with self._locks[task]:
            kept, _ = await asyncio.to_thread(self._read, directory, task)
            _refuse_settled(kept)
            if kept.view.commit:
                await self._committed(directory, kept)
                await asyncio.to_thread(self._settle, directory, kept, "applied")
                return len(kept.changes)
            if not protected:
                _refuse_protected(kept)
            try:
                reply = await self._apply(directory, kept)
            except SupervisorError:
                if (directory / records.INTENT).exists():
                    await self._resumed(directory)
                raise
            await asyncio.to_thread(self._settle, directory, kept, "applied" if reply.applied else "kept")
            if not reply.applied:
                raise _conflicting(reply.conflicts)
            return len(kept.changes)

    async def _apply(self, directory: Path, kept: Kept, *, only_look: bool = False) -> Applied:
        with lending() as lent:
            intent = os.devnull if only_look else await asyncio.to_thread(_made, directory / records.INTENT)
            request = Apply(
                uid=kept.view.workspace_id.uid,
                gid=kept.view.workspace_id.gid,
                workspace=lent.workspace(kept.view),
                files=lent.directory(directory / records.FILES),
                intent=lent.file(Path(intent), os.O_RDWR),
                staging=_staging(kept),
                changes=kept.changes,
                only_look=only_look,
            )
            reply = await done(request, lent)
        assert isinstance(reply, Applied)
        return reply

    async def _committed(self, directory: Path, kept: Kept) -> None:
        """On a branch, where nothing can stand against it and nothing is run. Done twice, it is done once."""
        view = kept.view
        with lending() as lent:
            request = Commit(
                uid=view.workspace_id.uid,
                gid=view.workspace_id.gid,
                workspace=lent.workspace(view),
                files=lent.directory(directory / records.FILES),
                branch=branch_of(view.task),
                base=view.commit,
                message=f"Changes of task {view.task}, attempt {view.attempt}",
                at=kept.at,
                changes=kept.changes,
            )
            await done(request, lent)

    async def discard(self, task: str) -> int:
        """Throw the changes of a task away; gives how many. Raises SupervisorError."""
        directory = self._kept / task
        async with self._locks[task]:
            kept, _ = await asyncio.to_thread(self._read, directory, task)
            _refuse_settled(kept)
            await asyncio.to_thread(self._settle, directory, kept, "discarded")
            return len(kept.changes)

    def _settle(self, directory: Path, kept: Kept, state: str) -> None:
        """Note what has become of the changes; their contents are of use only while they are kept."""
        if state != "kept":
            settled = msgspec.structs.replace(kept, state=state, settled_at=time.time())
            records.written(directory / records.RECORD, settled)
        (directory / records.INTENT).unlink(missing_ok=True)
        if state != "kept":
            _remove_if_there(directory / records.FILES)
        if state == "discarded":
            (directory / records.DIFF).unlink(missing_ok=True)

    # Of tasks that are forgotten

    def size(self, task: str) -> int:
        """Bytes on disk. May run in a thread."""
        return records.bytes_of(self._kept / task)

    def remove(self, task: str) -> None:
        """May run in a thread; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            _remove_if_there(self._kept / task)


async def _heard(job: asyncio.Task[int]) -> None:
    """Keep a job, and end it when we are cancelled; who asked for it hears of its failure."""
    try:
        await job
    except SupervisorError as error:
        log.info("not_applied", reason=str(error))
    finally:
        job.cancel()


def _made(path: Path) -> Path:
    """An empty file whose name is on disk."""
    REAL_FILES.close(REAL_FILES.create(path))
    REAL_FILES.sync_directory(path.parent)
    return path


def _remove(directory: Path) -> None:
    empty(str(directory), within_s=EMPTY_S)
    directory.rmdir()


def _remove_if_there(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        _remove(directory)


def _staging(kept: Kept) -> str:
    return f".agent-supervisor-{kept.view.task}"


def _refuse_settled(kept: Kept) -> None:
    if kept.state != "kept":
        raise InvalidInput(f"the changes of task {kept.view.task} were {kept.state} already.", field="task")


def _refuse_protected(kept: Kept) -> None:
    paths = [path for change in kept.changes for path in protected_of(change, kept.view.protected)]
    if paths:
        raise SandboxRefused(
            f"{len(paths)} of the changes are to files that are run, or say what is run, outside the sandbox: {_listed(paths)}.",
            kept="Nothing was applied; the changes are kept.",
            hint="Look at them with `agentctl changes`; to apply them too: agentctl apply --protected",
        )


def _conflicting(conflicts: list[Conflict]) -> SupervisorError:
    told = "; ".join(map(_told, conflicts[:NAMED])) + (f"; and {len(conflicts) - NAMED} more" if len(conflicts) > NAMED else "")
    return SupervisorError(
        f"the workspace has changed since the task began: {told}.",
        kept="Nothing was applied; the changes are kept.",
        hint="Put these files back as they were, or discard the changes and submit the task anew.",
        code=ErrorCode.CONFLICT,
    )


def _told(conflict: Conflict) -> str:
    return f"{quoted(conflict.path)}: {conflict.why}"


def _listed(paths: list[bytes]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(quoted(path) for path in paths[:NAMED]) + more
