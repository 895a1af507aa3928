"""What the last probe found, for a caller that starts often: the trials take a second, and change with the machine alone.

A sandbox is built or refused by what the kernel says then. What is remembered here only tells people about it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from sandbox import apparmor
from sandbox.cgroup import Cgroups
from sandbox.probe import Layer, probe

_DEPENDS_ON = (
    "/proc/sys/kernel/random/boot_id",
    "/proc/version",
    "/proc/self/cgroup",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/yama/ptrace_scope",
    "/proc/sys/user/max_user_namespaces",
    "/proc/self/attr/apparmor/current",
)
"""What can be different from one start to the next, with the same result for the same text."""
_OF_STATUS = ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters")
"""Lines of /proc/self/status: what may be tried by this process at all."""


class Remembered(msgspec.Struct, frozen=True):
    """The file."""

    circumstances: list[str]
    layers: list[Layer]


def probed(file: Path, trying: Callable[[], None]) -> list[Layer]:
    """What `probe` finds: out of the file, if that is from these very circumstances; else by trying, after a call of `trying`.

    Both move this process in cgroup v2 as `Cgroups.detect` says. A file that cannot be read or written costs the trials again.
    """
    here = circumstances()
    cgroups = Cgroups.detect(f"sandbox-probe-{os.getpid()}")
    try:
        here += [f"{name}: {how}" for name, how in cgroups.layers().items()]
        if (found := _read(file)) is not None and found.circumstances == here:
            return found.layers
        trying()
        layers = probe(cgroups)
    finally:
        cgroups.close()
    with contextlib.suppress(OSError):
        new = file.with_name(f"{file.name}.new")
        new.write_bytes(msgspec.json.encode(Remembered(here, layers)))
        new.replace(file)
    return layers


def _read(file: Path) -> Remembered | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(file.read_bytes(), type=Remembered)
    return None


def circumstances() -> list[str]:
    """All that an outcome depends on: this boot, this kernel's settings, the rights of this process, and this very program."""
    status = dict(line.split(":", 1) for line in _text("/proc/self/status").splitlines())
    rights = [f"{name} {status.get(name, '').strip()}" for name in _OF_STATUS]
    return [*map(_text, _DEPENDS_ON), *rights, sys.version, platform.machine(), sys.executable, apparmor.launcher(), *_sources()]


def _sources() -> list[str]:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [f"{file} {status.st_mtime_ns} {status.st_size}" for file in files for status in [os.stat(file)]]


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return ""
