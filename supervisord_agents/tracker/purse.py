"""What models at providers have cost in the last day, against what they may: nobody is to find a bill in the morning.

An answer is counted before it is asked for, at the most that it may cost, and put right when it is there: one that was given up
is paid for all the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta

DAY_S = 86_400.0
SLOT_S = 600.0
"""What was spent in one counts until a day after its end."""
log = structlog.get_logger()
Slot = tuple[Annotated[float, Meta(ge=0)], Annotated[float, Meta(ge=0)]]
"""When it began (seconds since the epoch), and dollars."""


class Purse:
    """`now` is in seconds since the epoch; `keep` is given all slots whenever one has changed."""

    def __init__(
        self,
        limit_usd: float,
        now: Callable[[], float],
        slots: Iterable[Slot] = (),
        keep: Callable[[list[Slot]], None] = lambda slots: None,
    ) -> None:
        self.limit_usd = limit_usd
        self._now = now
        self._keep = keep
        self._slots: dict[float, float] = {}
        for start, usd in slots:  # one of the future would count for ever
            self._add(min(start, self._slot()), usd)

    @property
    def spent_usd(self) -> float:
        """In the last day."""
        self._forget()
        return math.fsum(self._slots.values())

    def until(self, usd: float) -> float:
        """When so much more may be spent, in seconds since the epoch; 0: now; infinite: never, for it is more than the limit."""
        left = self.spent_usd
        if usd <= 0 or left + usd <= self.limit_usd:
            return 0.0
        if usd > self.limit_usd:
            return math.inf
        end = 0.0
        for start, spent in sorted(self._slots.items()):
            left, end = left - spent, start + SLOT_S + DAY_S
            if left + usd <= self.limit_usd:
                break
        return end

    def charge(self, usd: float) -> Charge:
        """Count what an answer may cost."""
        charge = Charge(self, self._slot(), usd)
        self.put_right(charge.slot, usd)
        return charge

    def put_right(self, slot: float, usd: float) -> None:
        """So much more, or less, was spent in a slot."""
        if usd:
            self._add(slot, usd)
            self._forget()
            self._keep(sorted(self._slots.items()))

    def _slot(self) -> float:
        return self._now() // SLOT_S * SLOT_S

    def _add(self, slot: float, usd: float) -> None:
        self._slots[slot] = max(0.0, self._slots.get(slot, 0.0) + usd)

    def _forget(self) -> None:
        old = self._now() - DAY_S - SLOT_S
        for slot in [slot for slot in self._slots if slot <= old]:
            del self._slots[slot]


class Charge(msgspec.Struct):
    """What an answer that is asked for may cost."""

    purse: Purse
    slot: float
    usd: float

    def was(self, usd: float) -> None:
        """It has cost so much."""
        self.purse.put_right(self.slot, usd - self.usd)
        self.usd = usd


class PurseFile:
    """The slots on disk, for the next daemon; not synced, for a power cut costs what the last seconds did at the most."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Slot]:
        """Of the daemon before; none if there was none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Slot])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("tracker_spending_unknown", path=str(self._path), error=str(error))
            return []

    def write(self, slots: list[Slot]) -> None:
        """Replace the file."""
        new = self._path.with_name(f".{self._path.name}")
        try:
            new.write_bytes(msgspec.json.encode(slots))
            os.replace(new, self._path)
        except OSError as error:
            log.warning("tracker_spending_not_kept", path=str(self._path), error=str(error))
