"""The outbox: the end of an attempt, left where a daemon that comes back finds it. See frames.WORKER_DIR."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path

from supervisord_agents.wire import frames

KEEP_FRAMES = 16
"""Far more than a daemon can have received from one worker without having recorded them."""


class Outbox:
    """`outbox/` of the directory shared with the daemon; without that directory nothing is kept."""

    def __init__(self, worker_dir: Path) -> None:
        self._directory = worker_dir / "outbox"
        self._kept: deque[Path] = deque()
        with contextlib.suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)

    def put(self, frame: frames.TaskResult | frames.TaskError) -> None:
        """Keep the frame, whole or not at all. It outlives this process and the daemon, not the machine."""
        path = self._directory / f"{frame.task}.{frame.attempt}"
        temporary = path.with_name(path.name + ".tmp")
        with contextlib.suppress(OSError):
            # The exclusive creation follows no link that a task may have laid there.
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(frames.encoder.encode(frame))
            os.replace(temporary, path)
        self._drop_old(path)

    def _drop_old(self, path: Path) -> None:
        self._kept.append(path)
        if len(self._kept) > KEEP_FRAMES:
            with contextlib.suppress(OSError):
                self._kept.popleft().unlink(missing_ok=True)
