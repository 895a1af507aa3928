"""The daemon's side of hand.py: starts it, hands it what it needs, reads its answer."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from sandbox import linux
from supervisord_agents.errors import SandboxRefused, SupervisorError
from supervisord_agents.workers.shape import Identity
from supervisord_agents.workspaces import paths
from supervisord_agents.workspaces.hand import Apply, Collect, Commit, Prepare, Refused, Reply, Resume
from supervisord_agents.workspaces.records import View

ARGV = (sys.executable, "-I", "-m", "supervisord_agents.workspaces.hand")
LAST_WORDS_BYTES = 2_000
_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class Lent:
    """Descriptors for one hand, closed on this side at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.numbers: list[int] = []

    def workspace(self, view: View) -> int:
        """The workspace, if it is the directory that the view is of. Raises SandboxRefused."""
        try:
            found = linux.open_path(view.workspace, linux.RESOLVE_NO_SYMLINKS)
        except OSError as error:
            raise _not_there(view, error.strerror or "") from error
        try:
            info = os.fstat(found)
            if Identity(info.st_dev, info.st_ino, info.st_uid, info.st_gid) != view.workspace_id:
                raise _not_there(view, "another directory, or another owner, has taken its place")
            return self._keep(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found))
        finally:
            os.close(found)

    def directory(self, path: Path) -> int:
        """One of the state directory. Raises OSError."""
        return self._keep(os.open(path, paths.DIRECTORY))

    def file(self, path: Path, flags: int = os.O_RDONLY) -> int:
        """One of the state directory. Raises OSError."""
        return self._keep(os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))

    def _keep(self, descriptor: int) -> int:
        self._stack.callback(os.close, descriptor)
        self.numbers.append(descriptor)
        return descriptor


@contextmanager
def lending() -> Iterator[Lent]:
    with ExitStack() as stack:
        yield Lent(stack)


async def done(request: Prepare | Collect | Apply | Commit | Resume, lent: Lent) -> Reply:
    """Have it done. Raises SupervisorError as the hand does, or if it fails. A hand whose caller is cancelled is ended."""
    process = await asyncio.create_subprocess_exec(
        *ARGV,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=lent.numbers,
        cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
    )
    try:
        answer, complaint = await process.communicate(msgspec.msgpack.encode(request))
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    try:
        reply = _decoder.decode(answer)
    except msgspec.MsgspecError as error:
        said = complaint[-LAST_WORDS_BYTES:].decode(errors="replace").strip()
        raise SupervisorError(
            f"the process for the files of user {request.uid} ended with {process.returncode}: {said}",
            kept="Nothing was half done.",
        ) from error
    if isinstance(reply, Refused):
        raise SupervisorError(reply.message, code=reply.code, field=reply.field, hint=reply.hint)
    return reply


def _not_there(view: View, why: str) -> SandboxRefused:
    return SandboxRefused(
        f"{view.workspace} is not the workspace any more: {why}.",
        field="workspace",
        hint="Put the directory back, or submit anew.",
    )
