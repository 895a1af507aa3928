"""Which calls a supervisor is shown beside those that are refused, and how their arguments are told: tables, and what reads them.

Argument positions: section 2 of the manual.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from typing import Literal, NamedTuple

Group = Literal["off", "refused", "files", "record"]
GROUPS: tuple[Group, ...] = ("off", "refused", "files", "record")
CHOICES: tuple[Group, ...] = ("off", "refused", "files")
"""What a person may choose; `record` is for `python -m sandbox record`."""

ADDRESSES = {"bind": 1, "connect": 1, "sendto": 4}
"""Calls with a socket address at this position and its length at the next. Of sendto, those with an address."""


class Paths(NamedTuple):
    """Where the path of a call is, and that of the directory it is relative to (-1: the current one)."""

    path: int
    directory: int = -1
    writes: bool = True
    """Whether it changes what is there."""
    flags: int = -1
    """The position of open flags, which may say that it does."""


FILES = {
    "open": Paths(0, writes=False, flags=1),
    "openat": Paths(1, 0, writes=False, flags=2),
    "creat": Paths(0),
    "execve": Paths(0, writes=False),
    "execveat": Paths(1, 0, writes=False),
    "mkdir": Paths(0),
    "mkdirat": Paths(1, 0),
    "mknod": Paths(0),
    "mknodat": Paths(1, 0),
    "rmdir": Paths(0),
    "unlink": Paths(0),
    "unlinkat": Paths(1, 0),
    "rename": Paths(1),
    "renameat": Paths(3, 2),
    "renameat2": Paths(3, 2),
    "link": Paths(1),
    "linkat": Paths(3, 2),
    "symlink": Paths(1),
    "symlinkat": Paths(2, 1),
    "chmod": Paths(0),
    "fchmodat": Paths(1, 0),
    "fchmodat2": Paths(1, 0),
    "chown": Paths(0),
    "lchown": Paths(0),
    "fchownat": Paths(1, 0),
    "truncate": Paths(0),
}
"""Calls on paths, of the groups `files` and `record`. Of a rename it is the new name."""
LOOKS = {
    "chdir": Paths(0, writes=False),
    "readlink": Paths(0, writes=False),
    "readlinkat": Paths(1, 0, writes=False),
    "access": Paths(0, writes=False),
    "faccessat": Paths(1, 0, writes=False),
    "faccessat2": Paths(1, 0, writes=False),
    "stat": Paths(0, writes=False),
    "lstat": Paths(0, writes=False),
    "newfstatat": Paths(1, 0, writes=False),
    "statx": Paths(1, 0, writes=False),
}
"""Beside them in `record`: what is only looked for is needed too."""
REFUSED_PATHS = {
    "mount": Paths(1),
    "umount2": Paths(0),
    "chroot": Paths(0),
    "pivot_root": Paths(0),
    "name_to_handle_at": Paths(1, 0),
    "fanotify_mark": Paths(4, 3),
    "swapon": Paths(0),
    "swapoff": Paths(0),
    "acct": Paths(0),
    "quotactl": Paths(1),
}
PATHS = {**FILES, **LOOKS, **REFUSED_PATHS}

NUMBERS = {
    "ptrace": (("request", 0), ("pid", 1)),
    "process_vm_readv": (("pid", 0),),
    "process_vm_writev": (("pid", 0),),
    "kcmp": (("pid", 0), ("pid", 1)),
    "keyctl": (("operation", 0),),
    "bpf": (("command", 0),),
    "socket": (("family", 0), ("type", 1), ("protocol", 2)),
    "socketpair": (("family", 0), ("type", 1), ("protocol", 2)),
    "reboot": (("command", 2),),
    "setns": (("fd", 0),),
}
FLAGS = {
    "unshare": ("flags", 0),
    "clone": ("flags", 0),
    "ioctl": ("request", 1),
    "chmod": ("mode", 1),
    "fchmod": ("mode", 1),
    "fchmodat": ("mode", 2),
    "fchmodat2": ("mode", 2),
    "mkdir": ("mode", 1),
    "mkdirat": ("mode", 2),
    "mknod": ("mode", 1),
    "mknodat": ("mode", 2),
    "creat": ("mode", 1),
}
_OCTAL = ("mode",)
_INT = 0xFFFFFFFF
_SOCKET_TYPE = 0xF
"""The rest of a type are flags."""
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def in_words(name: str, arguments: tuple[int, ...]) -> str:
    """The arguments that are no addresses, for the calls of which they say more than the name."""
    if name in FLAGS:
        label, position = FLAGS[name]
        value = arguments[position] & _INT
        return f"{label} {value:#o}" if label in _OCTAL else f"{label} {value:#x}"
    told = ((label, signed(arguments[position])) for label, position in NUMBERS.get(name, ()))
    return ", ".join(f"{label} {value & _SOCKET_TYPE if label == 'type' else value}" for label, value in told)


def writes(name: str, arguments: tuple[int, ...]) -> bool:
    """Whether a call on a path is meant to change what is there."""
    found = PATHS[name]
    return found.writes or (found.flags >= 0 and bool(arguments[found.flags] & _WRITE_FLAGS))


def kind(name: str) -> str:
    """What calls of one kind want of a path: another kind may want more."""
    if name in LOOKS:
        return "look"
    return "execute" if name.startswith("exec") else "use" if name in FILES else name


def signed(register: int) -> int:
    """The register as a C int."""
    return (register & _INT) - ((register & 0x80000000) << 1)


class Address(NamedTuple):
    """A socket address. `outside`: it leads off this machine; `path`: that of a Unix socket in the file system."""

    text: str
    outside: bool
    path: str = ""


def address(packed: bytes) -> Address | None:
    """A struct sockaddr, of Internet and Unix sockets; None for any other, or one cut short (ip(7), ipv6(7), unix(7))."""
    try:
        (family,) = struct.unpack_from("=H", packed)
        if family == 1:
            return _of_unix(packed[2:])
        if family == 2:
            port, host = struct.unpack_from("!2xH4s", packed)
            return _of_host(ipaddress.IPv4Address(host), f"{ipaddress.IPv4Address(host)}:{port}")
        if family == 10:
            port, host = struct.unpack_from("!2xH4x16s", packed)
            found = ipaddress.IPv6Address(host)
            return _of_host(found.ipv4_mapped or found, f"[{found}]:{port}")
    except struct.error:
        pass
    return None


def _of_host(host: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str) -> Address:
    return Address(text, outside=not (host.is_loopback or host.is_unspecified))


def _of_unix(name: bytes) -> Address | None:
    if not name:
        return None
    if name[:1] == b"\0":
        return Address(f"unix:@{name[1:].decode(errors='backslashreplace')}", outside=False)
    path = name.partition(b"\0")[0].decode(errors="backslashreplace")
    return Address(f"unix:{path}", outside=False, path=path)
