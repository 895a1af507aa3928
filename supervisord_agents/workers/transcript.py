"""What an attempt has said, as far as a daemon that comes back may not have heard it.

What was on its way when a daemon died is gone with its socket. So the last KEPT_BYTES of output stay here after they were sent:
more than a channel can hold. While there is no daemon, all that comes waits here; beyond WAITING_BYTES nothing more is to be read
from the work, which then stands still like any program whose pipe is full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from supervisord_agents.wire import frames

KEPT_BYTES = 1024 * 1024
"""Of a channel's buffers: net.core.wmem_default (unix(7)) is 208 KiB, and a daemon reads 256 KiB at a time."""
WAITING_BYTES = 1024 * 1024
PIECE_BYTES = 256
"""What a piece of output costs, however short it is; in a channel too."""


class Transcript:
    """Of one attempt; its `task` is empty if there was none yet."""

    def __init__(self, task: str = "", attempt: int = 0) -> None:
        self.task = task
        self.attempt = attempt
        self.end: bytes | None = None
        """The frame of the attempt's end, encoded."""
        self._pieces: deque[frames.Log] = deque()
        self._kept = 0
        self._logged = 0
        self._waiting = 0
        self._progress: frames.Progress | None = None
        self._usage: frames.UsageReport | None = None
        self._asked: dict[tuple[str, int], frames.Question] = {}
        """Not yet answered."""

    @property
    def full(self) -> bool:
        """No more output is to be read for now."""
        return self._waiting >= WAITING_BYTES

    def log(self, stream: str, data: bytes, *, sent: bool) -> frames.Log:
        """Keep a piece of output; `sent`: it goes out at once."""
        piece = frames.Log(task=self.task, attempt=self.attempt, stream=stream, data=data, offset=self._logged)
        self._logged += len(data)
        self._pieces.append(piece)
        self._kept += _cost(piece)
        if sent:
            while self._kept - _cost(self._pieces[0]) >= KEPT_BYTES:
                self._kept -= _cost(self._pieces.popleft())
        else:
            self._waiting += _cost(piece)
        return piece

    def note(self, report: frames.Progress | frames.UsageReport) -> None:
        """Keep the newest of its kind."""
        if isinstance(report, frames.Progress):
            self._progress = report
        else:
            self._usage = report

    def ask(self, question: frames.Question) -> None:
        """Keep it until it is answered."""
        self._asked[question.question] = question

    def answered(self, answer: frames.Answer) -> None:
        """It need not be asked again."""
        self._asked.pop(answer.question, None)

    def since(self, offset: int) -> Iterator[frames.Progress | frames.UsageReport | frames.Question | frames.Log]:
        """What is to be said again to a daemon that has this many bytes of the output."""
        self._waiting = 0
        yield from (piece for piece in self._pieces if piece.offset + len(piece.data) > offset)
        yield from self._asked.values()
        yield from (report for report in (self._usage, self._progress) if report is not None)


def _cost(piece: frames.Log) -> int:
    return len(piece.data) + PIECE_BYTES
