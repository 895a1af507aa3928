"""The host of a local model (tracker.host) with a model that does what its prompt says, in an ordinary process.

    SAY:<text>            answer with the rest of the line
    TAKE:<seconds>        take so long, unless stopped or out of time
    DEAF:<seconds>        take so long, whatever anybody says
    RAISE:<text>          fail with these words
    LONG:<tokens>         find the prompt too long, by so many tokens
    DIE                   die by SIGKILL in the middle of an answer
    LIE:<how>             `twice`: answer twice; `other`: answer another question; `loaded`: say that it has loaded once more;
                          `counts`: say that there were a thousand million tokens; `noise`: send what is no frame

A model file named `broken` cannot be loaded, one named `mute` is loaded for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

from supervisord_agents.tracker import host, talk
from supervisord_agents.wire.framing import frame

MOST = 10**9


class ScriptedModel:
    """Counts a token a word."""

    def __init__(self, load: talk.Load) -> None:
        if load.model == "broken":
            raise ValueError("it is no model")
        while load.model == "mute":
            time.sleep(60)
        self.about = f"scripted {load.model}"
        self.context_tokens = load.context_tokens

    def tell(self, ask: talk.Ask, stopped: host.Stopped) -> talk.Said:
        words = dict(re.findall(r"\b([A-Z]+)(?::([^\n]*))?", ask.data))
        if "DIE" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "RAISE" in words:
            raise RuntimeError(words["RAISE"])
        if "LONG" in words:
            raise talk.TooLong(int(words["LONG"]), ask.tokens)
        time.sleep(float(words.get("DEAF", 0)))
        whole = _taken(float(words.get("TAKE", 0)), ask.seconds, stopped)
        text, lie = words.get("SAY", "{}"), words.get("LIE", "")
        said = talk.Said(
            id=ask.id + 1000 * (lie == "other"),
            text=text,
            prompt_tokens=MOST if lie == "counts" else len(ask.data.split()),
            cached_tokens=0,
            tokens=MOST if lie == "counts" else len(text.split()),
            prompt_seconds=0.0,
            seconds=0.0,
            whole=whole,
        )
        if lie in ("twice", "loaded", "noise"):
            loaded = talk.Loaded(about="another", context_tokens=1, seconds=0.0)
            os.write(
                talk.CHANNEL_FD,
                b"\xff" * 9 if lie == "noise" else frame(talk.encoder.encode(loaded if lie == "loaded" else said)),
            )
        return said


def _taken(seconds: float, limit_s: float, stopped: host.Stopped) -> bool:
    """Whether it could take so long."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if passed > limit_s or stopped():
            return False
        time.sleep(0.005)
    return True


class Plain:
    """One such process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process

    async def wait(self) -> str:
        return f"it exited with code {await self._process.wait()}"

    def kill(self) -> None:
        # Process.kill() waits for it too (Popen.poll), and the loop's own wait then finds nothing: 255.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Starter:
    """Starts them, and keeps those that it has started."""

    def __init__(self) -> None:
        self.started: list[Plain] = []

    async def __call__(self, channel: socket.socket) -> Plain:
        command = [sys.executable, "-m", __name__, str(channel.fileno())]
        root = Path(__file__).parents[2]
        process = await asyncio.create_subprocess_exec(*command, pass_fds=[channel.fileno()], cwd=root)
        self.started.append(Plain(process))
        return self.started[-1]


if __name__ == "__main__":
    channel = int(sys.argv[1])
    if channel != talk.CHANNEL_FD:
        os.dup2(channel, talk.CHANNEL_FD)
        os.close(channel)
    host.main(ScriptedModel)
