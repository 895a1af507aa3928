"""What the tier without namespaces refuses beyond `syscalls`: the calls by which a namespace would have kept a program in.

A filter of its own, loaded beside the usual one: the stricter answer of the two counts (seccomp(2)).
"""

from __future__ import annotations

import errno
import os
import socket

import pyseccomp

from sandbox import landlock

SHARED_MEMORY = ("mq_open", "mq_unlink", "msgget", "semget", "shmget")
"""By a key or name that every process of the user knows."""
_TYPES = 0xF
_ALL_BITS = 0xFFFFFFFF


def compile_rules(abi: int) -> bytes:
    """The filter, on a kernel with this version of Landlock. Raises OSError when libseccomp does not take a rule."""
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    # A path would be enough to talk to docker or the session's bus, and UDP needs no connection that Landlock could see.
    rules.add_rule(pyseccomp.ERRNO(errno.EAFNOSUPPORT), "socket")
    for kind in range(_TYPES + 1):
        # A pair of datagram sockets can be sent anywhere from.
        if kind not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            rules.add_rule(
                pyseccomp.ERRNO(errno.EPROTONOSUPPORT), "socketpair", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _TYPES, kind)
            )
    for name in SHARED_MEMORY:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    # Limits of other processes: one that is too low is as good as a signal.
    rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "prlimit64", pyseccomp.Arg(0, pyseccomp.NE, 0))
    if abi < 3:
        rules.add_rule(pyseccomp.ERRNO(errno.EACCES), "truncate")
    if abi < landlock.SCOPES_SINCE:
        # To all of the user's. To one of them it cannot be refused by number.
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "kill", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _ALL_BITS, _ALL_BITS))
    with open(os.memfd_create("filter", os.MFD_CLOEXEC), "r+b", buffering=0) as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
