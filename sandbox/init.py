"""A small PID 1: it starts the program, passes signals on, reaps what is orphaned, and ends as the program ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import termios

PASSED_ON = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)


def fork_program(*, terminal: bool = False) -> None:
    """Return in a child that goes on to be the program; this process stays behind as PID 1 and never returns.

    The program leads a session and process group of its own, to which signals are passed on, and with `terminal` controls the
    terminal of descriptor 0. When it ends, the kernel kills whatever is left in the namespace. Its death by a signal becomes
    128 + its number.
    """
    # Blocked, a signal waits for us even as PID 1, which loses what it does not handle (pid_namespaces(7)); and a handler could
    # come too late for the wait that it should end.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    program = os.fork()
    if program == 0:
        os.setsid()
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        return
    # This tells the fork server that the sandbox runs: from then on a signal may come.
    os.closerange(3, 1 << 20)
    while True:
        number = signal.sigwait(PASSED_ON | {signal.SIGCHLD})
        if number == signal.SIGCHLD:
            _reap(program)
        else:
            _pass_on(program, number)


def _pass_on(program: int, number: int) -> None:
    """To the whole group, as a terminal does: a shell waits for what it has started before it minds a signal itself."""
    try:
        os.killpg(program, number)
    except ProcessLookupError:  # it has no group yet, or has ended
        with contextlib.suppress(ProcessLookupError):
            os.kill(program, number)


def _reap(program: int) -> None:
    """Bury the dead; end with the program."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == program:
                code = os.waitstatus_to_exitcode(ended[1])
                os._exit(code if code >= 0 else 128 - code)
