"""A call and its answer: what a frame of the client protocol holds around the requests and replies of messages.py."""

from __future__ import annotations

import msgspec

from supervisord_agents.wire.messages import ErrorReply
from supervisord_agents.wire.methods import AnyRequest

NO_BODY = msgspec.Raw(b"\xc0")
"""nil: msgspec has no union of Raw and None."""


class Call(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[id, request]`; ids are the client's, unique among its open calls."""

    id: int
    request: AnyRequest


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """`[id, error, body, more]`; one of `error` and `body` is set, but for the last answer of a stream, which has neither."""

    id: int
    error: ErrorReply | None = None
    body: msgspec.Raw = NO_BODY
    more: bool = False


call_encoder = msgspec.msgpack.Encoder()
call_decoder = msgspec.msgpack.Decoder(Call)
answer_decoder = msgspec.msgpack.Decoder(Answer)
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that a decoder raises for bytes that are no such message."""
