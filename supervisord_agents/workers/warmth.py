"""What functions import of the installed packages is imported in the runtime itself, so that the next fork has it already.

Only what is installed: nothing of a workspace ever runs in the runtime.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import all_suffixes
from types import ModuleType

from supervisord_agents.wire.frames import HEARTBEAT_S

_SUFFIXES = ("", *all_suffixes())


class Warmth:
    """The modules of the runtime. `beat` is called every HEARTBEAT_S while an import takes that long."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._own = {name.partition(".")[0] for name in sys.modules}
        """Packages that the runtime itself uses, which win over a workspace's."""

    @contextlib.contextmanager
    def of(self, modules: Iterable[str], workspace: str) -> Iterator[None]:
        """Have the modules imported, for a fork made meanwhile whose import path begins with `workspace`."""
        hidden: dict[str, ModuleType] = {}
        for module in modules:
            package = module.partition(".")[0]
            if package in self._own or not _offered(workspace, package):
                self._import(module)
            else:
                hidden |= {name: sys.modules[name] for name in list(sys.modules) if f"{name}.".startswith(f"{package}.")}
        for name in hidden:
            del sys.modules[name]
        try:
            yield
        finally:
            sys.modules.update(hidden)

    def check(self) -> None:
        """Raise OSError if an import has started a thread: only a process with one can be forked safely."""
        if threading.active_count() > 1:
            raise OSError("a module has started a thread")

    def _import(self, module: str) -> None:
        if module in sys.modules:
            return
        # The fork will meet the same error and say so.
        with self._beating(), contextlib.suppress(BaseException):
            importlib.import_module(module)
        gc.collect()
        gc.freeze()

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        signal.signal(signal.SIGALRM, lambda *_: self._beat())
        signal.setitimer(signal.ITIMER_REAL, HEARTBEAT_S, HEARTBEAT_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _offered(workspace: str, package: str) -> bool:
    """Whether a workspace has a package or module of this name of its own."""
    return any(os.path.lexists(f"{workspace}/{package}{suffix}") for suffix in _SUFFIXES)
