"""The sandbox of a local model's process: no network, the model read-only, and the devices that its profile grants."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sandbox.errors import SandboxError
from sandbox.profile import Profile
from sandbox.spawner import Exit, Sandbox, Spawner
from sandbox.spec import Bind, SandboxSpec
from supervisord_agents.errors import SandboxRefused, SupervisorError
from supervisord_agents.tracker import talk

FIELD = "tracker.local.model"
HOST_MODULE = "supervisord_agents.tracker.host"
CPU_WEIGHT = 20
"""Of 100 that the daemon has."""
_PART = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")


class ModelMissing(SupervisorError):
    """There is no such model, the host could not read it, or there is nothing to run it with."""


class Cell(NamedTuple):
    """How sandboxes for one model are made."""

    spawner: Spawner
    profile: Profile
    optional_layers: tuple[str, ...]
    runtime_paths: Sequence[str]
    """What of the host Python and this package need."""
    model: str
    """A GGUF file; of one that is split, the first part."""
    uid: int

    async def start(self, channel: socket.socket) -> Confined:
        """A host behind that channel. Raises SupervisorError."""
        spec = self.spec()
        try:
            return Confined(await self.spawner.spawn(spec, {talk.CHANNEL_FD: channel.fileno()}))
        except (SandboxError, OSError) as error:
            hint = getattr(error, "hint", "")
            raise SandboxRefused(f"the sandbox of the local model was not made: {error}", hint=hint) from error

    def spec(self) -> SandboxSpec:
        """The specification; raises ModelMissing."""
        _refuse_without_llama()
        files = parts(self.model)
        granted = self.profile
        fields = granted.spec_fields()
        memory = granted.memory_bytes and granted.memory_bytes + sum(os.stat(file).st_size for file in files)
        fields |= {
            "memory_bytes": memory,
            "cpu_weight": granted.cpu_weight or CPU_WEIGHT,
            "wall_s": 0.0,
            "supervise": "off",
            "protect_missing": "none",  # nobody holds it here, and nothing of the host is writable
            "optional_layers": tuple({*granted.optional_layers, *self.optional_layers}),
        }
        shown = [bind._replace(writable=False) for bind in granted.binds("")]
        binds = (*shown, *map(Bind, (*self.runtime_paths, *files)))
        return SandboxSpec(
            argv=(sys.executable, "-I", "-m", HOST_MODULE),
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **granted.env, "HOME": "/home/worker"},
            binds=tuple(dict.fromkeys(binds)),
            uid=self.uid,
            init=False,
            **fields,
        )


class Confined:
    """A host in its sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def wait(self) -> str:
        return _in_words(await self._sandbox.wait())

    def kill(self) -> None:
        self._sandbox.kill()


def _refuse_without_llama() -> None:
    missing = [name for name in ("llama_cpp", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the Python of the daemon lacks {' and '.join(missing)}."
        hint = f"Run: {sys.executable} -m pip install 'agent-supervisor[tracker]'"
        raise ModelMissing(message, field="tracker.backends", hint=hint)


def parts(model: str) -> list[str]:
    """The files of a model, where they really are; raises ModelMissing naming what is wrong with one."""
    first = Path(os.path.realpath(model))
    match = _PART.fullmatch(first.name)
    names = [first.name]
    if match:
        names = [f"{match[1]}-{number:05}-of-{match[2]}.gguf" for number in range(1, int(match[2]) + 1)]
    return [_readable(first.with_name(name)) for name in names]


def _readable(path: Path) -> str:
    """The host has a user of its own, who owns nothing."""
    try:
        status = path.stat()
    except OSError as error:
        raise ModelMissing(f"{path}: {error.strerror}.", field=FIELD, hint="Name a GGUF file: docs/tracker.md.") from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelMissing(f"{path} is no file.", field=FIELD)
    if os.geteuid() == 0 and not status.st_mode & stat.S_IROTH:
        hint = f"Run: chmod o+r {path}"
        raise ModelMissing(f"{path} cannot be read by the process of the model, which runs as nobody.", field=FIELD, hint=hint)
    return str(path)


def _in_words(exit: Exit) -> str:
    if exit.oom_killed:
        return "it needed more memory than its profile allows beside the model (tracker.local.profile)"
    if exit.signal == signal.SIGBUS:
        return f"it was ended by signal {exit.signal}, as when the file of its model is cut short while it is read"
    return f"it was ended by signal {exit.signal}" if exit.signal else f"it exited with code {exit.code}"
