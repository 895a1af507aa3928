"""What every command has at hand: the output, the configuration, and the way to the daemon."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.output import Output
from supervisord_agents.errors import Unavailable

if TYPE_CHECKING:
    from supervisord_agents.config import Config
    from supervisord_agents.rpc.client import Client

CLIENT_NAME = "agentctl"
SOCKET_ENV = "AGENT_SUPERVISOR_SOCKET"
SYSTEM_SOCKET = Path("/run/agent-supervisor/supervisor.sock")
PATIENCE_S = 60.0
"""How long a waiting command gives a daemon that went away to come back."""
RECONNECT_EVERY_S = 0.2
T = TypeVar("T")


class Session:
    """One run of agentctl."""

    def __init__(self, arguments: argparse.Namespace, output: Output) -> None:
        self._arguments = arguments
        self.output = output

    @cached_property
    def config_path(self) -> Path | None:
        """The file of `--config`, else the first of the usual ones, else None."""
        from supervisord_agents.config import find_config

        named: Path | None = self._arguments.config
        return named or find_config()

    @cached_property
    def config(self) -> Config:
        """The configuration; raises ConfigError."""
        from supervisord_agents.config import load

        return load(self.config_path)

    @cached_property
    def socket(self) -> Path:
        """Where the daemon listens: `--socket`, $AGENT_SUPERVISOR_SOCKET, the configured path, else the system service's."""
        named = self._arguments.socket or os.environ.get(SOCKET_ENV)
        if named:
            return Path(named)
        from supervisord_agents.config import socket_path

        path = socket_path(self.config)
        if not self.config.daemon.socket and not path.exists() and SYSTEM_SOCKET.exists():
            return SYSTEM_SOCKET
        return path

    def connect(self) -> Awaitable[Client]:
        """A connected client; raises Unavailable."""
        from supervisord_agents.rpc.client import Client

        return Client.connect(self.socket, name=CLIENT_NAME)

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do the work with one client, on an event loop of its own."""

        async def with_client() -> T:
            async with await self.connect() as client:
                return await work(client)

        return asyncio.run(with_client())

    def run_patiently(self, work: Callable[[Client], Awaitable[T]], patience_s: float = PATIENCE_S) -> T:
        """Do the work; if the daemon goes away under it, wait until it is back and do the work again.

        The first connection must succeed at once. Raises Unavailable when the daemon stays away for `patience_s`.
        """
        return asyncio.run(self._patiently(work, patience_s))

    async def _patiently(self, work: Callable[[Client], Awaitable[T]], patience_s: float) -> T:
        client = await self.connect()
        while True:
            try:
                async with client:
                    return await work(client)
            except Unavailable:
                self.output.note("the supervisor went away; waiting for it to come back …")
            client = await self._connect_again(patience_s)

    async def _connect_again(self, patience_s: float) -> Client:
        until = time.monotonic() + patience_s
        while True:
            await asyncio.sleep(RECONNECT_EVERY_S)
            try:
                return await self.connect()
            except Unavailable:
                if time.monotonic() > until:
                    raise


Command = Callable[[Session, argparse.Namespace], Exit]
