"""A real daemon for tests: its own state, socket and configuration, ended by pid at the end of the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import ClassVar

from supervisord_agents.errors import SupervisorError
from supervisord_agents.rpc.client import Client
from tests.support.fork_server import end_server

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


AT_ONCE = '[pools.standard]\nscaling = "on-demand"\n'
"""Where a test says nothing: a pool that need not grow first."""


class DaemonProcess:
    """`agent-supervisor` in a directory of its own; may be killed and started again on the same state."""

    brings_probe = True
    """A new one finds in its state what an earlier one of this test run has found by trying the sandbox, which takes a second;
    it believes that only in the same circumstances (sandbox/probe_cache.py)."""
    _probe: ClassVar[bytes] = b""

    def __init__(self, directory: Path, config: str = "") -> None:
        self.directory = directory
        self.state = directory / "state"
        self.socket = directory / "supervisor.sock"
        self.log = directory / "daemon.log"
        self.config = directory / "config.toml"
        self.config.write_text(config or AT_ONCE)
        self.environment = {**os.environ, "AGENT_SUPERVISOR_CONFIG": str(self.config)}
        self.argv = [str(BIN / "agent-supervisor")]
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """Start it and return at once."""
        argv = [*self.argv, "--socket", str(self.socket), "--state-dir", str(self.state)]
        ours = self.directory.stat().st_uid == os.geteuid()  # another user makes his own state
        if self.brings_probe and DaemonProcess._probe and ours and not self.state.exists():
            self.state.mkdir(mode=0o750)
            (self.state / "probe.json").write_bytes(DaemonProcess._probe)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd="/")

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self.spawn()
        async with self.client():
            pass

    @contextmanager
    def running(self) -> Iterator[DaemonProcess]:
        """Started, for who has no loop; closed at the end, whatever happens."""
        try:
            asyncio.run(self.start())
            yield self
        finally:
            self.close()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client, as soon as the daemon answers."""
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                client = await Client.connect(self.socket, name="test", timeout_s=5.0)
                break
            except SupervisorError:
                self.assert_alive()
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.01)
        if self.brings_probe and not DaemonProcess._probe:
            with contextlib.suppress(OSError):
                DaemonProcess._probe = (self.state / "probe.json").read_bytes()
        try:
            yield client
        finally:
            await client.aclose()

    def assert_alive(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.log_text()}"

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=30)

    def close(self) -> None:
        """End it if it still runs, and what a killed one has left."""
        self._stop_or_kill()
        end_server(self.state / "spawner.sock")

    def _stop_or_kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
            if self.process.poll() is None:
                self.kill()

    def agentctl(self, *arguments: str, stdin: str = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run the real agentctl against this daemon."""
        argv = [str(BIN / "agentctl"), "--socket", str(self.socket), *arguments]
        return subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=self.environment, timeout=timeout_s, check=False
        )
