"""Which directories a client may have worked in."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from sandbox import places
from supervisord_agents import config as configuration
from supervisord_agents.config import Config
from supervisord_agents.errors import InvalidInput
from supervisord_agents.workers.agents.base import refuse_nul
from supervisord_agents.workers.shape import owns

FIELD = "workspace"


class Workspaces:
    """`secrets` are files and directories of the daemon that no worker may reach."""

    def __init__(self, secrets: Sequence[Path]) -> None:
        self._secrets = [str(path) for path in secrets]

    def real(self, workspace: str, uid: int) -> str:
        """The real path of a directory that a client of this uid may hand to a worker. Raises InvalidInput."""
        refuse_nul(FIELD, workspace)
        if not os.path.isabs(workspace):
            raise InvalidInput("must be an absolute path.", field=FIELD, hint=f"Perhaps {Path(workspace).absolute()}?")
        real = os.path.realpath(workspace)
        why = places.refusal(real, self._secrets)
        if why:
            raise InvalidInput(f"{real} cannot be a workspace: it {why}.", field=FIELD, hint="Use the directory of one project.")
        try:
            info = os.stat(real)
        except OSError as error:
            raise InvalidInput(f"{workspace}: {error.strerror}.", field=FIELD, hint="Make it first, or mend the path.") from error
        if not stat.S_ISDIR(info.st_mode):
            raise InvalidInput(f"{workspace} is not a directory.", field=FIELD)
        if not owns(uid, info.st_uid):
            raise InvalidInput(f"{workspace} does not belong to you.", field=FIELD, hint="Use a directory that you own.")
        if not os.access(real, os.R_OK | os.X_OK):
            raise InvalidInput(f"{workspace} cannot be read by the supervisor.", field=FIELD, hint="Check its permissions.")
        return real


def secrets_of(config: Config) -> list[Path]:
    """What of a daemon with this configuration no worker may be given."""
    secrets = [configuration.state_dir(config), configuration.socket_path(config)]
    secrets += [Path(provider.api_key_file) for provider in config.gateway.providers.values() if provider.api_key_file]
    found = configuration.find_config()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [*secrets, *([found] if found else []), *([Path(runtime)] if runtime else [])]
