"""The real daemon, whose periods are so short that a test may wait for them: the entry of HastyDaemon below."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from sandbox.spec import SandboxSpec
from supervisord_agents.daemon import app, ends, upkeep
from supervisord_agents.wire import frames
from supervisord_agents.workers import pool
from supervisord_agents.workers.shape import RUNTIME_MODULE, Shaper
from tests.support.daemon import ROOT, DaemonProcess

HEARTBEAT_S = 0.5
MISSED_HEARTBEATS = 8
"""More than the daemon's own, for a worker of a busy machine."""
RUNTIME = f"""
import runpy
from supervisord_agents.wire import frames
frames.HEARTBEAT_S = {HEARTBEAT_S}
runpy.run_module("{RUNTIME_MODULE}", run_name="__main__", alter_sys=True)
"""


class HastyDaemon(DaemonProcess):
    """A daemon whose workers send a sign of life every HEARTBEAT_S, and are given up after MISSED_HEARTBEATS of silence."""

    def __init__(self, directory: Path, config: str = "") -> None:
        super().__init__(directory, config)
        self.environment |= {"PYTHONPATH": str(ROOT)}
        self.argv = [sys.executable, "-m", "tests.support.hasty_daemon"]


def hasten_looks() -> None:
    """A daemon that waits for room on its disk looks for it at once."""
    app.ROOM_RETRY_S = ends.RETRY_WRITING_S = upkeep.DISK_CHECK_S = 0.2


def _hasten_heartbeats() -> None:
    frames.HEARTBEAT_S, pool.MISSED_HEARTBEATS = HEARTBEAT_S, MISSED_HEARTBEATS
    its_own = Shaper.sandbox_spec

    def sandbox_spec(*args: object, **kwargs: object) -> SandboxSpec:
        spec = its_own(*args, **kwargs)  # type: ignore[arg-type]
        python, isolated, _, _, *rest = spec.argv
        return msgspec.structs.replace(spec, argv=(python, isolated, "-c", RUNTIME, *rest))

    Shaper.sandbox_spec = sandbox_spec  # type: ignore[method-assign]


if __name__ == "__main__":
    hasten_looks()
    _hasten_heartbeats()
    sys.exit(app.main())
