"""What the daemon and the process of a local model say to each other: msgpack in frames (wire.framing) on a socketpair.

daemon   Load, then any number of Ask, one at a time; Stop in between
host     Loaded, or Failed with id 0; then one Said or Failed for each Ask, also for one that was stopped
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

GGUF = b"GGUF"
"""What a file of a model begins with."""
CHANNEL_FD = 3
"""The host's end."""
MAX_FRAME_BYTES = 8 * 1024 * 1024
Count = Annotated[int, Meta(ge=0, le=10**9)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
"""What the host says is not believed to be anything else: its native code has read what workers wrote."""


class Load(msgspec.Struct, tag="load", frozen=True, kw_only=True):
    """Which model, and how: once, before all else. `threads` 0: half of the processors."""

    model: str
    context_tokens: int
    threads: int = 0
    gpu_layers: int = 0


class Ask(msgspec.Struct, tag="ask", frozen=True, kw_only=True):
    """A prompt, in the parts of tracker.backend.Prompt, and the bounds of its answer; `schema` is JSON."""

    id: int
    system: str
    data: str
    question: str
    schema: bytes
    tokens: int
    seconds: float


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """Nobody waits for the answer any more. What is read of the prompt by then stays in the cache."""

    id: int


ToHost = Load | Ask | Stop


class TooLong(Exception):
    """A prompt and its answer do not fit."""

    def __init__(self, prompt_tokens: int, tokens: int) -> None:
        super().__init__(prompt_tokens, tokens)
        self.prompt_tokens = prompt_tokens
        self.tokens = prompt_tokens + tokens


def size(ask: Ask) -> int:
    """The bytes of a prompt."""
    return sum(len(part.encode("utf-8", "replace")) for part in (ask.system, ask.data, ask.question))


class Loaded(msgspec.Struct, tag="loaded", frozen=True, kw_only=True):
    """The model is ready; `about` names it."""

    about: str
    context_tokens: Count
    seconds: Seconds


class Said(msgspec.Struct, tag="said", frozen=True, kw_only=True):
    """The answer. `cached_tokens` of the prompt were known from the one before; `whole`: the model had finished."""

    id: Count
    text: str
    prompt_tokens: Count
    cached_tokens: Count
    tokens: Count
    prompt_seconds: Seconds
    seconds: Seconds
    whole: bool


class Failed(msgspec.Struct, tag="failed", frozen=True, kw_only=True):
    """No answer. `prompt_tokens`, if the prompt is too long, is how long it is."""

    id: Count
    message: str
    prompt_tokens: Count = 0


FromHost = Loaded | Said | Failed

encoder = msgspec.msgpack.Encoder()
to_host = msgspec.msgpack.Decoder(ToHost)
from_host = msgspec.msgpack.Decoder(FromHost)
