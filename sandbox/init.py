"""A small PID 1: it starts the program, passes signals on, reaps what is orphaned, and ends as the program ended."""

from __future__ import annotations

import os
import signal
from types import FrameType

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


def fork_program() -> None:
    """Return in a child that goes on to be the program; this process stays behind as PID 1 and never returns.

    When it ends, the kernel kills whatever is left in the namespace. The program's death by a signal becomes 128 + its number.
    """
    program = os.fork()
    if program == 0:
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        os.kill(program, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    # Last, for this tells the fork server that the sandbox runs: from then on a signal may come.
    os.closerange(3, 1 << 20)
    while True:
        pid, outcome = os.wait()
        if pid == program:
            code = os.waitstatus_to_exitcode(outcome)
            os._exit(code if code >= 0 else 128 - code)
