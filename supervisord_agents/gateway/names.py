"""What a worker's names are answered with: an address of its own loopback for each, which stands for the name.

A connection to that address comes to the gateway, which knows by it what host is meant. The address follows from the name alone,
so one that a program has kept for too long leads to the same name as before, or nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address

FIRST = int(IPv4Address("127.64.0.0"))
COUNT = 1 << 22
"""127.64.0.0/10: no program has servers of its own there."""
MAX_NAMES = 1024
"""That one task may ask for, by way of wildcards."""


class Names:
    """The names of one worker, and their addresses."""

    def __init__(self, lasting: Iterable[str]) -> None:
        """`lasting` are names that are known from the beginning, and never forgotten."""
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}
        for name in sorted(lasting):
            self._add(name)
        self._lasting = len(self._names)

    def address_of(self, name: str) -> str | None:
        """The address for a name in lower case; None if there are too many of them."""
        found = self._addresses.get(name)
        if found is None and len(self._names) < self._lasting + MAX_NAMES:
            return self._add(name)
        return found

    def name_of(self, address: str) -> str | None:
        """The name that an address stands for, if it was given out."""
        return self._names.get(address)

    def forget(self) -> None:
        """All but the lasting ones."""
        for name in list(self._addresses)[self._lasting :]:
            del self._names[self._addresses.pop(name)]

    def _add(self, name: str) -> str:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        address = _nth(number)
        while address in self._names:
            number += 1
            address = _nth(number)
        self._addresses[name], self._names[address] = address, name
        return address


def _nth(number: int) -> str:
    return str(IPv4Address(FIRST + number % COUNT))
