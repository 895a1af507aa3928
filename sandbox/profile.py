"""Profiles: the one way to say what a sandbox grants, as TOML. Nothing is granted that no profile grants.

A profile extends another, `strict` unless it says which: its lists add to those of its parent, its tables too, name by name, and
its other values take the place of the parent's. `replace` names lists and tables that are taken without the parent's part. Of
`paths`, an entry takes the place of the parent's entry for the same place inside. Sizes are bytes; a limit of 0 is none.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from sandbox.errors import SandboxError
from sandbox.protected import PROTECTED, Missing
from sandbox.spec import MIB, Bind, SandboxSpec, check

BUILT_IN = Path(__file__).with_name("profiles")
DEFAULT = "strict"
EVERYTHING = "*"
"""In `hosts`: every public host; in `unprotect`: every protected path."""
RENAMED = {"workspace": "agent"}
MAX_PORT = 65_535
_HOST = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*(:\d{1,5})?", re.I)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Granted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A path of the host, seen inside at `target` or at its own place."""

    source: str
    target: str = ""
    writable: bool = False

    @property
    def place(self) -> str:
        return self.target or self.source


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a profile. docs/sandbox.md has the table of them all."""

    memory_bytes: int = 0
    swap_bytes: int = 0
    pids: int = 0
    cpu_percent: int = 0
    cpu_weight: int = 0
    io_weight: int = 0
    io_read_bytes_per_s: int = 0
    io_write_bytes_per_s: int = 0
    tmp_bytes: int = 256 * MIB
    open_files: int = 1024
    file_size_bytes: int = 0
    disk_bytes: int = 0
    disk_files: int = 0
    wall_s: float = 0.0
    hostname: str = "sandbox"
    here: Literal["", "read", "write"] = ""
    """How the directory that the command is started in, or the workspace of a task, is seen; empty: not at all."""
    paths: tuple[Granted, ...] = ()
    tmpfs: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    protect: tuple[str, ...] = ()
    """Beside protected.PROTECTED."""
    unprotect: tuple[str, ...] = ()
    protect_missing: Missing = "all"
    env: dict[str, str] = {}
    pass_env: tuple[str, ...] = ()
    """Names of variables that are passed on."""
    hosts: tuple[str, ...] = ()
    """`host`, `*.domain` or `*`, each with `:port` if the port is not 443: what may be reached through a gateway."""
    loopback_ports: tuple[int, ...] = ()
    """TCP ports of the host's 127.0.0.1 that may be reached, through a gateway too."""
    devices: tuple[str, ...] = ()
    allow_syscalls: tuple[str, ...] = ()
    deny_syscalls: tuple[str, ...] = ()
    supervise: Literal["off", "refused", "files"] = "off"
    """What is told of what the command tries in vain: calls and hosts (`refused`), and files too (`files`)."""
    optional_layers: tuple[str, ...] = ()
    """As of a specification."""

    def binds(self, here: str) -> tuple[Bind, ...]:
        """What of the host is seen, where `here` is the directory that the command is started in."""
        granted = [Bind(path.source, path.target, path.writable) for path in self.paths]
        return (*granted, *([Bind(here, writable=self.here == "write")] if self.here and here else []))

    @property
    def protected(self) -> tuple[str, ...]:
        """What cannot be changed in a writable directory."""
        known = dict.fromkeys((*PROTECTED, *self.protect))
        return () if EVERYTHING in self.unprotect else tuple(path for path in known if path not in self.unprotect)

    def spec_fields(self) -> dict[str, Any]:
        """The fields of a SandboxSpec that a profile settles alone; paths and variables depend on who starts what."""
        return {name: getattr(self, name) for name in _SPEC_FIELDS} | {"protected": self.protected}


_KEYS: Sequence[str] = Profile.__struct_fields__
_SPEC_FIELDS = tuple(name for name in _KEYS if name in SandboxSpec.__struct_fields__ and name != "env")
_ADDING = tuple(name for name in _KEYS if isinstance(getattr(Profile(), name), tuple | dict))
"""The lists and tables."""


class Row(NamedTuple):
    """A value of a resolved profile, an item of it if it is a list or a table, and which profile it comes from."""

    key: str
    value: Any
    origin: str


class Resolved(NamedTuple):
    """A profile with all that it extends."""

    profile: Profile
    chain: tuple[str, ...]
    """The profile itself, then its parent, and so on."""
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        """In full, for people: a line a value, then where it comes from."""
        lines = [(row.key, _written(row.value), row.origin) for row in self.rows]
        widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
        head = " extends ".join(self.chain)
        return "\n".join([head, *(f"  {key:{widths[0]}}  {value:{widths[1]}}  {origin}" for key, value, origin in lines)])

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        values = msgspec.to_builtins(self.profile) | {"protected": self.profile.protected}
        origins = [{"key": row.key, "value": msgspec.to_builtins(row.value), "origin": row.origin} for row in self.rows]
        return {"chain": self.chain, "profile": values, "origins": origins}


class _Part(NamedTuple):
    """What one profile says itself."""

    source: str
    keys: Mapping[str, Any]
    """Those that it gives, of the types of Profile."""
    replace: Sequence[str]


class Profiles:
    """Where profiles are found: the built-in ones, TOML files, and `own` tables of a configuration called `source`."""

    def __init__(self, own: Mapping[str, Mapping[str, Any]] | None = None, source: str = "") -> None:
        self._own = own or {}
        self._source = source

    def names(self) -> list[str]:
        """Those that need no path."""
        return sorted({*names(), *self._own})

    def resolve(self, name: str) -> Resolved:
        """The profile of a name, or of a path that ends in .toml; raises SandboxError naming the file and the key."""
        parts: list[_Part] = []
        chain: list[str] = []
        while name:
            if name in chain:
                way = " extends ".join((*chain, name))
                raise _refused(parts[-1].source, "extends", f"leads in a circle: {way}.")
            table, source, near = self._read(name, parts[-1].source if parts else "")
            parts.append(_part(table, source))
            chain.append(name)
            name = _next(table, name, near)
        return _merged(parts, chain)

    def _read(self, name: str, child: str) -> tuple[Mapping[str, Any], str, Path | None]:
        """A table, what it is called in errors, and the directory that files are looked for in from there."""
        if name in self._own:
            source = f"{self._source}: profiles.{name}"
            if name in names():
                raise SandboxError(f"{source}: {name} is a built-in profile: give yours another name.", step="profile")
            return self._own[name], source, None
        is_file = name.endswith(".toml")
        path = Path(name) if is_file else BUILT_IN / f"{name}.toml"
        try:
            if not is_file and name not in names():
                raise FileNotFoundError(name)
            return tomllib.loads(path.read_text()), str(path) if is_file else name, path.parent if is_file else None
        except FileNotFoundError as error:
            where = f"{child}: `extends`: " if child else ""
            near = [RENAMED[name]] if name in RENAMED else difflib.get_close_matches(name, self.names(), n=1)
            meant = f"Did you mean {near[0]}? " if near else ""
            hint = f"{meant}There are: {', '.join(self.names())}; or give a file.toml."
            raise SandboxError(f"{where}no profile {name}.", step="profile", hint=hint) from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SandboxError(f"{path}: {error}", step="profile") from error


def resolve(name: str) -> Resolved:
    """The built-in profile of a name, or that of a TOML file, with what it extends; raises SandboxError."""
    return Profiles().resolve(name)


def load(name: str) -> Profile:
    """Its values alone."""
    return resolve(name).profile


def names() -> list[str]:
    """The built-in profiles."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def _next(table: Mapping[str, Any], name: str, near: Path | None) -> str:
    """The parent's name; a file is looked for beside the one that names it."""
    parent = str(table.get("extends", "" if name == DEFAULT else DEFAULT))
    if parent.endswith(".toml") and near is not None:
        return os.path.normpath(near / parent)
    return parent


def _part(table: Mapping[str, Any], source: str) -> _Part:
    _refuse_unknown(table, (*_KEYS, "extends", "replace"), source, "")
    for index, path in enumerate(table.get("paths", ()) if isinstance(table.get("paths"), list) else ()):
        if isinstance(path, dict):
            _refuse_unknown(path, Granted.__struct_fields__, source, f"paths[{index}].")
    own = {key: value for key, value in table.items() if key not in ("extends", "replace")}
    try:
        msgspec.convert(table.get("extends", ""), str)
    except msgspec.ValidationError as error:
        raise _refused(source, "extends", f"{error}.") from error
    try:
        replace = msgspec.convert(table.get("replace", []), tuple[str, ...])
    except msgspec.ValidationError as error:
        raise _refused(source, "replace", f"{error}.") from error
    for key in replace:
        if key not in _ADDING:
            raise _refused(source, "replace", f"{key} is no list or table: {', '.join(_ADDING)} are.")
    try:
        said = msgspec.convert(own, Profile)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        raise _refused(source, where.removeprefix(".").rstrip("`"), f"{message}.") from error
    _check(said, source)
    return _Part(source, {key: getattr(said, key) for key in own}, replace)


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], source: str, prefix: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known keys here: {', '.join(sorted(known))}."
            raise SandboxError(f"{source}: unknown key `{prefix}{key}`.", step="profile", hint=hint)


def _check(said: Profile, source: str) -> None:
    """Raise SandboxError for a value that cannot be meant, whatever a parent says."""
    for key, why in _wrong(said):
        raise _refused(source, key, why)
    try:
        check(SandboxSpec(argv=("true",), binds=said.binds(""), env=said.env, **said.spec_fields()))
    except SandboxError as error:
        key, _, why = error.message.partition(": ")
        raise _refused(source, {"binds": "paths", "protected": "protect"}.get(key, key), why) from error


def _wrong(said: Profile) -> Iterator[tuple[str, str]]:
    for host in said.hosts:
        name, _, port = host.partition(":")
        if not (_HOST.fullmatch(host) or name == EVERYTHING) or (port and not 0 < int(port) <= MAX_PORT):
            yield "hosts", f"{host!r} is no host: write host.example.org, *.example.org or *, with :port if it is not 443."
    for number in said.loopback_ports:
        if not 0 < number <= MAX_PORT:
            yield "loopback_ports", f"{number} is no port from 1 to {MAX_PORT}."
    for name in said.pass_env:
        if not _VARIABLE.fullmatch(name):
            yield "pass_env", f"{name!r} is no name of a variable."


def _refused(source: str, key: str, why: str) -> SandboxError:
    return SandboxError(f"{source}: `{key}`: {why}", step="profile")


def _merged(parts: Sequence[_Part], chain: Sequence[str]) -> Resolved:
    values: dict[str, Any] = {key: getattr(Profile(), key) for key in _KEYS}
    origins: dict[str, Any] = {}
    for part in reversed(parts):
        for key in part.replace:
            values[key], origins[key] = type(values[key])(), {}
        for key, value in part.keys.items():
            if key not in _ADDING:
                values[key], origins[key] = value, part.source
                continue
            items = _items(key, value)
            values[key] = {**_items(key, values[key]), **items}
            origins[key] = {**origins.get(key, {}), **dict.fromkeys(items, part.source)}
            if key != "env":
                values[key] = tuple(values[key].values())
    profile = Profile(**values)
    for path in profile.unprotect:
        if path not in (EVERYTHING, *PROTECTED, *profile.protect):
            near = difflib.get_close_matches(path, PROTECTED, n=1)
            why = f"{path!r} is not protected." + (f" Did you mean {near[0]}?" if near else "")
            raise _refused(origins["unprotect"][path], "unprotect", why)
    return Resolved(profile, tuple(chain), tuple(_rows(profile, origins)))


def _items(key: str, value: Any) -> dict[Any, Any]:
    """The items of a list or a table, by what makes two of them the same."""
    if isinstance(value, dict):
        return value
    return {item.place if key == "paths" else item: item for item in value}


NOBODY = "not granted"
OURS = "built in"


def _rows(profile: Profile, origins: Mapping[str, Any]) -> Iterator[Row]:
    for key in _KEYS:
        value = getattr(profile, key)
        if key not in _ADDING:
            yield Row(key, value, origins.get(key, OURS))
        elif not value:
            yield Row(key, (), NOBODY)
        else:
            for name, item in _items(key, value).items():
                yield Row(key, {name: item} if key == "env" else item, origins[key][name])
    for path in profile.protected:
        yield Row("protected", path, OURS if path in PROTECTED else origins["protect"][path])


def _written(value: Any) -> str:
    match value:
        case Granted():
            at = f" at {value.target}" if value.target else ""
            return f"{value.source}{at}, {'WRITABLE' if value.writable else 'read-only'}"
        case bool() | str():
            return str(value) or '""'
        case int():
            return f"{value:_}"
        case dict():
            return ", ".join(f"{name}={text}" for name, text in value.items())
        case ():
            return "-"
    return str(value)
