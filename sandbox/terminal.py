"""A terminal made for one sandbox, between the user's own and the program.

The user's own is not passed on: who has it can do more with it than read and write (CVE-2017-5226), and it belongs to the session
of the user's shell, so that Ctrl-C and job control would not work in the sandbox's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import termios
import tty
from typing import Any

CHUNK = 65_536


class Terminal:
    """The program gets `inside`. Between `open` and `close`, what is typed goes in and what is printed comes out."""

    def __init__(self) -> None:
        self._outside, self.inside = os.openpty()
        os.set_blocking(self._outside, False)
        self._loop = asyncio.get_running_loop()
        self._typed = b""
        self._all_printed = asyncio.Event()
        self._mode: list[Any] = termios.tcgetattr(0)
        termios.tcsetattr(self.inside, termios.TCSANOW, self._mode)
        self._resize()

    @staticmethod
    def wanted() -> bool:
        """Whether a person sits at input and output of this process, which is in the foreground."""
        try:
            return os.isatty(0) and os.isatty(1) and os.tcgetpgrp(0) == os.getpgrp()
        except OSError:  # not the terminal of our session
            return False

    def open(self) -> None:
        """To be called when the program has its copy of `inside`, which is closed here."""
        os.close(self.inside)
        tty.setraw(0)
        self._loop.add_reader(0, self._on_typed)
        self._loop.add_reader(self._outside, self._on_printed)
        self._loop.add_signal_handler(signal.SIGWINCH, self._resize)

    async def close(self) -> None:
        """Give the user's terminal back as it was, once the program has ended and all that it printed is out."""
        await self._all_printed.wait()
        self._loop.remove_signal_handler(signal.SIGWINCH)
        self._loop.remove_reader(0)
        self._loop.remove_writer(self._outside)
        os.close(self._outside)
        with contextlib.suppress(termios.error):  # it has hung up
            termios.tcsetattr(0, termios.TCSADRAIN, self._mode)

    def _on_typed(self) -> None:
        try:
            self._typed = os.read(0, CHUNK)
        except OSError:
            self._typed = b""
        self._loop.remove_reader(0)
        if self._typed:
            self._pass_in()

    def _pass_in(self) -> None:
        """As much as the program takes; nothing more is read meanwhile."""
        try:
            while self._typed:
                self._typed = self._typed[os.write(self._outside, self._typed) :]
        except BlockingIOError:
            self._loop.add_writer(self._outside, self._pass_in)
            return
        except OSError:
            self._typed = b""
        self._loop.remove_writer(self._outside)
        self._loop.add_reader(0, self._on_typed)

    def _on_printed(self) -> None:
        try:
            printed = os.read(self._outside, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has it open any more
            self._loop.remove_reader(self._outside)
            self._all_printed.set()
            return
        with contextlib.suppress(OSError):  # the user's terminal is gone: the program will be told so by SIGHUP
            while printed:
                printed = printed[os.write(1, printed) :]

    def _resize(self) -> None:
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(self._outside, termios.TIOCSWINSZ, size)
