"""The door of a fork server: a socket in the file system where a successor of its client finds it, and the sandboxes with it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


def listen(path: Path) -> socket.socket:
    """A door there for this user alone, in place of any that was there; the caller knows that nobody serves that one.

    Raises OSError.
    """
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # The mode that the file gets, whatever the umask (unix(7)).
        os.fchmod(door.fileno(), 0o600)
        with _short(path) as address:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)
            door.bind(address)
        door.listen()
    except BaseException:
        door.close()
        raise
    return door


def connect(path: Path) -> socket.socket | None:
    """A connection to the server behind the door, None if nobody is there."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(path) as address:
            client.connect(address)
    except (ConnectionRefusedError, FileNotFoundError, ConnectionResetError):
        client.close()
        return None
    except BaseException:
        client.close()
        raise
    return client


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for the path that fits into the 108 bytes of an address."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
