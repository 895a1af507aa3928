"""From a frame's payload to a Call, or to an error that names the field at fault."""

from __future__ import annotations

import re

import msgspec

from supervisord_agents.core.nesting import MAX_NESTING, too_deep_in
from supervisord_agents.errors import InvalidInput, NotFound, ProtocolError, SupervisorError
from supervisord_agents.wire.envelope import Call, call_decoder
from supervisord_agents.wire.messages import Submit
from supervisord_agents.wire.methods import METHODS

_PATH = re.compile(r" - at (?:`(?P<part>key|\.\.\.)` in )?`\$(?P<path>.*)`$", re.DOTALL)
_NAMED = re.compile(r"(?:unknown|required) field `(?P<name>.*)`", re.DOTALL)
_METHOD_NAMES = ", ".join(str(request.__struct_config__.tag) for request in METHODS)


class _Envelope(msgspec.Struct, array_like=True):
    """A call of which only the id is of interest."""

    id: int
    request: msgspec.Raw = msgspec.Raw()


_envelope_decoder = msgspec.msgpack.Decoder(_Envelope)


class BadCall(Exception):
    """A payload that is not a call; `id` is None if not even that could be read: then the connection is worth nothing."""

    def __init__(self, id: int | None, error: SupervisorError) -> None:
        super().__init__(str(error))
        self.id = id
        self.error = error


def read_call(payload: bytes) -> Call:
    """The call in a payload; raises BadCall."""
    try:
        call = call_decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise BadCall(_id_in(payload), _refusal(str(error))) from error
    except RecursionError as error:
        raise BadCall(None, ProtocolError("the frame is nested too deeply.")) from error
    except UnicodeDecodeError as error:
        raise BadCall(_id_in(payload), InvalidInput(f"a string is not UTF-8: {error}.")) from error
    except msgspec.DecodeError as error:
        raise BadCall(None, ProtocolError(f"the frame is not MessagePack: {error}.")) from error
    if call.id < 0:
        raise BadCall(None, ProtocolError("a call's id must be 0 or more.", field="id"))
    if isinstance(call.request, Submit):
        _refuse_deep_inputs(call.id, call.request)
    return call


def _id_in(payload: bytes) -> int | None:
    try:
        id = _envelope_decoder.decode(payload).id
    except (ValueError, RecursionError):
        return None
    return id if id >= 0 else None


def _refusal(text: str) -> SupervisorError:
    """msgspec's words for a wrong value (`Expected … - at `$[1].tasks[0].priority``), as an error with a field."""
    found = _PATH.search(text)
    message, path = (text[: found.start()], found["path"]) if found else (text, "")
    if not path.startswith("[1]"):
        return InvalidInput(f"{message}: a call is `[id, request]`.")
    field = path.removeprefix("[1]").removeprefix(".")
    if field == "type":
        return NotFound(f"there is no such method: {message}.", field=field, hint=f"Methods: {_METHOD_NAMES}.")
    if named := _NAMED.search(message):
        field = f"{field}.{named['name']}".removeprefix(".")
    return InvalidInput(f"{message}.", field=field)


def _refuse_deep_inputs(id: int, request: Submit) -> None:
    for index, spec in enumerate(request.tasks):
        if deep := too_deep_in(spec):
            raise BadCall(id, InvalidInput(f"is nested deeper than {MAX_NESTING} levels.", field=f"tasks[{index}].{deep}"))
