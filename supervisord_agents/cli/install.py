"""`install apparmor`: what root gives once, so that ordinary users can make sandboxes on hosts that restrict user namespaces."""

from __future__ import annotations

import argparse

from sandbox.errors import SandboxError
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, add, add_group
from supervisord_agents.cli.session import Session
from supervisord_agents.errors import SandboxRefused


def register(commands: Commands) -> None:
    group = add_group(commands, "install", "give this host what sandboxes need")
    parser = add(group, "apparmor", "load an AppArmor profile for the fork server alone", apparmor, details="Needs root, once.")
    parser.add_argument("--remove", action="store_true", help="unload the profile and remove what was installed")
    parser.add_argument("--print", action="store_true", dest="show", help="print the profile and change nothing")


def apparmor(session: Session, arguments: argparse.Namespace) -> Exit:
    from sandbox import apparmor as profiles

    if arguments.show:
        if session.output.json:
            session.output.value({"profile": profiles.profile()})
        else:
            for line in profiles.profile().splitlines():
                session.output.line(line)
        return Exit.OK
    try:
        profiles.remove() if arguments.remove else profiles.install()
    except SandboxError as error:
        raise SandboxRefused(error.message, hint=error.hint) from error
    except OSError as error:
        raise SandboxRefused(f"{error.filename}: {error.strerror}.", hint="Run it as root.") from error
    done = "removed" if arguments.remove else "loaded"
    if session.output.json:
        session.output.value({"profile": str(profiles.PROFILE), "done": done})
    else:
        session.output.line(f"{done}: {profiles.PROFILE}, for {profiles.HOME}/spawner")
    return Exit.OK
