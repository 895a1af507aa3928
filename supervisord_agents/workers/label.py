"""What a later daemon must know of a sandbox that it finds running."""

from __future__ import annotations

import msgspec

from supervisord_agents.wire import frames
from supervisord_agents.workers.shape import Shape


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """The worker in a sandbox; what it is doing, it says itself."""

    worker: str
    pool: str
    shape: Shape
    uid: int
    protocol: int = frames.WORKER_PROTOCOL_VERSION

    def written(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def read(cls, label: bytes) -> Label | None:
        """None for one of a version with which the worker cannot be spoken to."""
        try:
            found: Label = msgspec.msgpack.decode(label, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return found if found.protocol == frames.WORKER_PROTOCOL_VERSION else None
