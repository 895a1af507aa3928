"""Names to addresses, in threads of the gateway's own: a name server that hangs must not hold the threads that others use."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS = 8


class Resolver(AbstractResolver):
    """getaddrinfo(3) for outgoing connections."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway-dns")

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host in the system's order of preference; raises OSError if there are none."""
        return [item["host"] for item in await self.resolve(host, port, socket.AF_UNSPEC)]

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        flags = socket.AI_ADDRCONFIG
        try:
            found = await loop.run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)
            )
        except UnicodeError as error:
            # What the `idna` codec says to a part that is empty or too long.
            raise socket.gaierror(socket.EAI_NONAME, f"no host name: {error}") from None
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        # Not waited for: a look-up that hangs would keep the daemon from stopping.
        self._threads.shutdown(wait=False, cancel_futures=True)
