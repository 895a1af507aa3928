"""Result files: `results/task_<id>.json`, whole or not there at all.

A file is written under a temporary name and renamed. Small results are not synced one by one: the journal holds them too and
recovery writes a lost file again. Results too large for the journal are synced before their event is journalled.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import msgspec

from supervisord_agents.core.model import Result
from supervisord_agents.errors import DiskFull, NotFound, SupervisorError

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_libc = ctypes.CDLL(None, use_errno=True)
_decoder = msgspec.json.Decoder(Result)


class ResultStore:
    """The results of one state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, task: str) -> Path:
        return self.directory / f"task_{task}.json"

    def write(self, result: Result, *, sync: bool = False) -> Path:
        """Replace the task's result. With `sync` it is on disk when this returns.

        Raises DiskFull, or SupervisorError for any other failure of the file system; the old file is then still whole.
        """
        path = self.path(result.task_id)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(msgspec.json.encode(result) + b"\n")
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
            if sync:
                self._sync_directory()
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _write_error(path, error) from error
        return path

    def read(self, task: str) -> Result:
        """The task's result; raises NotFound while there is none, SupervisorError if the file is damaged."""
        path = self.path(task)
        try:
            return _decoder.decode(path.read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"task {task} has no result yet.", hint=f"Wait for it: agentctl wait {task}") from error
        except msgspec.DecodeError as error:
            raise SupervisorError(
                f"the result file is damaged: {error}.",
                field=str(path),
                hint=f"Run the task again: agentctl retry {task}",
            ) from error

    def intact(self, task: str) -> bool:
        """True if a file of the task is there and not empty (what a power cut leaves of an unsynced file)."""
        try:
            return self.path(task).stat().st_size > 0
        except FileNotFoundError:
            return False

    def sync_all(self) -> None:
        """Put every result written so far on disk, by syncfs(2) of the file system they lie on."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _libc.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise _write_error(self.directory, OSError(number, os.strerror(number)))
        finally:
            os.close(descriptor)

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_error(path: Path, error: OSError) -> SupervisorError:
    if error.errno in DISK_FULL_ERRNOS:
        return DiskFull(f"no space to write it: {error.strerror}.", field=str(path), hint="Free some space; the task is kept.")
    return SupervisorError(f"cannot be written: {error}.", field=str(path), hint="Check the state directory.")
