"""Result files: `results/task_<id>.json`, whole or not there at all.

A file is written under a temporary name and renamed. Small results are not synced one by one: the journal holds them too and
recovery writes a lost file again. Results too large for the journal are synced before their event is journalled.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

import msgspec
import structlog

from supervisord_agents.core.model import Result
from supervisord_agents.errors import DiskFull, NotFound, SupervisorError
from supervisord_agents.journal.files import NO_SPACE, REAL_FILES

STAGING = ".staging"
"""Directory of temporary files; what a crash leaves there is removed at the next start."""
_libc = ctypes.CDLL(None, use_errno=True)
_decoder = msgspec.json.Decoder(Result)
log = structlog.get_logger()


class Stamp(msgspec.Struct, frozen=True):
    """Which attempt a result file tells of, and how it says that ended."""

    attempt: int = 0
    status: str = ""


_stamp_decoder = msgspec.json.Decoder(Stamp)


class ResultStore:
    """The results of one state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._staging = directory / STAGING
        self._unwritten: dict[str, Result] = {}
        """Small results that the disk refused; the journal holds them too."""
        self._staging.mkdir(parents=True, exist_ok=True)
        # A file in it is no more durable than its own name is; an earlier daemon may have made it and been killed.
        for path in (directory.parent, directory):
            REAL_FILES.sync_directory(path)
        for left in self._staging.iterdir():
            left.unlink()

    def path(self, task: str) -> Path:
        return self.directory / f"task_{task}.json"

    def put(self, result: Result) -> None:
        """Replace the task's result. One that the disk refuses is kept, answered from memory, and written by `write_kept`."""
        self._unwritten.pop(result.task_id, None)
        try:
            self.publish(result.task_id, self._written(result, sync=False))
        except (OSError, SupervisorError) as error:
            log.error("result_not_written", task=result.task_id, error=str(error), kept="in the journal")
            self._unwritten[result.task_id] = result

    def stage(self, result: Result) -> Path:
        """Put a result on disk under a name of its own, for `publish`. May run in a thread.

        Raises DiskFull, or SupervisorError for any other failure of the file system; nothing is left then.
        """
        return self._written(result, sync=True)

    def publish(self, task: str, staged: Path) -> None:
        """Make a staged file the task's result. It is durable after `sync_names`. Raises OSError."""
        os.replace(staged, self.path(task))
        self._unwritten.pop(task, None)

    def sync_names(self) -> None:
        """Make what was published durable. Raises OSError."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @property
    def kept(self) -> int:
        """How many results wait for the disk."""
        return len(self._unwritten)

    def write_kept(self) -> None:
        """Try again to write what the disk has refused."""
        for result in list(self._unwritten.values()):
            with contextlib.suppress(OSError, SupervisorError):
                self.publish(result.task_id, self._written(result, sync=False))

    def read(self, task: str) -> Result:
        """The task's result; raises NotFound while there is none, SupervisorError if the file is damaged or cannot be read."""
        if task in self._unwritten:
            return self._unwritten[task]
        path = self.path(task)
        try:
            return _decoder.decode(path.read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"task {task} has no result yet.", hint=f"Wait for it: agentctl wait {task}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise SupervisorError(
                f"the result file cannot be read: {error}.",
                field=str(path),
                hint=f"Run the task again: agentctl retry {task}",
            ) from error

    def stamp(self, task: str) -> Stamp | None:
        """Which attempt the task's file tells of; None if there is no whole file."""
        if task in self._unwritten:
            return Stamp(self._unwritten[task].attempt, self._unwritten[task].status)
        try:
            return _stamp_decoder.decode(self.path(task).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def size(self, task: str) -> int:
        """Bytes of the task's file; 0 without one."""
        try:
            return self.path(task).stat().st_size
        except OSError:
            return 0

    def sync_all(self) -> None:
        """Put every result written so far on disk, by syncfs(2) of the file system they lie on. May run in a thread.

        Raises DiskFull or SupervisorError; also while results are kept in memory, which only the journal would survive.
        """
        if self._unwritten:
            raise SupervisorError(f"{self.kept} results could not be written.", field=str(self.directory))
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _libc.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise _write_error(self.directory, OSError(number, os.strerror(number)))
        finally:
            os.close(descriptor)

    def _written(self, result: Result, *, sync: bool) -> Path:
        data = msgspec.json.encode(result) + b"\n"
        temporary = self._staging / f"{result.task_id}.{result.attempt}.{result.status}"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _write_error(self.path(result.task_id), error) from error
        return temporary


def _write_error(path: Path, error: OSError) -> SupervisorError:
    if error.errno in NO_SPACE:
        return DiskFull(f"no space to write it: {error.strerror}.", field=str(path), hint="Free some space; the task is kept.")
    return SupervisorError(f"cannot be written: {error}.", field=str(path), hint="Check the state directory.")
