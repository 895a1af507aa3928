"""The process of a local model: PID 1 of a sandbox, with one channel to the daemon and no other way out.

Native code that crashes here costs this process; the daemon starts another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections import deque
from typing import Protocol

import msgspec

from supervisord_agents.errors import ProtocolError
from supervisord_agents.tracker import talk
from supervisord_agents.wire.framing import FrameReader, frame

READ_BYTES = 64 * 1024
NICE = 10
"""The daemon and the workers come first."""
EXIT_PROTOCOL = 65
"""The daemon sent what is no frame (EX_DATAERR of sysexits(3))."""
MESSAGE_CHARACTERS = 500


class Gone(Exception):
    """The daemon has closed the channel."""


class Model(Protocol):
    """What answers: tracker.llama.Model, or a stand-in of the tests."""

    about: str
    context_tokens: int

    def tell(self, ask: talk.Ask, stopped: Stopped) -> talk.Said: ...


class Stopped(Protocol):
    """Whether the answer is not wanted any more."""

    def __call__(self) -> bool: ...


class Loader(Protocol):
    """Loads a model; may raise anything."""

    def __call__(self, load: talk.Load) -> Model: ...


class Channel:
    """The host's end: frames, of which those that stop an answer overtake the others."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = FrameReader(talk.MAX_FRAME_BYTES)
        self._waiting: deque[talk.Load | talk.Ask] = deque()
        self._stopped: set[int] = set()

    def send(self, message: talk.FromHost) -> None:
        """Raises Gone."""
        try:
            self._socket.sendall(frame(talk.encoder.encode(message), talk.MAX_FRAME_BYTES))
        except OSError:
            raise Gone from None

    def next(self) -> talk.Load | talk.Ask:
        """The next thing to do; raises Gone, ProtocolError or MsgspecError."""
        while not self._waiting:
            self._receive()
        return self._waiting.popleft()

    def stopped(self, id: int) -> bool:
        """Whether nobody waits for this answer any more."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._receive(socket.MSG_DONTWAIT)
        return id in self._stopped

    def done(self, id: int) -> None:
        """It was answered."""
        self._stopped.discard(id)

    def _receive(self, flags: int = 0) -> None:
        try:
            data = self._socket.recv(READ_BYTES, flags)
        except ConnectionError:
            data = b""
        if not data:
            raise Gone
        for payload in self._reader.feed(data):
            message = talk.to_host.decode(payload)
            if isinstance(message, talk.Stop):
                self._stopped.add(message.id)
            else:
                self._waiting.append(message)


def serve(channel: Channel, loader: Loader) -> None:
    """Load what the first frame says, then answer until the daemon has gone."""
    load = channel.next()
    if not isinstance(load, talk.Load):
        raise ProtocolError("the first frame does not say which model to load.")
    began = time.monotonic()
    try:
        model = loader(load)
    except Exception as error:
        channel.send(talk.Failed(id=0, message=_in_words(error)))
        return
    channel.send(talk.Loaded(about=model.about, context_tokens=model.context_tokens, seconds=time.monotonic() - began))
    while True:
        ask = channel.next()
        if not isinstance(ask, talk.Ask):
            raise ProtocolError("a model is loaded already.")
        channel.send(_answer(channel, model, ask))
        channel.done(ask.id)


def _answer(channel: Channel, model: Model, ask: talk.Ask) -> talk.Said | talk.Failed:
    try:
        return model.tell(ask, lambda: channel.stopped(ask.id))
    except talk.TooLong as error:
        needed = f"{error.tokens} tokens of prompt and answer do not fit into {model.context_tokens}"
        return talk.Failed(id=ask.id, message=needed, prompt_tokens=error.prompt_tokens)
    except (Gone, ProtocolError, msgspec.MsgspecError):
        raise
    except Exception as error:
        return talk.Failed(id=ask.id, message=_in_words(error))


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS]


def _llama(load: talk.Load) -> Model:
    from supervisord_agents.tracker.llama import Model as Llama  # not installed where no local model is wanted

    return Llama(load)


def main(loader: Loader = _llama) -> None:
    """Entry point; the channel is the descriptor talk.CHANNEL_FD."""
    with contextlib.suppress(OSError):
        os.nice(NICE)
    os.set_inheritable(talk.CHANNEL_FD, False)
    sys.dont_write_bytecode = True
    code = 0
    try:
        serve(Channel(socket.socket(fileno=talk.CHANNEL_FD)), loader)
    except Gone:
        pass
    except (ProtocolError, msgspec.MsgspecError):
        code = EXIT_PROTOCOL
    os._exit(code)  # the libraries' own ends may take long, and nothing is left to be kept


if __name__ == "__main__":
    main()
