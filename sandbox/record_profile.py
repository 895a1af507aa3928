"""From what was seen of a command to a profile for it: paths are drawn together, limits get headroom, doubts become comments."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sandbox import places
from sandbox.plan import PRIVATE, VAR_TMP, Host
from sandbox.profile import Profile
from sandbox.record import PROXY_PORT, Needs
from sandbox.spawner import Exit
from sandbox.spec import MIB

FEW = 3
"""So many different files of a directory are named one by one."""
HEADROOM = 1.5
MEMORY_STEP = 64 * MIB
MOST_NAMED = 20
USUAL_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
OWN = ("/proc", "/dev", "/sys", *PRIVATE, VAR_TMP)
"""The sandbox's own: of the host nothing is needed there."""
REPLACED = ("hosts", "loopback_ports", "pass_env", "paths")
"""Of what the profile that a command was recorded with grants, only what was seen to be needed."""


class Setting(NamedTuple):
    """How a command was recorded."""

    command: Sequence[str]
    base: Profile
    extends: str
    """What the base is called in the profile that is written."""
    here: str
    """The directory that it was started in."""
    shown: tuple[str, ...]
    """Of the host, beside what every sandbox sees."""
    writable: tuple[str, ...]
    host: Host


def text(needs: Needs, setting: Setting, exit: Exit) -> str:
    """The profile, as TOML."""
    outside = [path for path in _existing(needs, setting) if not _granted(path, setting)]
    within, beyond = _parted(outside, setting.here)
    wrote = [path for path in sorted(needs.written) if not _granted(path, setting)]
    kept = {path for path in wrote if any(_within(path, place) for place in setting.writable)}
    grants = collapsed(beyond)
    writable = _written_directories(kept, setting.here)
    here = "write" if any(_within(path, setting.here) for path in kept) else "read" if within else ""
    if places.refusal(setting.here, (), writable=here == "write"):
        here = ""
    lines = _head(setting, exit)
    lines += [f"extends = {_string(setting.extends)}", f"replace = {_list(REPLACED)}"]
    lines += [f"memory_bytes = {_memory(exit)}"] if exit.memory_peak_bytes else []
    lines += [f"here = {_string(here)}", f"pass_env = {_list(setting.base.pass_env)}"]
    if hosts := sorted(needs.hosts):
        lines += [f"hosts = {_list(hosts)}"]
    lines += _doubts(needs, setting, sorted(set(wrote) - kept), grants)
    if env := _environment(needs, setting):
        lines += ["", "[env]", *(f"{name} = {_string(value)}" for name, value in env.items())]
    paths = [path for path in grants if not _refused(path)]
    for path in paths:
        if not any(_within(path, place) for place in writable):
            lines += ["", "[[paths]]", f"source = {_string(path)}"]
    for path in writable:
        lines += ["", "[[paths]]", f"source = {_string(path)}", "writable = true"]
    return "\n".join(lines) + "\n"


def collapsed(paths: Iterable[str]) -> list[str]:
    """Fewer paths that hold all of these: trees of packages as a whole, directories of which more than FEW files are needed."""
    roots = {_root(path) for path in paths}
    of_directory: dict[str, set[str]] = {}
    for path in roots:
        of_directory.setdefault(os.path.dirname(path), set()).add(path)
    crowded = {directory for directory, held in of_directory.items() if len(held) > FEW and not _refused(directory)}
    drawn = crowded | {path for path in roots if os.path.dirname(path) not in crowded}
    return [path for path in sorted(drawn) if not any(path != other and _within(path, other) for other in drawn)]


def _root(path: str) -> str:
    """The tree of packages that a path belongs to, or the path itself."""
    parts = path.split("/")
    for index in range(2, len(parts)):
        above = "/".join(parts[:index])
        if _refused(above):
            continue
        if os.path.exists(f"{above}/pyvenv.cfg") or (os.path.isdir(f"{above}/bin") and os.path.isdir(f"{above}/lib")):
            return above
        if parts[index] in ("node_modules", "site-packages"):
            return "/".join(parts[: index + 1])
    return path


def _existing(needs: Needs, setting: Setting) -> list[str]:
    """What was used and is there, with what its links lead to. A directory that was only looked at needs no grant."""
    found: dict[str, None] = {}
    for path in sorted(needs.opened | needs.executed | needs.looked_at):
        if not path.startswith("/") or _is_own(path, setting) or not os.path.lexists(path):
            continue
        if path not in needs.opened and os.path.isdir(path):
            continue
        found |= {path: None, os.path.realpath(path): None}
    return list(found)


def _granted(path: str, setting: Setting) -> bool:
    """Every sandbox has it."""
    if path == "/" or any(_within(path, place) for place in (*setting.host.system, *setting.host.links)):
        return True
    return _is_own(path, setting) or any(_within(path, place) for place in ("/etc", "/run", "/var/run"))


def _is_own(path: str, setting: Setting) -> bool:
    """Whether a path means the sandbox's own, whatever the host has there; a project in /tmp, which it was shown, is not."""
    return any(_within(path, place) for place in OWN) and not any(_within(path, place) for place in setting.shown)


def _parted(paths: Iterable[str], here: str) -> tuple[list[str], list[str]]:
    within: list[str] = []
    beyond: list[str] = []
    for path in paths:
        (within if _within(path, here) else beyond).append(path)
    return within, beyond


def _written_directories(written: Iterable[str], here: str) -> list[str]:
    directories = {os.path.dirname(path) for path in written if not _within(path, here)}
    return [path for path in sorted(directories) if not places.refusal(path, ()) and not _inside_another(path, directories)]


def _inside_another(path: str, others: Iterable[str]) -> bool:
    return any(path != other and _within(path, other) for other in others)


def _refused(path: str) -> bool:
    """Whether it may not be given, whatever the command wants: homes as a whole, keys, the running system."""
    return bool(places.refusal(path, (), writable=False)) or path in places.SHARED or path.count("/") < 2


def _head(setting: Setting, exit: Exit) -> list[str]:
    how = f"exit code {exit.code}" if exit.code >= 0 else f"signal {exit.signal}"
    used = f"{exit.cpu_s:.1f} s of processor, {exit.memory_peak_bytes // MIB} MiB of memory at most"
    return [
        f"# What was seen of: {_comment(shlex.join(setting.command))}",
        f"# It ended with {how}, and used {used}.",
        "# A command does not do the same each time, and this one chose what was seen: read before you use it.",
    ]


def _memory(exit: Exit) -> int:
    wanted = int(exit.memory_peak_bytes * HEADROOM)
    return -(-wanted // MEMORY_STEP) * MEMORY_STEP


def _environment(needs: Needs, setting: Setting) -> dict[str, str]:
    """A PATH that finds what was run from elsewhere. What a program reads of its environment cannot be seen."""
    run = (os.path.dirname(path) for path in sorted(needs.executed) if os.access(path, os.X_OK) and not os.path.isdir(path))
    more = dict.fromkeys(path for path in run if path not in (*USUAL_PATH, "/sbin", "/usr/sbin") and not _granted(path, setting))
    return {"PATH": ":".join((*more, *USUAL_PATH))} if more and "PATH" not in setting.base.env else {}


def _doubts(needs: Needs, setting: Setting, unwritten: list[str], grants: list[str]) -> list[str]:
    """What a person should know, as comments."""
    missing = [path for path in sorted(needs.opened | needs.looked_at) if _is_hidden(path, setting)]
    own = f"127.0.0.1:{PROXY_PORT}"
    told = {
        "It wanted to write, and could not; record with --write to see more": unwritten,
        "It looked for these, which were not shown": missing,
        "It used these, which are never given as a whole": [path for path in grants if _refused(path)],
        "It wanted to connect to": sorted(needs.addresses - {own}),
        "The filter refused": [f"{name} ({times})" for name, times in sorted(needs.refused.items())],
    }
    lines = ["# Which variables it read cannot be seen: see pass_env and [env]."]
    for what, items in told.items():
        if items:
            lines += [f"# {what}:", *(f"#   {_comment(item)}" for item in items[:MOST_NAMED])]
            lines += [f"#   … and {len(items) - MOST_NAMED} more"] if len(items) > MOST_NAMED else []
    return lines


def _is_hidden(path: str, setting: Setting) -> bool:
    """On the host, though not in a sandbox."""
    etc = _within(path, "/etc") and not any(_within(path, place) for place in (*setting.host.system, *setting.host.links))
    secret = not etc and "keys" in places.refusal(path, (), writable=False) if path.startswith("/") else False
    return (etc or secret) and path not in ("/etc", "/etc/passwd", "/etc/group", "/etc/hosts") and os.path.exists(path)


def _within(path: str, parent: str) -> bool:
    return path == parent or path.startswith(f"{parent}/")


def _list(items: Iterable[str]) -> str:
    return f"[{', '.join(map(_string, items))}]"


def _string(text: str) -> str:
    """A basic string of TOML, which escapes as JSON does, and DEL too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
