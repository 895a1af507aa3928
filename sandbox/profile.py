"""Profiles: what `python -m sandbox run` grants, as TOML. Sizes are bytes; a limit of 0 is none."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from sandbox.errors import SandboxError
from sandbox.spec import MIB, Bind

BUILT_IN = Path(__file__).with_name("profiles")
DEFAULT = "strict"


class Granted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A path of the host, seen inside at `target` or at its own place."""

    source: str
    target: str = ""
    writable: bool = False


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a profile."""

    memory_bytes: int = 0
    pids: int = 0
    cpu_percent: int = 0
    tmp_bytes: int = 256 * MIB
    open_files: int = 1024
    file_size_bytes: int = 0
    hostname: str = "sandbox"
    here: Literal["", "read", "write"] = ""
    """How the directory that the command is started in is seen; empty: not at all."""
    paths: tuple[Granted, ...] = ()
    env: dict[str, str] = {}
    pass_env: tuple[str, ...] = ("LANG", "TERM")
    """Names of variables that are passed on."""
    supervise: Literal["off", "refused", "files"] = "off"
    """What is told of what the command tries in vain: calls and hosts (`refused`), and files too (`files`)."""
    optional_layers: tuple[str, ...] = ()
    """`cgroup`: go on without those of memory_bytes, pids and cpu_percent that this host cannot hold."""

    def binds(self, here: str) -> tuple[Bind, ...]:
        """What of the host is seen, where `here` is the directory that the command is started in."""
        granted = [Bind(path.source, path.target, path.writable) for path in self.paths]
        return (*granted, *([Bind(here, writable=self.here == "write")] if self.here else []))


def load(name: str) -> Profile:
    """The built-in profile of a name, or that of a TOML file; raises SandboxError naming the file and the key."""
    path = Path(name) if name.endswith(".toml") else BUILT_IN / f"{name}.toml"
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Profile)
    except FileNotFoundError as error:
        known = ", ".join(names())
        raise SandboxError(f"no profile {name}.", step="profile", hint=f"Built in: {known}; or give a file.toml.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SandboxError(f"{path}: {error}", step="profile") from error


def names() -> list[str]:
    """The built-in profiles."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))
