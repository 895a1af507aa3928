"""API keys: read once at start, sent to the provider, shown to nobody."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from supervisord_agents.config import Provider
from supervisord_agents.errors import ConfigError

MAX_KEY_BYTES = 16 * 1024
"""Room for the longest bearer tokens in use; a larger file is not a key."""


class Key:
    """A secret: `reveal()` is the only way to its text, so that no log line or traceback holds it by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Key(***)"


class MissingKey(Exception):
    """A key is configured but is not there; the text says where it was looked for."""


def load(name: str, provider: Provider, environ: Mapping[str, str]) -> Key | None:
    """The key of provider `name`, or None if none is configured.

    Raises MissingKey if it is configured and not there, ConfigError if it must not be used as it is.
    """
    table = f"gateway.providers.{name}"
    if provider.api_key_env and provider.api_key_file:
        raise ConfigError("gives both `api_key_env` and `api_key_file`.", field=table, hint="Keep one of them.")
    if provider.api_key_env:
        text = environ.get(provider.api_key_env, "").strip()
        if not text:
            raise MissingKey(f"the daemon's environment has no {provider.api_key_env} ({table}.api_key_env)")
        return _checked(text, f"{table}.api_key_env")
    if provider.api_key_file:
        field = f"{table}.api_key_file"
        return _checked(_read(Path(provider.api_key_file), field), field)
    return None


def _read(path: Path, field: str) -> str:
    try:
        # Opening a named pipe would otherwise wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            _check_file(path, os.fstat(file.fileno()), field)
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise MissingKey(f"{path} cannot be read: {error.strerror} ({field})") from None
    if len(data) > MAX_KEY_BYTES:
        raise ConfigError(f"{path} holds more than {MAX_KEY_BYTES} bytes: not a key.", field=field)
    text = data.decode("ascii", "replace").strip()
    if not text:
        raise MissingKey(f"{path} is empty ({field})")
    return text


def _check_file(path: Path, status: os.stat_result, field: str) -> None:
    """Refuse what is no file, and a file that somebody else can read or could have written."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a regular file.", field=field)
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{path} belongs to uid {status.st_uid}: another user can get at the key.",
            field=field,
            hint=f"Run: chown {os.geteuid()} {path}",
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}: other users can get at the key.",
            field=field,
            hint=f"Run: chmod 600 {path}",
        )


def _checked(text: str, field: str) -> Key:
    """Refuse what could end a header and begin another."""
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigError("the key holds spaces, control or non-ASCII characters.", field=field, hint="Store the bare key.")
    return Key(text)


class Redactor:
    """Replaces a key in a stream with as many asterisks, whichever way the stream is cut into chunks.

    An endpoint that echoes its request (an error page, a debugging proxy) must not hand the key to the worker. Only bytes that
    may be the beginning of the key are held back, so a stream of events passes without delay.
    """

    def __init__(self, key: Key | None) -> None:
        self._secret = key.reveal().encode() if key else b""
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may go on."""
        if not self._secret:
            return chunk
        data = (self._held + chunk).replace(self._secret, b"*" * len(self._secret))
        keep = self._beginning_at_end_of(data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def finish(self) -> bytes:
        """The bytes still held back."""
        held, self._held = self._held, b""
        return held

    def text(self, value: str) -> str:
        """`value` without the key; for headers."""
        secret = self._secret.decode()
        return value.replace(secret, "*" * len(secret)) if secret else value

    def _beginning_at_end_of(self, data: bytes) -> int:
        longest = min(len(self._secret) - 1, len(data))
        return next((size for size in range(longest, 0, -1) if data.endswith(self._secret[:size])), 0)
