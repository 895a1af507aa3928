"""Orphans: as PID 1 of its namespace the worker inherits every process whose parent has gone, and must wait for it."""

from __future__ import annotations

import contextlib
import os
import signal


def is_init() -> bool:
    """True if this is PID 1 of a PID namespace: only then does kill(-1) mean the sandbox and nothing else."""
    return os.getpid() == 1


def alone_with(pid: int) -> bool:
    """Whether this process and that one are all there is in the sandbox. Outside of one that is taken for so."""
    return not is_init() or {name for name in os.listdir("/proc") if name.isdigit()} == {"1", str(pid)}


def reap_orphans(own: int) -> None:
    """Wait for dead children until none is left, or the next one is `own`, whose exit status somebody else reads."""
    while True:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is None or dead.si_pid == own:
                return
            os.waitid(os.P_PID, dead.si_pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return


def clear_out() -> None:
    """End and bury everything in the sandbox but this process; outside a sandbox bury dead children only."""
    if not is_init():
        reap_orphans(0)
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitid(os.P_ALL, 0, os.WEXITED)
