"""The way of a new process into a sandbox without namespaces: two processes, of which the first stays outside of it.

The first is the parent of the program and of all that the program leaves behind; it passes signals on and ends as the program
did. The program restricts itself by Landlock and the filters, then executes.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from sandbox import enter, init, landlock, linux, seccomp, tier


def way(beginning: enter.Beginning) -> NoReturn:
    """See `enter.enter`, which calls it."""
    linux.close_all_but(beginning.status.fileno())
    os.setsid()
    enter._prefer_for_memory_kills()
    if beginning.group is not None:
        beginning.group.join()
    entry, descriptors = enter.ordered(beginning.status)
    beginning.status.send(enter.READY)
    enter._inherit(descriptors)
    enter._limit(entry)
    os.umask(0o022)
    tier.adopt_orphans()
    linux.drop_capabilities()
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    enter._die_with_parent(beginning.status)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    first = os.getpid()
    init.fork_program(terminal=entry.spec.terminal)
    _restrict(entry, first)
    enter._change_directory(entry.spec.cwd)
    enter._execute(entry.spec)


def _restrict(entry: enter.Entry, first: int) -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != first:
        os._exit(enter.CANNOT_START)
    rights = tier.grants(entry.plan, entry.private)
    rules = landlock.ruleset(landlock.version(), rights, descriptors={0, 1, 2, *entry.numbers}, tcp=True)
    landlock.restrict(rules)
    seccomp.load_filter(entry.tier_filter)
    seccomp.load_filter(entry.filter)
