"""A machine whose disk forgets what was not synced when its power is cut, with a real daemon on it."""

from __future__ import annotations

import contextlib
import ctypes.util
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.support.daemon import ROOT, DaemonProcess
from tests.support.lossy_disk import Loss

END_S = 30.0


def why_not() -> str:
    """What this machine lacks for it; empty if nothing."""
    if os.geteuid() != 0:
        return "only root may mount in a namespace of its own and start a daemon there"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    if ctypes.util.find_library("fuse3") is None:
        return "libfuse3 is not installed: .ci/setup python installs it"
    return ""


class LossyMachine(DaemonProcess):
    """A daemon whose state directory lies on a LossyDisk of so many bytes. `boot` comes before the first start."""

    def __init__(self, directory: Path, config: str = "", capacity: int = 1 << 40) -> None:
        super().__init__(directory, config)
        self.capacity = capacity
        self._place = directory / "disk"
        self._place.mkdir(exist_ok=True)
        self.state = self._place / "state"
        self._image = directory / "disk.image"
        self._mount: subprocess.Popen[bytes] | None = None
        self._tree: list[int] = []
        self.environment |= {"PYTHONPATH": str(ROOT), "PROBE_FILE": str(directory / "probe.json")}
        self.pid = 0

    def boot(self) -> None:
        """Mount what is on the disk, in a mount namespace that ends with the machine."""
        argv = [sys.executable, "-m", "tests.support.lossy_mount", str(self._place), str(self._image), str(self.capacity)]
        with (self.directory / "disk.log").open("ab") as log:
            self._mount = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=self.environment
            )
        assert self._answer() == {"mounted": True}

    def spawn(self) -> None:
        argv = [sys.executable, "-m", "tests.support.lossy_daemon", "--socket", str(self.socket), "--state-dir", str(self.state)]
        self.pid = self._ask("spawn", argv=argv, environment=self.environment, log=str(self.log))["pid"]

    def exit_code(self) -> int | None:
        """Of the daemon; None while it runs."""
        code: int | None = self._ask("ended")["code"]
        return code

    def assert_alive(self) -> None:
        assert self.exit_code() is None, f"the daemon ended with {self.exit_code()}:\n{self.log_text()}"

    # The disk

    def set(self, **faults: Any) -> None:
        """`stalled`: no sync ends. `sync_fails`: with EIO. `capacity`: in bytes."""
        self._ask("set", **faults)

    def look(self) -> dict[str, int]:
        """`used` and `capacity` in bytes, `syncs` done, and how many syncs are `waiting`."""
        return self._ask("look")

    def read(self, path: Path) -> bytes:
        """A file of the disk: from here only the empty directory below it is seen."""
        return Path(f"/proc/{self._mount_pid}/root{path}").read_bytes()

    # Ends

    def cut_power(self, loss: Loss, seed: int) -> None:
        """All at once: the disk takes no more, every process is gone, and so is what was not synced."""
        self._ask("freeze")
        processes = self._kill_all()
        self._ask("cut", loss=loss, seed=seed)
        self._unplug(processes)

    def kill(self) -> None:
        """SIGKILL of the daemon alone."""
        descriptor = os.pidfd_open(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        _gone([descriptor])

    def stop(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            _gone([os.pidfd_open(self.pid)])
        while (code := self.exit_code()) is None:
            pass
        return code

    def close(self) -> None:
        if self._mount is None:
            return
        if self._mount.poll() is None:
            self._ask("set", stalled=False)
            self._unplug(self._kill_all())

    def _kill_all(self) -> list[int]:
        """SIGKILL to the daemon and all that came of it; gives their pidfds. A worker is the child of one that is on the list."""
        try:
            daemon = psutil.Process(self.pid) if self.pid else None
        except psutil.NoSuchProcess:
            daemon = None
        if daemon is None:
            return []
        daemon.suspend()
        descriptors = []
        for process in [*daemon.children(recursive=True), daemon]:
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                descriptors.append(os.pidfd_open(process.pid))
                process.kill()
        return descriptors

    def _unplug(self, processes: list[int]) -> None:
        """The mount goes with its process; those that waited for the disk are woken by that, to die."""
        assert self._mount is not None
        self._mount.kill()
        self._mount.wait()
        for pipe in (self._mount.stdin, self._mount.stdout):
            assert pipe is not None
            pipe.close()
        self._mount = None
        _gone(processes)
        self.pid = 0

    @property
    def _mount_pid(self) -> int:
        assert self._mount is not None
        return self._mount.pid

    def _ask(self, command: str, **more: Any) -> Any:
        assert self._mount is not None
        assert self._mount.stdin is not None
        self._mount.stdin.write(json.dumps({"do": command, **more}).encode() + b"\n")
        self._mount.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._mount is not None
        assert self._mount.stdout is not None
        line = self._mount.stdout.readline()
        assert line, f"the disk is gone:\n{(self.directory / 'disk.log').read_text()}"
        return json.loads(line)


def _gone(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        ready, _, _ = select.select([descriptor], [], [], END_S)
        os.close(descriptor)
        assert ready, "a killed process does not end"
