"""Which hosts a worker may reach by CONNECT, and the tunnel to them.

A name is allowed by the configuration, then resolved here, once; every address must be a global one, and the connection goes to
exactly an address that was checked, so a name that changes its mind between check and use (DNS rebinding) gains nothing.
Ranges: the IANA special-purpose registries, as the `ipaddress` module has them, and IPv4 addresses inside IPv6 ones.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence

from supervisord_agents.errors import ConfigError

DEFAULT_PORT = 443
CHUNK_BYTES = 64 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses; raises OSError."""
Dial = Callable[[str, int], Awaitable[Streams]]
"""Address and port to a connection; raises OSError."""

MAX_NAME = 253
"""Characters of a host name (RFC 1035, 3.1: 255 bytes with their lengths)."""
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Denied(Exception):
    """The policy says no; the text is for the worker."""


class AllowedHosts:
    """The list `gateway.allowed_hosts`: `host`, `*.domain`, each with `:port` if the port is not 443."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Raises ConfigError for an entry that is no name, or a wildcard over a whole top-level domain."""
        self._exact: set[tuple[str, int]] = set()
        self._suffixes: set[tuple[str, int]] = set()
        for entry in entries:
            name, port = _entry(entry)
            if name.startswith("*."):
                self._suffixes.add((name[1:], port))
            else:
                self._exact.add((name, port))

    def __contains__(self, target: tuple[str, int]) -> bool:
        host, port = target
        host = host.lower().removesuffix(".")
        if (host, port) in self._exact:
            return True
        return any(port == allowed and host.endswith(suffix) for suffix, allowed in self._suffixes)


def _entry(entry: str) -> tuple[str, int]:
    field = "gateway.allowed_hosts"
    name, colon, port = entry.lower().partition(":")
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"`{entry}` does not end in a port.", field=field)
    name = name.removesuffix(".")
    domain = name.removeprefix("*.")
    if name == "*" or (domain != name and "." not in domain):
        raise ConfigError(f"`{entry}` would allow a whole top-level domain.", field=field, hint="Name the domain itself.")
    if not is_name(domain):
        raise ConfigError(f"`{entry}` is not a host name.", field=field, hint="Write `host.example.org` or `*.example.org`.")
    return name, int(port) if colon else DEFAULT_PORT


def is_name(host: str) -> bool:
    """True for a host name that can be looked up: ASCII (others have an `xn--` form), no part empty or too long, no address."""
    labels = host.lower().removesuffix(".").split(".")
    return len(host) <= MAX_NAME and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def parse_authority(text: str) -> tuple[str, int]:
    """Host and port of a CONNECT request's target (RFC 9112, 3.2.3); raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"not host:port: {text[:100]!r}")
    if is_name(host):
        return host, int(port)
    address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"not a host name or an address: {host[:100]!r}") from None
    return address, int(port)


def is_global(address: str) -> bool:
    """True if the address is one of the public Internet, and not a wrapping of one that is not."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_global(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


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
