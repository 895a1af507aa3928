"""The way to a host that is allowed: to an address that was checked, and bytes both ways.

A name is resolved here, once; every address must be a global one, and the connection goes to exactly an address that was checked,
so a name that changes its mind between check and use (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence

from supervisord_agents.gateway.addresses import is_global
from supervisord_agents.hosts import is_name

CHUNK_BYTES = 64 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses; raises OSError."""
Dial = Callable[[str, int], Awaitable[Streams]]
"""Address and port to a connection; raises OSError."""


class Denied(Exception):
    """The policy says no; the text is for the worker."""


def parse_authority(text: str) -> tuple[str, int]:
    """Host and port of a CONNECT request's target (RFC 9112, 3.2.3); raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ValueError(f"not host:port: {text[:100]!r}")
    if is_name(host):
        return host, int(port)
    address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"not a host name or an address: {host[:100]!r}") from None
    return address, int(port)


async def connect(host: str, port: int, resolve: Resolve, dial: Dial) -> Streams:
    """A connection to an allowed host; raises Denied for a host that is not on the public Internet, OSError if none answers."""
    addresses = await resolve(host, port)
    local = [address for address in addresses if not is_global(address)]
    if local:
        raise Denied(f"{host} resolves to {local[0]}, which is not an address of the public Internet")
    failure: OSError = OSError(f"{host} has no address")
    for address in addresses:
        try:
            return await dial(address, port)
        except OSError as error:
            failure = error
    raise failure


async def dial(address: str, port: int) -> Streams:
    """A TCP connection to an address."""
    return await asyncio.open_connection(address, port, limit=CHUNK_BYTES)


async def relay(near: Streams, far: Streams, idle_s: float) -> None:
    """Carry bytes both ways until either side ends, or neither has sent anything for `idle_s` seconds (TimeoutError).

    What was read is written before the end. A reader waits for its writer, so a slow side slows the other down.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(idle_s) as idle:

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while chunk := await reader.read(CHUNK_BYTES):
                idle.reschedule(loop.time() + idle_s)
                writer.write(chunk)
                await writer.drain()

        pumps = {asyncio.ensure_future(pump(near[0], far[1])), asyncio.ensure_future(pump(far[0], near[1]))}
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        for task in done:
            task.result()
