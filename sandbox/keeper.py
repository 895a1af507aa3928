"""The fork server as a program: the server itself, and its keeper.

The server is PID 1 of a PID namespace in which all sandboxes lie, so that the kernel ends them with it, whatever they have done
about their own signals; the keeper is its parent, which waits for that and does nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import sys

from sandbox import linux, protocol, tier
from sandbox.errors import SandboxError
from sandbox.server import Server, Settings


def main(arguments: list[str]) -> int:
    """Serve the sockets whose descriptors are the first arguments: `control door cgroup_name orphan_grace_s parked`."""
    linux.fill_standard_descriptors()
    settings = Settings(int(arguments[0]), int(arguments[1]), arguments[2], float(arguments[3]), int(arguments[4]))
    control, door = _inherited(settings.control), _inherited(settings.door)
    try:
        serve(control, door, settings)
    except SandboxError as error:
        if control is None:
            raise
        control.send(protocol.encode(protocol.NotStarted(error.message, error.step, error.errno, error.hint)))
        return 1
    return 0


def serve(control: socket.socket | None, door: socket.socket | None, settings: Settings) -> None:
    """Become the keeper of a server, which serves until it is told to stop. Raises SandboxError if the host is not up to it."""
    _raise_open_files()
    server = Server(door, settings)
    gc.collect()
    gc.freeze()
    _tell_service_manager()
    _become_first(server.tier)
    server.run(control)


def _inherited(descriptor: int) -> socket.socket | None:
    if descriptor < 0:
        return None
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _tell_service_manager() -> None:
    """That the door is open, if a service manager has started us: sd_notify(3)."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.sendto(b"READY=1", address.replace("@", "\0", 1))


def _raise_open_files() -> None:
    """Every sandbox costs descriptors here; what it may have itself is said in its specification."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _become_first(without: tier.Tier | None) -> None:
    """Return in a child that is PID 1 of a PID namespace; this process becomes its keeper and never returns.

    The keeper holds the control socket and the client's lock open until the kernel has ended everything in the namespace, and so
    their end means what it should. If the keeper itself is killed, the server is, by PDEATHSIG. Without namespaces
    both adopt orphans instead, and the keeper ends those that the server has left.
    """
    if without is None:
        linux.unshare(linux.CLONE_NEWPID)
    else:
        without.open()
    kept, keeper = os.pipe()
    server = os.fork()
    if server:
        os.close(kept)
        code = os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])
        if without is not None:
            without.close()
        os._exit(code if code >= 0 else 128 - code)
    os.close(keeper)
    if without is not None:
        tier.adopt_orphans()
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    poll = select.poll()
    poll.register(kept, 0)
    if poll.poll(0):
        os._exit(1)
    os.close(kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
