"""A Redis server of one's own, on a Unix socket.

Durable: appendonly yes, appendfsync always, which syncs the append-only file before it answers; everysec may lose a second, no
leaves it to the kernel ("Redis persistence", redis.io). Snapshots are off: the append-only file is what is compared.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

from benchmarks.peers.children import Child
from benchmarks.peers.peer import Absent


class RedisServer:
    def __init__(self, directory: Path, appendfsync: str) -> None:
        self.directory = directory / "redis"
        self.socket = self.directory / "s"
        self._appendfsync = appendfsync
        self.child: Child | None = None

    def start(self) -> None:
        """Start it on what is there, and wait until it is ready."""
        if shutil.which("redis-server") is None:
            raise Absent("redis-server is not installed")
        self.directory.mkdir(exist_ok=True)
        argv = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory), "--save", ""]
        argv += ["--appendonly", "yes", "--appendfsync", self._appendfsync, "--logfile", "", "--maxclients", "1000"]
        self.child = Child(argv, self.directory / "log")
        self.child.wait_until(self._answers, "Redis")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith(b"+PONG")

    def kill(self) -> None:
        assert self.child is not None
        self.child.kill()

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop(signal.SIGTERM)

    @property
    def pids(self) -> list[int]:
        assert self.child is not None
        return [self.child.pid]


def version() -> str:
    """Raises Absent."""
    if shutil.which("redis-server") is None:
        raise Absent("redis-server is not installed")
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return next(word[2:] for word in said.split() if word.startswith("v="))
