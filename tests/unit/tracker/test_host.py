"""The host of a local model, at its end of the channel."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from supervisord_agents.errors import ProtocolError
from supervisord_agents.tracker import host, talk
from supervisord_agents.wire.framing import FrameReader, frame

LOAD = talk.Load(model="m", context_tokens=10)


class Model:
    about = "m"
    context_tokens = 10

    def __init__(self, load: talk.Load) -> None:
        self.was_stopped: list[bool] = []

    def tell(self, ask: talk.Ask, stopped: host.Stopped) -> talk.Said:
        if ask.data == "until stopped":
            while not stopped():
                pass
        return talk.Said(
            id=ask.id,
            text=ask.data,
            prompt_tokens=1,
            cached_tokens=0,
            tokens=1,
            prompt_seconds=0,
            seconds=0,
            whole=True,
        )


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, host.Channel]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10.0)
    with ours, theirs:
        yield ours, host.Channel(theirs)


def send(sock: socket.socket, *messages: talk.ToHost) -> None:
    sock.sendall(b"".join(frame(talk.encoder.encode(message)) for message in messages))


def heard(sock: socket.socket, count: int) -> list[talk.FromHost]:
    """The first so many frames of the host."""
    reader, found = FrameReader(), []
    while len(found) < count:
        found += [talk.from_host.decode(payload) for payload in reader.feed(sock.recv(65536))]
    return found


def ask(id: int, data: str) -> talk.Ask:
    return talk.Ask(id=id, system="", data=data, question="", schema=b"{}", tokens=5, seconds=9.0)


def served(pair: tuple[socket.socket, host.Channel], *messages: talk.ToHost, answers: int) -> list[talk.FromHost]:
    """What the host says until it has said so much; then the daemon goes."""
    ours, channel = pair
    send(ours, *messages)
    ended: list[type[BaseException]] = []

    def serve() -> None:
        try:
            host.serve(channel, Model)
        except BaseException as error:
            ended.append(type(error))

    thread = threading.Thread(target=serve)
    thread.start()
    found = heard(ours, answers)
    ours.shutdown(socket.SHUT_WR)
    thread.join(10.0)
    assert ended == [host.Gone]
    return found


def test_answers_come_in_the_order_of_the_questions(pair: tuple[socket.socket, host.Channel]) -> None:
    loaded, *said = served(pair, LOAD, ask(1, "a"), ask(2, "b"), answers=3)
    assert isinstance(loaded, talk.Loaded)
    assert [(one.id, one.text) for one in said if isinstance(one, talk.Said)] == [(1, "a"), (2, "b")]


def test_a_stop_overtakes_what_waits(pair: tuple[socket.socket, host.Channel]) -> None:
    said = served(pair, LOAD, ask(1, "until stopped"), ask(2, "b"), talk.Stop(1), answers=3)
    assert [one.id for one in said if isinstance(one, talk.Said)] == [1, 2]


@pytest.mark.parametrize("messages", [(ask(1, "a"),), (LOAD, LOAD)])
def test_a_daemon_that_does_not_keep_to_the_protocol(
    pair: tuple[socket.socket, host.Channel], messages: tuple[talk.ToHost, ...]
) -> None:
    ours, channel = pair
    send(ours, *messages)
    with pytest.raises(ProtocolError):
        host.serve(channel, Model)
