"""The fork server that a dead client has left behind."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sandbox import protocol, rendezvous


def end_server(door: Path) -> None:
    """End the fork server that waits behind a door, and return when all its sandboxes are gone; none may be there."""
    control = rendezvous.connect(door) if door.exists() else None
    if control is not None:
        with control, contextlib.suppress(BrokenPipeError):
            control.send(protocol.encode(protocol.Stop()))
            while protocol.receive_answer(control) is not None:
                pass
