"""What a function may leave behind in a warm worker, put back so that the next task finds the process as the first did."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from types import ModuleType
from typing import Any

_SIGNALS = tuple(sorted(number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)))


class Footprint:
    """The state of the process before a function runs in `workspace`, which goes first on the import path."""

    def __init__(self, workspace: str) -> None:
        self._workspace = os.path.join(os.path.realpath(workspace), "")
        self._cwd = os.getcwd()
        self._environment = dict(os.environ)
        self._umask = _umask()
        self._path = list(sys.path)
        self._arguments = list(sys.argv)
        self._modules = set(sys.modules)
        self._threads = set(threading.enumerate())
        self._handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
        self._hooks = (sys.excepthook, threading.excepthook, sys.gettrace(), sys.getprofile(), sys.getswitchinterval())
        self._recursion = sys.getrecursionlimit()
        sys.path.insert(0, workspace)
        importlib.invalidate_caches()
        os.chdir(workspace)

    def restore(self) -> list[threading.Thread]:
        """Put everything back; gives the threads that are still running, which nothing can end."""
        os.chdir(self._cwd)
        self._restore_environment()
        os.umask(self._umask)
        sys.path[:] = self._path
        sys.argv[:] = self._arguments
        self._drop_modules()
        self._restore_signals()
        sys.excepthook, threading.excepthook, trace, profile, interval = self._hooks
        sys.settrace(trace)
        sys.setprofile(profile)
        sys.setswitchinterval(interval)
        sys.setrecursionlimit(self._recursion)
        return [thread for thread in threading.enumerate() if thread not in self._threads]

    def _restore_environment(self) -> None:
        if dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)

    def _drop_modules(self) -> None:
        """Those of the workspace: the next task may come with other code of the same name. Installed packages stay warm."""
        for name in set(sys.modules) - self._modules:
            if any(path.startswith(self._workspace) for path in _origins(sys.modules[name])):
                del sys.modules[name]
        for path in list(sys.path_importer_cache):
            if os.path.join(path, "").startswith(self._workspace):
                del sys.path_importer_cache[path]

    def _restore_signals(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number, handler in self._handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _origins(module: ModuleType) -> list[str]:
    """Where a module, or the parts of a namespace package, were loaded from."""
    origins = [getattr(module, "__file__", None), *list(getattr(module, "__path__", None) or ())]
    return [os.path.realpath(origin) for origin in origins if isinstance(origin, str)]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
