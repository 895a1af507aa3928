"""The service manager's side channels: readiness and watchdog by sd_notify(3), passed sockets by sd_listen_fds(3).

Without a service manager every function here does nothing, or gives nothing.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import structlog

FIRST_PASSED_DESCRIPTOR = 3
SEND_TIMEOUT_S = 1.0
"""A service manager that does not read must not hold up the event loop for longer."""
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """What the service manager offered to this process."""

    address: str = ""
    watchdog_s: float = 0.0
    passed_sockets: int = 0


_manager = ServiceManager()


def adopt() -> None:
    """Take the service manager's variables out of the environment, for this process alone.

    Call it before the first child is started: a child that inherited them could report in our name.
    """
    global _manager
    taken = {name: os.environ.pop(name, "") for name in VARIABLES}
    watched = taken["WATCHDOG_PID"] in ("", str(os.getpid()))
    ours = taken["LISTEN_PID"] == str(os.getpid())
    _manager = ServiceManager(
        address=taken["NOTIFY_SOCKET"],
        watchdog_s=_number(taken["WATCHDOG_USEC"]) / 1_000_000 if watched else 0.0,
        passed_sockets=_number(taken["LISTEN_FDS"]) if ours else 0,
    )
    for descriptor in _passed_descriptors():
        os.set_inheritable(descriptor, False)


def ready(status: str) -> None:
    """Start-up is complete; `status` is the line that `systemctl status` shows."""
    _send(f"READY=1\n{_status(status)}")


def starting(status: str, within_s: float) -> None:
    """Start-up takes its time; the next word comes within that time (EXTEND_TIMEOUT_USEC in sd_notify(3))."""
    _send(f"EXTEND_TIMEOUT_USEC={round(within_s * 1_000_000)}\n{_status(status)}")


def stopping() -> None:
    """An orderly stop has begun."""
    _send("STOPPING=1")


def watchdog(status: str) -> None:
    """Still alive, and how it goes; due more often than every `watchdog_interval_s()`."""
    _send(f"WATCHDOG=1\n{_status(status)}")


def watchdog_interval_s() -> float:
    """Seconds of silence after which the service manager acts; 0 if it does not watch this process (sd_watchdog_enabled(3))."""
    return _manager.watchdog_s


def listen_sockets() -> list[socket.socket]:
    """The sockets that the service manager has bound for this process, in the order of its unit; the caller owns them.

    They are closed on exec. A second call gives none.
    """
    global _manager
    sockets = [socket.socket(fileno=descriptor) for descriptor in _passed_descriptors()]
    _manager = ServiceManager(_manager.address, _manager.watchdog_s)
    return sockets


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())}"


def _passed_descriptors() -> range:
    return range(FIRST_PASSED_DESCRIPTOR, FIRST_PASSED_DESCRIPTOR + _manager.passed_sockets)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _send(message: str) -> None:
    """One datagram; a failure is logged and no more, because the manager has its own time limits for silence."""
    address = _manager.address
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(SEND_TIMEOUT_S)
            channel.connect(address)
            channel.sendall(message.encode())
    except OSError as error:
        log.warning("service_manager_not_told", message=message, error=str(error))
