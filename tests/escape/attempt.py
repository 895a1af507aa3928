"""What an escape attempt is: a small program run inside, what is planted outside, and a judge who looks from outside."""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import StrEnum
from typing import Any, NamedTuple

from tests.escape.host import Host, Secret


class Verdict(StrEnum):
    """What came of an attempt."""

    BLOCKED = "blocked"
    """Refused: it had no effect at all."""
    CONTAINED = "contained"
    """It had an effect, but only inside."""
    ESCAPED = "escaped"
    NOT_APPLICABLE = "n.a."


class Judged(NamedTuple):
    """A verdict, and why where that is not plain."""

    verdict: Verdict
    why: str = ""


class NotApplicableError(Exception):
    """The attempt cannot be made here; says why."""


class BrokenError(AssertionError):
    """Nothing can be said: the program did not run as it should have."""


class Outcome(NamedTuple):
    """What came out of a program. `did` and `refused` are by the name of each try: a value, or the name of an errno."""

    did: dict[str, Any]
    refused: dict[str, str]
    output: str
    ended: bool
    """It came to its end, or was killed by a filter."""
    late: bool
    """It took longer than it may, and was killed."""

    def sound(self) -> Outcome:
        """Raise BrokenError unless the program has tried something and told what came of it."""
        if not self.ended or not (self.did or self.refused):
            raise BrokenError(f"the program says nothing that can be judged: {self.output[-800:]!r}")
        return self


Words = dict[str, Any]
"""What a program is given, as JSON."""
Course = Generator[Words, Outcome, Verdict | Judged]
"""Plants, gives the words, gets the outcome, judges."""


class Held(StrEnum):
    """What of the profile's limits an attempt is against: the sandbox is made with those of `jails.BOUNDS`."""

    NONE = "none"
    BY_ITSELF = "what every user can limit"
    BY_GROUPS = "what control groups limit, which the host must let the caller have"


class Attempt(NamedTuple):
    """One way out. `course` is given the host that the program's sandbox runs on."""

    name: str
    family: str
    course: Callable[[Host], Course]
    program: str
    alone: bool
    """Not in one sandbox with others."""
    terminal: bool
    held: Held
    mounts: bool
    """Would change mounts or the machine itself if nothing held it: never to be run without a sandbox."""
    timeout_s: float

    @property
    def tells(self) -> str:
        """What is tried, in a line."""
        return (self.course.__doc__ or "").strip().split("\n")[0].rstrip(".")


class Family:
    """The attempts of one file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attempts: list[Attempt] = []

    def attempt(
        self,
        program: str,
        *,
        alone: bool = False,
        terminal: bool = False,
        held: Held = Held.NONE,
        mounts: bool = False,
        timeout_s: float = 10,
    ) -> Callable[[Callable[[Host], Course]], Callable[[Host], Course]]:
        """Decorates the course of an attempt."""

        def add(course: Callable[[Host], Course]) -> Callable[[Host], Course]:
            name = course.__name__.replace("_", "-")
            alone_ = alone or terminal or held is not Held.NONE
            self.attempts.append(Attempt(name, self.name, course, program, alone_, terminal, held, mounts, timeout_s))
            return course

        return add

    def effects(self, tries: dict[str, tuple[str, str]], *, mounts: bool = False, host_wide: bool = False) -> None:
        """Attempts that need nothing planted, as {name: (what, program)}: what succeeds has an effect, inside or on the host."""
        for name, (what, program) in tries.items():

            def course(host: Host) -> Course:
                outcome = yield {}
                return effect(outcome, Verdict.ESCAPED if host_wide else Verdict.CONTAINED)

            course.__name__, course.__doc__ = name, what
            self.attempt(program, mounts=mounts)(course)


def effect(outcome: Outcome, verdict: Verdict = Verdict.CONTAINED) -> Judged:
    """Blocked if nothing of what was tried was done."""
    outcome.sound()
    if outcome.did:
        return Judged(verdict, ", ".join(outcome.did))
    return Judged(Verdict.BLOCKED, ", ".join(dict.fromkeys(outcome.refused.values())))


def leak(outcome: Outcome, *secrets: Secret) -> Judged:
    """Escaped if a secret came out; blocked otherwise, whatever else the program did."""
    if any(secret.token in outcome.output for secret in secrets):
        return Judged(Verdict.ESCAPED, "the secret came out")
    outcome.sound()
    return Judged(Verdict.BLOCKED, ", ".join(dict.fromkeys(outcome.refused.values())))


def reached(outcome: Outcome, it: bool) -> Judged:
    """Escaped if something of the host was reached, as seen there; blocked or contained otherwise."""
    if it:
        return Judged(Verdict.ESCAPED, "seen on the host")
    return effect(outcome)
