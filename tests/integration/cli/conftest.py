"""A small supervisor, and the real agentctl as a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.cli.small_supervisor import SmallSupervisor

AGENTCTL = (sys.executable, "-m", "supervisord_agents.cli.main")


@dataclass
class Done:
    code: int
    out: str
    err: str


class Agentctl:
    """Runs agentctl against one socket, without any configuration of the machine."""

    def __init__(self, socket: Path, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "AGENT"))},
            "AGENT_SUPERVISOR_SOCKET": str(socket),
            "HOME": str(directory),
            "COLUMNS": "200",
        }

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> Done:
        process = await self.start(*arguments)
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *AGENTCTL,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
            cwd=self.directory,
        )


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[SmallSupervisor]:
    small = SmallSupervisor(tmp_path / "supervisor.sock")
    await small.start()
    yield small
    await small.stop()


@pytest.fixture
def agentctl(tmp_path: Path) -> Agentctl:
    return Agentctl(tmp_path / "supervisor.sock", tmp_path)
