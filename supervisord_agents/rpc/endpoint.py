"""The socket file: made, checked for an earlier owner, removed."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from supervisord_agents.errors import InvalidInput, Unavailable

MAX_PATH_BYTES = 107
"""sun_path of unix(7), less the final zero."""
DIRECTORY_MODE = 0o750
SOCKET_MODE = 0o660


def check_length(path: Path) -> None:
    """Raises InvalidInput if the kernel could not take the path."""
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise InvalidInput(
            f"the path of the socket is {size} bytes long, the kernel takes {MAX_PATH_BYTES}.",
            field=str(path),
            hint="Choose a shorter daemon.socket (or --socket).",
        )


class Endpoint:
    """A bound Unix socket and the file that it left."""

    def __init__(self, sock: socket.socket, path: Path | None, identity: tuple[int, int]) -> None:
        self.sock = sock
        self._path = path
        self._identity = identity

    @classmethod
    def given(cls, sock: socket.socket) -> Endpoint:
        """One that systemd made: its file is left alone."""
        return cls(sock, None, (0, 0))

    @classmethod
    def bind(cls, path: Path) -> Endpoint:
        """A new one, replacing a file that a dead daemon left.

        Raises Unavailable if somebody still answers there, InvalidInput if the path cannot be used.
        """
        check_length(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _make_directory(path.parent)
            _bind(sock, path)
            # bind(2) gave it the umask's mode; until now the directory and the check of each peer kept others out.
            path.chmod(SOCKET_MODE)
            return cls(sock, path, _identity(path))
        except OSError as error:
            sock.close()
            raise InvalidInput(
                f"cannot listen here: {error.strerror}.", field=str(path), hint="Set daemon.socket (or --socket) to another path."
            ) from error
        except BaseException:
            sock.close()
            raise

    def remove(self) -> None:
        """Remove the file, unless another daemon has put its own there."""
        if self._path is None:
            return
        try:
            if _identity(self._path) == self._identity:
                self._path.unlink()
        except FileNotFoundError:
            pass


def _make_directory(directory: Path) -> None:
    if not directory.exists():
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(DIRECTORY_MODE)


def _bind(sock: socket.socket, path: Path) -> None:
    try:
        sock.bind(str(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        _remove_stale(path)
        sock.bind(str(path))


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise InvalidInput("a file that is no socket lies here; it was left alone.", field=str(path), hint="Move it away.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue is full: somebody is there
            pass
    raise Unavailable(
        "a supervisor already listens here.", field=str(path), hint="Stop it first, or give this one another socket."
    )


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
