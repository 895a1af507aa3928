"""What a sandbox's file system is made of. Pure, but for looks at the host: `Host.look`, once, and for granted devices."""

from __future__ import annotations

import glob
import os
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

from sandbox.errors import SandboxError
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
    "pki/ca-trust",
    "pki/java",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "protocols",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
"""All that is shown of the host's /etc: no accounts, no keys (ssl/private, pki/tls/private), no names of hosts."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
PRIVATE = ("/tmp", "/dev/shm", HOME, WORKSPACE)
"""Writable, in memory, gone with the sandbox."""
VAR_TMP = "/var/tmp"
"""A link to /tmp, unless something of the host is to be seen below it."""
COMMON = SandboxSpec(argv=("-",))
"""What all sandboxes have in common is made for this one."""
OWN = ("/proc", "/dev", "/dev/pts")
"""The sandbox's own, which nothing of the host may hide."""


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
    owner: tuple[int, int] | None = None
    layers: str = ""
    """Seen copy-on-write: the directory of the host that takes what is written."""
    reviewed: bool = False
    """Nothing in it is protected."""


class Plan(NamedTuple):
    """The file system of one sandbox: the skeleton in memory, then what is attached to it, outer ones first."""

    directories: tuple[str, ...]
    links: dict[str, str]
    files: dict[str, str]
    private: tuple[str, ...]
    trees: tuple[Tree, ...]
    covered: tuple[str, ...] = ()
    """Directories below trees, which private ones are put over."""
    masked: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For people: one line a path, in the order of the tree."""
        lines = dict.fromkeys((*self.private, *self.covered), "private, writable, in memory")
        lines |= {"/proc": "this sandbox's processes", "/dev/pts": "terminals of this sandbox"}
        lines |= {path: f"-> {target}" for path, target in self.links.items()}
        lines |= dict.fromkeys(self.files, "written for the sandbox")
        for tree in self.trees:
            of_host = "the host's" if tree.source == tree.place else f"the host's {tree.source}"
            how = "copy-on-write" if tree.layers else "WRITABLE" if tree.writable else "read-only"
            lines[tree.place] = "device" if tree.device else f"{of_host}, {how}"
        lines |= dict.fromkeys(self.masked, "hidden, if it is there")
        width = max(map(len, lines))
        return "\n".join(f"{path:{width}}  {lines[path]}" for path in sorted(lines))


BARE = Plan(directories=OWN, links={}, files={}, private=(), trees=())
"""The part of a plan that every plan has."""


def common(host: Host) -> Plan:
    """The part of a plan that nearly every plan has, with every directory that is needed for it, outer ones first."""
    part = make(COMMON, host, COMMON.uid, COMMON.uid)
    in_directories = (*part.files, *part.links, *(tree.place for tree in part.trees))
    above = {
        str(parent) for path in (*part.directories, *part.private, *in_directories) for parent in PurePosixPath(path).parents
    }
    directories = {*part.directories, *part.private, *above} - {"/"}
    return part._replace(directories=tuple(sorted(directories, key=lambda path: path.count("/"))))


def has(plan: Plan, part: Plan) -> bool:
    """Whether the root of a plan can be made out of the root of `part`, by adding to it."""
    added = [tree.place for tree in plan.trees if tree not in part.trees]
    there = [tree.place for tree in part.trees]
    return (
        part.links.items() <= plan.links.items()
        and part.files.keys() <= plan.files.keys()
        and set(part.trees) <= set(plan.trees)
        and not any(place == inner or _below(inner, place) for place in added for inner in there)
    )


def make(spec: SandboxSpec, host: Host, uid: int, gid: int) -> Plan:
    """The plan for a sandbox whose program has these ids inside; raises SandboxError for a bind that has no place in it."""
    links = {
        **host.links,
        "/etc/mtab": "/proc/mounts",
        VAR_TMP: "/tmp",
        "/var/run": "/run",
        "/dev/fd": "/proc/self/fd",
        "/dev/stdin": "/proc/self/fd/0",
        "/dev/stdout": "/proc/self/fd/1",
        "/dev/stderr": "/proc/self/fd/2",
        "/dev/ptmx": "pts/ptmx",
    }
    trees = _of_the_host(host.system, host.devices)
    granted = dict.fromkeys(path for pattern in spec.devices for path in sorted(glob.glob(pattern)))
    trees += tuple(Tree(path, path, device=True) for path in granted if path not in host.devices)
    binds = tuple(_tree(bind) for bind in _seen(spec.binds, host))
    trees += binds
    places = {tree.place for tree in trees}
    covered = tuple(path for path in spec.tmpfs if _within(path, tuple(places)))
    more = tuple(path for path in spec.tmpfs if path not in (*covered, *PRIVATE))
    private = tuple(path for path in (*PRIVATE, *more) if path not in places)
    if any(_below(tree.place, VAR_TMP) for tree in binds):
        del links[VAR_TMP]
        private = (*private, VAR_TMP)
    links = {path: target for path, target in links.items() if path not in places}
    for tree in binds:
        _check_place(tree.place, links, private)
    for path in more:
        _check_place(path, links, ())
    return Plan(
        directories=("/proc", "/dev", "/dev/pts", "/run", "/etc", "/var", "/root"),
        links=links,
        files=_accounts(spec.hostname, uid, gid) | _names(spec.dns),
        private=private,
        trees=tuple(sorted(trees, key=lambda tree: tree.place.count("/"))),
        covered=covered,
        masked=spec.masked,
    )


@cache
def _of_the_host(system: tuple[str, ...], devices: tuple[str, ...]) -> tuple[Tree, ...]:
    return (*(Tree(path, path) for path in system), *(Tree(path, path, device=True) for path in devices))


def _tree(bind: Bind) -> Tree:
    return Tree(bind.source, bind.place, bind.writable, owner=bind.owner, layers=bind.layers, reviewed=bind.reviewed)


def _seen(binds: tuple[Bind, ...], host: Host) -> list[Bind]:
    """The binds that show something new: what lies read-only in the system at the same place is there already."""
    return [bind for bind in binds if bind.writable or not (bind.place == bind.source and _within(bind.source, host.system))]


def _check_place(place: str, links: dict[str, str], private: tuple[str, ...]) -> None:
    """Refuse what would be made on the host, through a link, or would put a directory of the host where ours are."""
    if link := next((path for path in links if _below(place, path)), ""):
        what = f"{place}: {link} is a link to {links[link]} inside."
        raise SandboxError(what, step="bind", hint="Bind it where the link leads.")
    if own := next((path for path in OWN if path == place or _below(path, place)), ""):
        raise SandboxError(f"{place} cannot be bound: {own} is the sandbox's own.", step="bind")
    if inner := next((path for path in private if _below(path, place)), ""):
        raise SandboxError(
            f"{place} cannot be bound: {inner}, private to the sandbox, lies in it.",
            step="bind",
            hint="Bind a directory below it, or give it another place.",
        )


def _within(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or _below(path, parent) for parent in parents)


def _below(path: str, parent: str) -> bool:
    return path.startswith(f"{parent}/")


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
    }


def _names(dns: bool) -> dict[str, str]:
    """How names are looked up (nsswitch.conf(5), resolv.conf(5))."""
    hosts = "files dns" if dns else "files"
    return {
        "/etc/nsswitch.conf": f"passwd: files\ngroup: files\nhosts: {hosts}\nservices: files\nprotocols: files\n",
        "/etc/resolv.conf": "nameserver 127.0.0.1\n" if dns else "# This sandbox has no network.\n",
    }
