"""Messages between the fork server and its client, over a real pair of sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from socket import send_fds, socket

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import protocol
from sandbox.spec import Bind, SandboxSpec

Ends = tuple[socket, socket]
IDS = st.integers(0, 2**32 - 2)


@pytest.fixture
def ends() -> Iterator[Ends]:
    left, right = protocol.pair()
    yield left, right
    left.close()
    right.close()


FULL = SandboxSpec(
    argv=("sh", "-c", "echo 'ü'"),
    env={"A": "", "LANG": "C.UTF-8"},
    cwd="/workspace",
    hostname="box",
    binds=(Bind("/srv"), Bind("/srv/w", "/workspace", writable=True)),
    tmp_bytes=1,
    uid=2**32 - 2,
    open_files=2,
    file_size_bytes=3,
    memory_bytes=2**63 - 1,
    pids=5,
    cpu_percent=6,
    loopback_listen=(80, 8080),
    init=True,
    optional_layers=("cgroup",),
)
ANSWERS = [
    protocol.Started("v2", {"memory": "v2", "cpu": "not delegated"}),
    protocol.NotStarted("no.", "user namespace", 1, "Do this."),
    protocol.Spawned(1, 4711),
    protocol.Refused(2, "no.", "bind", 2, ""),
    protocol.Exited(3, -1, 9, True, False, 1 << 40, 0.25),
]


def test_a_request_arrives_as_it_was_sent(ends: Ends) -> None:
    for request in (protocol.Spawn(7, FULL, (0, 1, 68)), protocol.Spawn(8, SandboxSpec(argv=("true",)), ()), protocol.Stop()):
        ends[0].send(protocol.encode(request))
        assert protocol.receive_request(ends[1]) == (request, [])


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_an_answer_arrives_as_it_was_sent(ends: Ends, answer: protocol.Message) -> None:
    ends[0].send(protocol.encode(answer))
    assert protocol.receive_answer(ends[1]) == (answer, [])


@given(
    st.builds(
        SandboxSpec,
        argv=st.lists(st.text(), min_size=1).map(tuple),
        env=st.dictionaries(st.text(), st.text()),
        binds=st.lists(st.builds(Bind, st.text(), st.text(), st.booleans(), st.none() | st.tuples(IDS, IDS))).map(tuple),
        memory_bytes=st.integers(0, 2**63 - 1),
        init=st.booleans(),
    )
)
def test_any_specification_survives(spec: SandboxSpec) -> None:
    left, right = protocol.pair()
    with left, right:
        left.send(protocol.encode(protocol.Spawn(1, spec, ())))
        assert protocol.receive_request(right) == (protocol.Spawn(1, spec, ()), [])


def test_packets_keep_apart(ends: Ends) -> None:
    for answer in ANSWERS:
        ends[0].send(protocol.encode(answer))
    assert [protocol.receive_answer(ends[1]) for _ in ANSWERS] == [(answer, []) for answer in ANSWERS]


def test_descriptors_come_beside_in_their_order_and_close_on_exec(ends: Ends) -> None:
    pipes = [os.pipe() for _ in range(2)]
    sent = [descriptor for pipe in pipes for descriptor in pipe]
    message = protocol.encode(protocol.Spawn(1, SandboxSpec(argv=("true",)), (5, 6, 7, 8)))
    send_fds(ends[0], [message], sent)
    received = protocol.receive_request(ends[1])
    assert received is not None
    descriptors = received[1]
    assert [os.stat(descriptor).st_ino for descriptor in descriptors] == [os.stat(descriptor).st_ino for descriptor in sent]
    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
    for descriptor in sent + descriptors:
        os.close(descriptor)


def test_the_other_end_gone_is_none(ends: Ends) -> None:
    ends[0].close()
    assert protocol.receive_request(ends[1]) is None
    assert protocol.receive_answer(ends[1]) is None


def test_the_other_end_gone_with_our_packet_unread_is_none(ends: Ends) -> None:
    ends[1].send(protocol.encode(protocol.Stop()))
    ends[0].close()
    assert protocol.receive_answer(ends[1]) is None


def test_nothing_there_yet_would_block(ends: Ends) -> None:
    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        protocol.receive_answer(ends[1])


@pytest.mark.parametrize("packet", [b"\xc1", b"\x91\xa3who", b"\x93\xa5spawn\xa1x\x90", b"x" * 1000, b"\x92\xa5spawn\xa1\xff"])
def test_what_is_no_message_is_an_error(ends: Ends, packet: bytes) -> None:
    ends[0].send(packet)
    with pytest.raises((msgspec.DecodeError, msgspec.ValidationError)):
        protocol.receive_request(ends[1])
