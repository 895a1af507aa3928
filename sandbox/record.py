"""A dry run that records what a command needs: what of the host it opens, where it wants to connect, how much memory it takes.

The command runs in a sandbox as ever, with every layer, but is shown more of the host: what is in the caller's home and in
/opt, read-only, without what holds keys, tokens, history and mail (SECRETS). It cannot send any of that anywhere: there is no
network but a proxy that notes down the hosts and refuses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sandbox import places
from sandbox.errors import SandboxError
from sandbox.notify_calls import LOOKS
from sandbox.notify_events import ALLOWED, Attempt, Event
from sandbox.spec import Bind

PROXY_PORT = 8080
PROXY = f"http://127.0.0.1:{PROXY_PORT}"
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
SHOWN = ("/opt",)
"""Beside the home, where programs are put."""
SECRETS = (
    *places.KEYS,
    ".bash_login",
    ".bash_profile",
    ".bashrc",
    ".claude",
    ".claude.json",
    ".codex",
    ".config/BraveSoftware",
    ".config/chromium",
    ".config/gh",
    ".config/google-chrome",
    ".config/hub",
    ".config/op",
    ".config/opencode",
    ".config/pip",
    ".config/rclone",
    ".env",
    ".envrc",
    ".gemini",
    ".gradle/gradle.properties",
    ".local/share/TelegramDesktop",
    ".local/share/evolution",
    ".local/share/opencode",
    ".m2/settings-security.xml",
    ".m2/settings.xml",
    ".mozilla",
    ".npmrc",
    ".pgpass",
    ".profile",
    ".pypirc",
    ".qwen",
    ".thunderbird",
    ".viminfo",
    ".yarnrc.yml",
    ".zprofile",
    ".zshenv",
    ".zshrc",
    "Mail",
    "snap",
)
"""In a home: keys, tokens, mail, and what shells read, where people put tokens too. Not shown unless asked for by name."""
SECRET_NAME = re.compile("credential|secret|token|passw|history|keyring|wallet|cookie", re.IGNORECASE)
"""Nor is what is called so, beside these."""
MAX_HEAD_BYTES = 16 * 1024


def shown(asked: Iterable[str]) -> list[Bind]:
    """What a recording shows of the host, read-only: the `asked`, or by default the home and SHOWN, but for SECRETS.

    Raises SandboxError for an asked one that may not even be looked at (places.py).
    """
    asked = [os.path.realpath(path) for path in asked]
    for path in asked:
        if not os.path.lexists(path):
            raise SandboxError(f"--see {path}: is not there.", step="record")
        home = path in _homes()
        if not home and (why := places.refusal(path, (), writable=False)):
            raise SandboxError(f"--see {path}: it {why}.", step="record", hint="Name what is needed in it.")
    found = asked or [*(home for home in _homes() if home != "/"), *SHOWN]
    return [Bind(path) for given in found for path in _without_secrets(given)]


def _homes() -> list[str]:
    home = os.path.realpath(os.environ.get("HOME", "/nonexistent"))
    return [home] if os.path.isdir(home) else []


def _without_secrets(path: str) -> Iterator[str]:
    """The path itself, or where secrets lie in it, its parts without them."""
    secrets = {f"{home}/{secret}" for home in _homes() for secret in SECRETS}
    if path in secrets or not os.path.exists(path):
        return
    if not any(_within(secret, path) for secret in secrets):
        yield path
        return
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            plain = not entry.is_symlink() and (entry.is_dir() or entry.is_file())
            if plain and not SECRET_NAME.search(entry.name):
                yield from _without_secrets(entry.path)


def _within(path: str, parent: str) -> bool:
    return path == parent or path.startswith(f"{parent}/")


class Needs(NamedTuple):
    """What was seen of a command."""

    opened: set[str]
    looked_at: set[str]
    executed: set[str]
    written: set[str]
    hosts: set[str]
    addresses: set[str]
    refused: Counter[str]
    """Calls that the filter refused."""

    @classmethod
    def none(cls) -> Needs:
        return cls(set(), set(), set(), set(), set(), set(), Counter())

    def add(self, event: Event) -> None:
        if not isinstance(event, Attempt):
            return
        if event.decision != ALLOWED:
            self.refused[event.syscall] += 1
        elif event.syscall in ("connect", "sendto"):
            self.addresses.add(event.path)
        elif event.syscall != "bind":
            self._of(event).add(event.path)

    def _of(self, event: Attempt) -> set[str]:
        if event.writes:
            return self.written
        if event.syscall.startswith("exec"):
            return self.executed
        return self.looked_at if event.syscall in LOOKS else self.opened


class Proxy:
    """Notes down what hosts a command asks for, and refuses each."""

    def __init__(self, hosts: set[str]) -> None:
        self._hosts = hosts
        self._server: asyncio.Server | None = None

    async def open(self, listener: socket.socket) -> None:
        """Serve; the listener is the proxy's own from now on."""
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=MAX_HEAD_BYTES)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            if host := host_of(head):
                self._hosts.add(host)
            message = b"a recording reaches no host\n"
            writer.write(b"HTTP/1.1 502 Recording\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(message) + message)
            await writer.drain()
        writer.close()


def host_of(head: bytes) -> str:
    """The host that a request to a proxy asks for, with its port if that is not 443; empty: none."""
    words = head.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ")
    if len(words) != 3:
        return ""
    method, target, _ = words
    if method == "CONNECT":
        authority = target
    elif target.startswith("http://"):
        authority = target.removeprefix("http://").split("/")[0].rpartition("@")[2]
        authority += "" if ":" in authority else ":80"
    else:
        return ""
    host = authority.removesuffix(":443").lower()
    return host if host and all(letter.isalnum() or letter in ".-:_" for letter in host) else ""
