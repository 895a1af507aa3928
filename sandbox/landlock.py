"""Landlock: rules on files, TCP ports, abstract sockets and signals that a process puts on itself and all that it starts.

    rules = ruleset(version(), {"/": READ}, descriptors=(1,))   # while the paths can still be opened
    ...
    restrict(rules)                                             # after no_new_privs; nothing takes it off again

A rule is on what lies at a path, with all below it, whatever is mounted there later. Rights are the sum of all rules on the way
up from a file, so a rule can only add. Source: landlock(7), linux/landlock.h, the kernel's userspace-api/landlock.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterable, Mapping

from sandbox import linux
from sandbox.errors import SandboxError
from sandbox.plan import Plan

MINIMUM = 2
"""The first version (Linux 5.19) in which files may be renamed from one directory to another; git and npm cannot do without."""
WITHOUT_HINT = (
    "Boot Linux 5.19 or newer with `landlock` in lsm=; or, to go on without,"
    ' put "landlock" into optional_layers (python -m sandbox run: --optional landlock).'
)

# LANDLOCK_ACCESS_FS_*
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8
MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 1 << 9, 1 << 10, 1 << 11, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
# LANDLOCK_ACCESS_NET_*, LANDLOCK_SCOPE_*
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
ABSTRACT_UNIX_SOCKET, SIGNAL = 1 << 0, 1 << 1

_FILES = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
"""The rights that came with each version."""
NET_SINCE, SCOPES_SINCE = 4, 6
_OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""The rights that mean something for what is not a directory; the kernel refuses a rule with others."""

READ = EXECUTE | READ_FILE | READ_DIR
CHANGE = READ | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM | REFER
"""All but devices: none can be made anywhere."""
DEVICE = READ_FILE | READ_DIR | WRITE_FILE | IOCTL_DEV

_SYS_CREATE, _SYS_ADD_RULE, _SYS_RESTRICT = 444, 445, 446
_CREATE_VERSION, _RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 1, 2


def version() -> int:
    """The ABI that this kernel has; 0: it has no Landlock, or has it switched off."""
    try:
        return linux.syscall("landlock", "landlock_create_ruleset", _SYS_CREATE, 0, 0, _CREATE_VERSION)
    except SandboxError:
        return 0


def check(abi: int) -> None:
    """Raise SandboxError for a version that sandboxes cannot use."""
    if abi < MINIMUM:
        what = f"has version {abi} of Landlock, of {MINIMUM} needed" if abi else "has no Landlock"
        raise SandboxError(
            f"this kernel {what}.",
            step="landlock",
            errno=errno.ENOTSUP,
            hint=WITHOUT_HINT,
        )


def grants(plan: Plan) -> dict[str, int]:
    """The rights at each path inside a sandbox: what its file system says already, said once more.

    Nothing below /proc can be written, though the kernel would let a program change some things of itself there.
    """
    rights = {"/": READ, "/dev": DEVICE}
    rights |= {tree.place: CHANGE for tree in plan.trees if tree.writable}
    rights |= {tree.place: DEVICE for tree in plan.trees if tree.device and not tree.place.startswith("/dev/")}
    return rights | dict.fromkeys(plan.private, CHANGE)


def ruleset(
    abi: int,
    paths: Mapping[str, int],
    *,
    descriptors: Iterable[int] = (),
    tcp: bool = False,
) -> int:
    """A descriptor of rules that allow this and nothing else of what version `abi` knows.

    `paths` are the rights at each path; what may be changed is not reached through a symbolic link. What `descriptors` are open
    on can be opened again by way of /proc/self/fd, as far as they go. With `tcp` no TCP port can be bound or connected to;
    without, all can. Raises SandboxError, or OSError for a path.
    """
    files = _handled(abi)
    net = BIND_TCP | CONNECT_TCP if tcp and abi >= NET_SINCE else 0
    scoped = ABSTRACT_UNIX_SOCKET | SIGNAL if abi >= SCOPES_SINCE else 0
    attributes = struct.pack("=QQQ", files, net, scoped)
    rules = linux.syscall("landlock", "landlock_create_ruleset", _SYS_CREATE, attributes, len(attributes), 0)
    for path, rights in paths.items():
        # What can be changed is not looked for by way of what somebody else may have laid there.
        beneath = linux.open_path(path, linux.RESOLVE_NO_SYMLINKS if rights & MAKE_REG else 0)
        _allow(rules, beneath, rights & files)
        os.close(beneath)
    for descriptor in descriptors:
        if rights := _rights_of(descriptor) & files:
            try:
                _allow(rules, descriptor, rights)
            except SandboxError as error:
                if error.errno != errno.EBADFD:  # that of memory (memfd_create(2)), which needs no rule
                    raise
    return rules


def restrict(rules: int) -> None:
    """Put the rules on this process, which has set no_new_privs, and on all that it starts."""
    linux.syscall("landlock", "landlock_restrict_self", _SYS_RESTRICT, rules, 0)
    os.close(rules)


def _handled(abi: int) -> int:
    return sum(rights for since, rights in _FILES.items() if since <= abi)


def _allow(rules: int, descriptor: int, rights: int) -> None:
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= _OF_A_FILE
    rule = struct.pack("=Qi", rights, descriptor)
    linux.syscall("landlock", "landlock_add_rule", _SYS_ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0)


def _rights_of(descriptor: int) -> int:
    """What an open descriptor lets be done already. Pipes and sockets lie on no path, and need no rule."""
    mode = os.fstat(descriptor).st_mode
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if flags & os.O_PATH:
        return 0
    if stat.S_ISDIR(mode):
        return READ
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
        return 0
    access = flags & os.O_ACCMODE
    readable = READ_FILE if access != os.O_WRONLY else 0
    writable = WRITE_FILE | TRUNCATE if access != os.O_RDONLY else 0
    return readable | writable | IOCTL_DEV
