"""Payloads: values come back as they were sent; what is none of the protocol becomes a typed error, whatever the bytes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisord_agents.core.model import MAX_COST_USD, Failure, Limits, TaskSpec, Usage
from supervisord_agents.errors import ErrorCode, SupervisorError
from supervisord_agents.rpc.calls import MAX_NESTING, BadCall, read_call
from supervisord_agents.wire import envelope, frames
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.framing import frame
from supervisord_agents.wire.methods import AnyRequest
from supervisord_agents.workers.worker import Channel

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
DEEP = 100_000
encode = msgspec.msgpack.encode
ids = st.integers(-(2**63), 2**64 - 1)
scalars = st.none() | st.booleans() | ids | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
short = st.text(max_size=12)
seconds = st.floats(min_value=0, allow_infinity=False)
specs = st.builds(
    TaskSpec,
    id=short,
    input=st.dictionaries(short, values, max_size=3),
    timeout_s=seconds,
    limits=st.builds(Limits, pids=st.integers(0, 2**31)),
    priority=st.integers(0, 9),
)
failures = st.builds(Failure, code=short, message=short, retriable=st.booleans())
usages = st.builds(Usage, input_tokens=st.integers(0, 2**40), cost_usd=st.floats(0, MAX_COST_USD))
attempts = {"task": short, "attempt": st.integers(0, 2**31)}
from_worker = st.one_of(
    st.builds(frames.WorkerHello, version=st.integers(0, 9), pid=st.integers(0, 2**22)),
    st.builds(frames.Progress, fraction=st.floats(0, 1), message=short, **attempts),
    st.builds(frames.Log, stream=st.sampled_from(["stdout", "stderr", "worker"]), data=st.binary(), **attempts),
    st.just(frames.Heartbeat()),
    st.builds(frames.UsageReport, usage=usages, **attempts),
    st.builds(frames.TaskResult, output=values, usage=usages, truncated=st.booleans(), **attempts),
    st.builds(frames.TaskError, failure=failures, output=values, usage=usages, **attempts),
)
to_worker = st.one_of(
    st.builds(frames.RunTask, spec=specs, agent_class=short, **attempts),
    st.builds(frames.CancelTask, **attempts),
)
requests = st.one_of(
    st.builds(m.Hello, version=st.integers(0, 9), client=short),
    st.builds(m.Submit, tasks=st.lists(specs, max_size=3), key=short),
    st.builds(m.Wait, tasks=st.lists(short, max_size=3), mode=short, timeout_s=seconds),
    st.builds(m.Cancel, task=short, subtree=st.booleans(), reason=short),
    st.builds(m.GetLogs, task=short, offset=st.integers(-(2**63), 2**64 - 1)),
    st.builds(m.Subscribe, after=short, graph=short, logs=st.booleans()),
    st.just(m.Status()),
)


class Heard:
    """A worker's channel at the daemon's end, without a transport."""

    def __init__(self) -> None:
        self.frames: list[frames.FromWorker] = []
        self.errors: list[Any] = []
        self.channel = Channel(self.frames.append, self.errors.append, lambda: None)


def outcome(payload: bytes) -> envelope.Call | SupervisorError:
    """The call in the payload, or the error for the client; nothing else may come of it."""
    try:
        return read_call(payload)
    except BadCall as bad:
        return bad.error


def is_sound(found: envelope.Call | SupervisorError) -> bool:
    return isinstance(found, envelope.Call) or found.code in (ErrorCode.INVALID, ErrorCode.NOT_FOUND)


def refused(payload: bytes) -> BadCall:
    with pytest.raises(BadCall) as caught:
        read_call(payload)
    return caught.value


@unhurried
@given(from_worker)
def test_frames_of_a_worker_come_back_as_they_were_sent(sent: frames.FromWorker) -> None:
    assert frames.from_worker_decoder.decode(frames.encoder.encode(sent)) == sent


@unhurried
@given(to_worker)
def test_frames_to_a_worker_come_back_as_they_were_sent(sent: frames.ToWorker) -> None:
    assert frames.to_worker_decoder.decode(frames.encoder.encode(sent)) == sent


@unhurried
@given(st.integers(0, 2**64 - 1), requests)
def test_calls_come_back_as_they_were_sent(id: int, request: AnyRequest) -> None:
    assert read_call(envelope.call_encoder.encode(envelope.Call(id, request))) == envelope.Call(id, request)


@unhurried
@given(st.binary())
def test_bytes_are_a_call_or_a_typed_error(payload: bytes) -> None:
    assert is_sound(outcome(payload))


@unhurried
@given(values | st.tuples(ids, values) | st.tuples(ids, st.fixed_dictionaries({"type": values})))
def test_any_value_is_a_call_or_a_typed_error(value: Any) -> None:
    assert is_sound(outcome(encode(value)))


@unhurried
@given(requests, st.data())
def test_a_call_damaged_in_one_byte_is_a_call_or_a_typed_error(request: AnyRequest, data: st.DataObject) -> None:
    payload = bytearray(envelope.call_encoder.encode(envelope.Call(1, request)))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] = data.draw(st.integers(0, 255))
    assert is_sound(outcome(bytes(payload)))


@unhurried
@given(requests, st.data())
def test_a_call_cut_short_ends_the_connection(request: AnyRequest, data: st.DataObject) -> None:
    payload = envelope.call_encoder.encode(envelope.Call(1, request))
    assert refused(payload[: data.draw(st.integers(0, len(payload) - 1))]).id is None


STATUS = {"type": "status"}
BAD_CALLS: list[tuple[str, bytes, int | None, ErrorCode, str]] = [
    ("nothing", b"", None, ErrorCode.INVALID, ""),
    ("no MessagePack", b"\xc1", None, ErrorCode.INVALID, ""),
    ("bytes after the value", encode([1, STATUS]) + b"\0", None, ErrorCode.INVALID, ""),
    ("no array", encode({"id": 1}), None, ErrorCode.INVALID, ""),
    ("an id that is a text", encode(["1", STATUS]), None, ErrorCode.INVALID, ""),
    ("an id below 0", encode([-1, STATUS]), None, ErrorCode.INVALID, "id"),
    ("an array of one", encode([1]), 1, ErrorCode.INVALID, ""),
    ("an array of three", encode([1, STATUS, 0]), 1, ErrorCode.INVALID, ""),
    ("an unknown method", encode([1, {"type": "steal"}]), 1, ErrorCode.NOT_FOUND, "type"),
    ("no method", encode([1, {}]), 1, ErrorCode.INVALID, "type"),
    ("an unknown field", encode([1, {"type": "status", "odd": 1}]), 1, ErrorCode.INVALID, "odd"),
    ("an unknown field within", encode([1, {"type": "submit", "tasks": [{"prio": 1}]}]), 1, ErrorCode.INVALID, "tasks[0].prio"),
    ("a missing field", encode([1, {"type": "show"}]), 1, ErrorCode.INVALID, "task"),
    ("bin for a text", encode([1, {"type": "show", "task": b"x"}]), 1, ErrorCode.INVALID, "task"),
    ("nil for a text", encode([1, {"type": "show", "task": None}]), 1, ErrorCode.INVALID, "task"),
    ("a float for an integer", encode([1, {"type": "list", "limit": 5.0}]), 1, ErrorCode.INVALID, "limit"),
    ("a bool for an integer", encode([1, {"type": "list", "limit": True}]), 1, ErrorCode.INVALID, "limit"),
    ("an unknown state", encode([1, {"type": "list", "states": ["odd"]}]), 1, ErrorCode.INVALID, "states[0]"),
    ("a text that is no UTF-8", b"\x92\x01\x82\xa4type\xa4show\xa4task\xa1\xff", 1, ErrorCode.INVALID, ""),
]


@pytest.mark.parametrize(("payload", "id", "code", "field"), [row[1:] for row in BAD_CALLS], ids=[row[0] for row in BAD_CALLS])
def test_what_is_wrong_with_a_call_and_whether_the_connection_stays(
    payload: bytes, id: int | None, code: ErrorCode, field: str
) -> None:
    bad = refused(payload)
    assert (bad.id, bad.error.code, bad.error.field) == (id, code, field)


def test_what_is_read_generously() -> None:
    as_integer = read_call(encode([1, {"timeout_s": 5, "tasks": ["a"], "type": "wait"}])).request
    assert as_integer == m.Wait(tasks=["a"], timeout_s=5.0)
    assert read_call(b"\x92\x01\x83\xa4type\xa4show\xa4task\xa1a\xa4task\xa1b").request == m.Show(task="b")


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"], ids=["arrays", "maps"])
def test_nesting_without_end_is_a_typed_error(opening: bytes) -> None:
    assert refused(opening * DEEP).error.code is ErrorCode.INVALID
    head = b"\x92\x01\x82\xa4type\xa6submit\xa5tasks\x91\x81\xa5input\x81\xa1a"
    assert refused(head + opening * DEEP + b"\xc0").error.code is ErrorCode.INVALID


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["arrays", "maps"])
def test_an_input_may_be_nested_so_deep_and_no_deeper(wrap: Any) -> None:
    def call(levels: int) -> bytes:
        value: Any = 1
        for _ in range(levels - 1):
            value = wrap(value)
        return encode([7, {"type": "submit", "tasks": [{}, {"input": {"a": value}}]}])

    assert read_call(call(MAX_NESTING)).id == 7
    bad = refused(call(MAX_NESTING + 1))
    assert (bad.id, bad.error.code, bad.error.field) == (7, ErrorCode.INVALID, "tasks[1].input")


@unhurried
@given(st.lists(st.binary(max_size=64), max_size=6))
def test_bytes_from_a_worker_are_frames_or_one_typed_error(pieces: list[bytes]) -> None:
    heard = Heard()
    for piece in pieces:
        heard.channel.data_received(piece)
        if heard.errors:
            break
    assert len(heard.errors) <= 1


@unhurried
@given(st.binary(max_size=256) | values.map(encode))
def test_a_payload_from_a_worker_is_a_frame_or_one_typed_error(payload: bytes) -> None:
    heard = Heard()
    heard.channel.data_received(frame(payload))
    assert len(heard.frames) + len(heard.errors) == 1


@pytest.mark.parametrize(
    "data",
    [
        frame(b""),
        frame(b"\xc1"),
        frame(encode({"type": "steal"})),
        frame(encode({"pid": 1})),
        frame(encode({"type": "progress", "task": "g.t"})),
        frame(encode({"type": "progress", "task": "g.t", "attempt": "1"})),
        frame(b"\x84\xa4type\xa3log\xa4task\xa1\xff\xa7attempt\x01\xa6stream\xa1x"),
        frame(b"\x84\xa4type\xa6result\xa4task\xa1a\xa7attempt\x01\xa6output" + b"\x91" * 4000 + b"\xc0"),
        (frames.MAX_FRAME_BYTES + 1).to_bytes(4, "little"),
    ],
    ids=["empty", "bytes", "type", "untyped", "missing", "kind", "text", "deep", "length"],
)
def test_what_a_worker_may_not_send_is_one_typed_error(data: bytes) -> None:
    heard = Heard()
    heard.channel.data_received(frame(frames.encoder.encode(frames.WorkerHello(version=2, pid=1))))
    heard.channel.data_received(data)
    assert heard.frames == [frames.WorkerHello(version=2, pid=1)]
    assert [error.code for error in heard.errors] == [ErrorCode.INVALID]


def test_a_field_that_the_daemon_does_not_know_is_ignored_in_a_worker_frame() -> None:
    heard = Heard()
    heard.channel.data_received(frame(encode({"type": "heartbeat", "mood": "good"})))
    assert heard.frames == [frames.Heartbeat()]
