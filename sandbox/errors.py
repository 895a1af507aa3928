"""The errors of the sandbox: which step failed, the kernel's errno, and what to do next."""

from __future__ import annotations


class SandboxError(Exception):
    """A sandbox could not be built, or the host cannot enforce what was asked; nothing was left running.

    `step` names the step that failed, `errno` is the kernel's answer (0 when there was none), `hint` says what to do next.
    """

    def __init__(self, message: str, *, step: str = "", errno: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.errno = errno
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.step}: " if self.step else ""
        return f"{where}{self.message}" + (f" {self.hint}" if self.hint else "")
