"""Where this process stands in the cgroup hierarchies of the host, read from /proc and never assumed.

Sources: cgroups(7), proc_pid_mountinfo(5). In a container the mount may show only a part of a hierarchy: the
mount's root field says which, and it is subtracted from the path that /proc/self/cgroup gives.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

V1_CONTROLLERS = frozenset({"memory", "pids", "cpu", "cpuacct", "freezer", "blkio"})
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A cgroup file system: `root` is the part of the hierarchy that `point` shows; `controllers` is empty for v2."""

    point: Path
    root: str
    version: int
    controllers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The directories of this process's own cgroups: one for v2, one a controller for v1. Missing ones are None or absent."""

    v2: Path | None
    v1: dict[str, Path]


def parse_mountinfo(text: str) -> list[Mount]:
    """The cgroup mounts in the text of /proc/PID/mountinfo, in its order."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 3 or tail[0] not in ("cgroup", "cgroup2"):
            continue
        root, point = unescape(fields[3]), Path(unescape(fields[4]))
        if tail[0] == "cgroup2":
            mounts.append(Mount(point, root, 2))
        else:
            mounts.append(Mount(point, root, 1, V1_CONTROLLERS & set(tail[2].split(","))))
    return mounts


def parse_cgroup(text: str) -> dict[str, str]:
    """The path for each controller in the text of /proc/PID/cgroup; the key of the v2 path is the empty string."""
    paths = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if separator:
            paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def locate(mounts: list[Mount], paths: dict[str, str], v1_points: dict[str, Path] | None = None) -> Hierarchies:
    """Join mounts and paths into directories.

    `v1_points` gives the mount point to take for a v1 controller that is mounted more than once; the first is taken otherwise.
    """
    v2: Path | None = None
    v1: dict[str, Path] = {}
    for mount in mounts:
        if mount.version == 2:
            v2 = v2 or _directory(mount, paths.get(""))
            continue
        for controller in mount.controllers:
            wanted = (v1_points or {}).get(controller, mount.point)
            found = _directory(mount, paths.get(controller)) if wanted == mount.point else None
            if found is not None:
                v1.setdefault(controller, found)
    return Hierarchies(v2, v1)


def hierarchies(parent: str | None = None) -> Hierarchies:
    """The cgroup directories of this process, or those of the cgroup path `parent` (as in /proc/self/cgroup) when it is given."""
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
    paths = parse_cgroup(Path("/proc/self/cgroup").read_text("utf-8", "surrogateescape"))
    if parent is not None:
        paths = dict.fromkeys(paths, parent)
    has_v1 = any(mount.controllers for mount in mounts)
    return locate(mounts, paths, _cgutils_points() if has_v1 else None)


def _cgutils_points() -> dict[str, Path] | None:
    """The mount points that cgroup-utils finds, where that optional package is installed; None without it.

    It knows v1 only, and its import reads files of /proc/sys that not every kernel has.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its regular expressions are not raw strings
            from cgutils.cgroup import SubsystemStatus
        return {str(name): Path(point) for name, point in SubsystemStatus().paths.items()}
    except (ImportError, OSError, SyntaxError, KeyError, ValueError):
        return None


def _directory(mount: Mount, path: str | None) -> Path | None:
    if path is None or ".." in PurePosixPath(path).parts:
        return None  # outside of this cgroup namespace
    try:
        below = PurePosixPath(path).relative_to(mount.root)
    except ValueError:
        return None
    return mount.point / below


def unescape(field: str) -> str:
    """A path out of a field of mountinfo."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
