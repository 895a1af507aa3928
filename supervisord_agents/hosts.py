"""Lists of hosts, as the configuration writes them: `host`, `*.domain`, each with `:port` if the port is not 443."""

from __future__ import annotations

import re
from collections.abc import Iterable

from supervisord_agents.errors import ConfigError

DEFAULT_PORT = 443
MAX_PORTS = 16
"""Different ones in all lists that are for one worker: each costs the daemon a descriptor a worker."""
MAX_NAME = 253
"""Characters of a host name (RFC 1035, 3.1: 255 bytes with their lengths)."""
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last part that makes an address of the whole (WHATWG URL, "ends in a number"); inet_aton(3) reads those too."""


class AllowedHosts:
    """What a worker may reach. `(host, port) in allowed` is the whole question."""

    def __init__(self, entries: Iterable[str], field: str = "gateway.allowed_hosts") -> None:
        """Raises ConfigError, naming the field: an entry is no name, a wildcard over a top-level domain, or one port too many."""
        self._exact: set[tuple[str, int]] = set()
        self._suffixes: set[tuple[str, int]] = set()
        for entry in entries:
            name, port = _entry(entry, field)
            if name.startswith("*."):
                self._suffixes.add((name[1:], port))
            else:
                self._exact.add((name, port))
        if len(self.ports) > MAX_PORTS:
            raise ConfigError(f"more than {MAX_PORTS} different ports.", field=field, hint="Name fewer ports.")

    def __contains__(self, target: tuple[str, int]) -> bool:
        host, port = target
        host = host.lower().removesuffix(".")
        if (host, port) in self._exact:
            return True
        return any(port == allowed and host.endswith(suffix) for suffix, allowed in self._suffixes)

    def on_any_port(self, host: str) -> bool:
        """Whether some port of a host may be reached."""
        return any((host, port) in self for port in self.ports)

    @property
    def ports(self) -> frozenset[int]:
        """Those that any host may be reached on."""
        return frozenset(port for _, port in self._exact | self._suffixes)

    @property
    def names(self) -> frozenset[str]:
        """The hosts that are named in full."""
        return frozenset(name for name, _ in self._exact)


def is_name(host: str) -> bool:
    """True for a host name that can be looked up: ASCII (others have an `xn--` form), no part empty or too long, no address."""
    labels = host.lower().removesuffix(".").split(".")
    return len(host) <= MAX_NAME and all(map(_LABEL.fullmatch, labels)) and not _NUMBER.fullmatch(labels[-1])


def _entry(entry: str, field: str) -> tuple[str, int]:
    name, colon, port = entry.lower().partition(":")
    if colon and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ConfigError(f"`{entry}` does not end in a port.", field=field)
    name = name.removesuffix(".")
    domain = name.removeprefix("*.")
    if name == "*" or (domain != name and "." not in domain):
        raise ConfigError(f"`{entry}` would allow a whole top-level domain.", field=field, hint="Name the domain itself.")
    if not is_name(domain):
        raise ConfigError(f"`{entry}` is not a host name.", field=field, hint="Write `host.example.org` or `*.example.org`.")
    return name, int(port) if colon else DEFAULT_PORT
