"""Who is at the other end of a Unix socket, as the kernel saw it at connect (unix(7))."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

_UCRED = struct.Struct("3i")
_SO_PEERGROUPS = 59
"""asm-generic/socket.h, Linux 4.13; the socket module does not name it."""
_GID_BYTES = 4
_USUAL_GROUPS = 256
_MOST_GROUPS = 65_536


@dataclass(frozen=True, slots=True)
class Peer:
    """A client process. `pid` is 0 if it lives in a PID namespace that this process cannot see."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    """Supplementary groups."""


def peer_of(descriptor: int) -> Peer:
    """The peer of a connected Unix stream socket; raises OSError for any other descriptor."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return Peer(pid, uid, gid, _groups(sock))


def _groups(sock: socket.socket) -> frozenset[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _USUAL_GROUPS * _GID_BYTES)
    except OSError:  # ERANGE: there are more
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * _GID_BYTES)
    return frozenset(gid for (gid,) in struct.iter_unpack("I", raw))
