"""Result files: `results/task_<id>.json`, whole or not there at all.

A file is written under a temporary name and renamed. Small results are not synced one by one: the journal holds them too and
recovery writes a lost file again. Results too large for the journal are synced before their event is journalled.
"""

from __future__ import annotations

import contextlib
from itertools import count
from pathlib import Path

import msgspec
import structlog

from supervisord_agents.core.model import Result
from supervisord_agents.errors import DiskFull, NotFound, SupervisorError
from supervisord_agents.journal.files import NO_SPACE, REAL_FILES, Files, make_directory

STAGING = ".staging"
"""Directory of temporary files; what a crash leaves there is removed at the next start."""
_decoder = msgspec.json.Decoder(Result)
log = structlog.get_logger()


class ResultStore:
    """The results of one state directory. Raises SupervisorError if that cannot be written."""

    def __init__(self, directory: Path, files: Files = REAL_FILES) -> None:
        self.directory = directory
        self._staging = directory / STAGING
        self._files = files
        self._numbers = count()
        self._unwritten: dict[str, Result] = {}
        """Small results that the disk refused; the journal holds them too."""
        self._held: dict[str, Result] = {}
        """Small results whose turn to be written has not come yet."""
        try:
            # A file in it is no more durable than its own name is; an earlier daemon may have made it and been killed.
            for path in (directory, self._staging):
                make_directory(path, 0o777, files)
            for left in files.names(self._staging):
                files.remove(self._staging / left)
        except OSError as error:
            raise _write_error(directory, error) from error

    def path(self, task: str) -> Path:
        return self.directory / f"task_{task}.json"

    def put(self, result: Result) -> None:
        """Replace the task's result. One that the disk refuses is kept, answered from memory, and written by `write_kept`."""
        self._forget(result.task_id)
        try:
            self.publish(result.task_id, self._written(result, sync=False))
        except (OSError, SupervisorError) as error:
            log.error("result_not_written", task=result.task_id, error=str(error), kept="in the journal")
            self._unwritten[result.task_id] = result

    def hold(self, result: Result) -> None:
        """Replace the task's result in memory, from where it is answered, until `put_held`."""
        self._held[result.task_id] = result

    def put_held(self, task: str) -> None:
        """Write what is held of a task, if that has not been replaced meanwhile."""
        if task in self._held:
            self.put(self._held[task])

    def put_all_held(self) -> None:
        """Write all that is held."""
        for task in list(self._held):
            self.put_held(task)

    def stage(self, result: Result) -> Path:
        """Put a result on disk under a name of its own, for `publish`. May run in a thread.

        Raises DiskFull, or SupervisorError for any other failure of the file system; nothing is left then.
        """
        return self._written(result, sync=True)

    def publish(self, task: str, staged: Path) -> None:
        """Make a staged file the task's result. It is durable after `sync_names`. Raises OSError."""
        self._files.rename(staged, self.path(task))
        self._forget(task)

    def discard(self, staged: Path) -> None:
        """A staged file is not wanted any more; one that cannot be removed is left to the next start."""
        with contextlib.suppress(OSError):
            self._files.remove(staged)

    def sync_names(self) -> None:
        """Make what was published durable. Raises OSError."""
        self._files.sync_directory(self.directory)

    @property
    def kept(self) -> int:
        """How many results wait for the disk."""
        return len(self._unwritten)

    def write_kept(self) -> None:
        """Write what is held, and try again to write what the disk has refused."""
        self.put_all_held()
        for result in list(self._unwritten.values()):
            with contextlib.suppress(OSError, SupervisorError):
                self.publish(result.task_id, self._written(result, sync=False))

    def read(self, task: str) -> Result:
        """The task's result; raises NotFound while there is none, SupervisorError if the file is damaged or cannot be read."""
        waiting = self._held.get(task) or self._unwritten.get(task)
        if waiting is not None:
            return waiting
        path = self.path(task)
        try:
            return _decoder.decode(self._files.read(path))
        except FileNotFoundError as error:
            raise NotFound(f"task {task} has no result yet.", hint=f"Wait for it: agentctl wait {task}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise SupervisorError(
                f"the result file cannot be read: {error}.",
                field=str(path),
                hint=f"Run the task again: agentctl retry {task}",
            ) from error

    def size(self, task: str) -> int:
        """Bytes of the task's file; 0 without one."""
        try:
            return self._files.size(self.path(task))
        except OSError:
            return 0

    def remove(self, task: str) -> None:
        """Of a task that is forgotten; durable after `sync_names`. May run in a thread; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            self._files.remove(self.path(task))

    def sync_all(self) -> None:
        """Put every result written so far on disk, by syncfs(2) of the file system they lie on. May run in a thread.

        Raises DiskFull or SupervisorError; also while results are kept in memory, which only the journal would survive.
        """
        if self._unwritten:
            raise SupervisorError(f"{self.kept} results could not be written.", field=str(self.directory))
        try:
            self._files.sync_all(self.directory)
        except OSError as error:
            raise _write_error(self.directory, error) from error

    def _forget(self, task: str) -> None:
        """What waits of a task is replaced."""
        self._held.pop(task, None)
        self._unwritten.pop(task, None)

    def _written(self, result: Result, *, sync: bool) -> Path:
        data = msgspec.json.encode(result) + b"\n"
        temporary = self._staging / f"{result.task_id}.{result.attempt}.{next(self._numbers)}"
        try:
            descriptor = self._files.create(temporary, 0o666)
            try:
                self._files.write(descriptor, data, 0)
                if sync:
                    self._files.sync(descriptor)
            finally:
                self._files.close(descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._files.remove(temporary)
            raise _write_error(self.path(result.task_id), error) from error
        return temporary


def _write_error(path: Path, error: OSError) -> SupervisorError:
    if error.errno in NO_SPACE:
        return DiskFull(f"no space to write it: {error.strerror}.", field=str(path), hint="Free some space; the task is kept.")
    return SupervisorError(f"cannot be written: {error}.", field=str(path), hint="Check the state directory.")
