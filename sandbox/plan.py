"""What a sandbox's file system is made of. Pure, but for the look at the host that `Host.look` takes once."""

from __future__ import annotations

import os
from typing import NamedTuple

from sandbox.spec import HOME, WORKSPACE, Bind, SandboxSpec

TOP_LEVEL = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
"""Links into /usr on a merged system, directories of their own on others."""
ETC = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "pki",
    "protocols",
    "services",
    "ssl",
    "terminfo",
    "timezone",
)
"""All that is shown of the host's /etc: no accounts, no keys, no names of hosts."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
PRIVATE = ("/tmp", "/dev/shm", HOME, WORKSPACE)
"""Writable, in memory, gone with the sandbox."""


class Host(NamedTuple):
    """What of this host every sandbox is made of: links to be made again, and what is bound read-only."""

    links: dict[str, str]
    system: tuple[str, ...]
    devices: tuple[str, ...]

    @classmethod
    def look(cls) -> Host:
        links: dict[str, str] = {}
        system = ["/usr"]
        for path in (*(f"/{name}" for name in TOP_LEVEL), *(f"/etc/{name}" for name in ETC)):
            if os.path.islink(path):
                links[path] = os.readlink(path)
            elif os.path.exists(path):
                system.append(path)
        devices = tuple(path for path in (f"/dev/{name}" for name in DEVICES) if os.path.exists(path))
        return cls(links, tuple(system), devices)


class Tree(NamedTuple):
    """A bind: what of the host, where inside, and how."""

    source: str
    place: str
    writable: bool = False
    device: bool = False


class Plan(NamedTuple):
    """The file system of one sandbox: the skeleton in memory, then what is attached to it, outer ones first."""

    directories: tuple[str, ...]
    links: dict[str, str]
    files: dict[str, str]
    private: tuple[str, ...]
    trees: tuple[Tree, ...]

    def __str__(self) -> str:
        """For people: one line a path, in the order of the tree."""
        lines = dict.fromkeys(self.private, "private, writable, in memory")
        lines |= {"/proc": "this sandbox's processes", "/dev/pts": "terminals of this sandbox"}
        lines |= {path: f"-> {target}" for path, target in self.links.items()}
        lines |= dict.fromkeys(self.files, "written for the sandbox")
        for tree in self.trees:
            of_host = "the host's" if tree.source == tree.place else f"the host's {tree.source}"
            lines[tree.place] = "device" if tree.device else f"{of_host}, {'WRITABLE' if tree.writable else 'read-only'}"
        width = max(map(len, lines))
        return "\n".join(f"{path:{width}}  {lines[path]}" for path in sorted(lines))


def make(spec: SandboxSpec, host: Host, uid: int, gid: int) -> Plan:
    """The plan for a sandbox whose program has these ids inside."""
    links = {
        **host.links,
        "/etc/mtab": "/proc/mounts",
        "/var/tmp": "/tmp",
        "/var/run": "/run",
        "/dev/fd": "/proc/self/fd",
        "/dev/stdin": "/proc/self/fd/0",
        "/dev/stdout": "/proc/self/fd/1",
        "/dev/stderr": "/proc/self/fd/2",
        "/dev/ptmx": "pts/ptmx",
    }
    trees = [Tree(path, path) for path in host.system]
    trees += [Tree(path, path, device=True) for path in host.devices]
    trees += [Tree(bind.source, bind.place, bind.writable) for bind in _seen(spec.binds, host)]
    private = tuple(path for path in PRIVATE if not any(tree.place == path for tree in trees))
    return Plan(
        directories=("/proc", "/dev", "/dev/pts", "/run", "/etc", "/var", "/root"),
        links=links,
        files=_accounts(spec.hostname, uid, gid),
        private=private,
        trees=tuple(sorted(trees, key=lambda tree: tree.place.count("/"))),
    )


def _seen(binds: tuple[Bind, ...], host: Host) -> list[Bind]:
    """The binds that show something new: what lies read-only in the system at the same place is there already."""
    return [bind for bind in binds if bind.writable or not (bind.place == bind.source and _within(bind.source, host.system))]


def _within(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or path.startswith(f"{parent}/") for parent in parents)


def _accounts(hostname: str, uid: int, gid: int) -> dict[str, str]:
    shell = "/usr/sbin/nologin"
    return {
        "/etc/passwd": (
            f"root:x:0:0:root:/root:{shell}\n"
            f"worker:x:{uid}:{gid}:worker:{HOME}:/bin/sh\n"
            f"nobody:x:65534:65534:nobody:/nonexistent:{shell}\n"
        ),
        "/etc/group": f"root:x:0:\nworker:x:{gid}:\nnogroup:x:65534:\n",
        "/etc/hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
        "/etc/resolv.conf": "# This sandbox has no network.\n",
    }
