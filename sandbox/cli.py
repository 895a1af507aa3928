"""Run a command in a sandbox, show what it would see or what a profile grants, or tell what this host enforces.

`python -m` looks for modules in the current directory first. Where that is not to be trusted, use `agent-sandbox`, or
`python -P -m sandbox`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict

import msgspec

from sandbox import linux, places, plan, probe, profile, protected
from sandbox.cgroup import FIELDS
from sandbox.errors import SandboxError
from sandbox.init import PASSED_ON
from sandbox.spawner import Exit, Sandbox, Spawner
from sandbox.spec import HOME, OPTIONAL_LAYERS, Bind, SandboxSpec, check, ids
from sandbox.terminal import Terminal

REFUSED = 125
"""Exit code when there was no sandbox, so that it cannot be taken for the command's own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: the command's own, 128 + the signal that ended it, or REFUSED."""
    linux.fill_standard_descriptors()
    options = _parser().parse_args(arguments)
    try:
        if options.action == "doctor":
            return _doctor(as_json=options.json)
        if options.action == "show-profile":
            return _show_profile(options.name, as_json=options.json)
        spec = _spec(options)
        if options.action == "show-plan":
            print(plan.make(spec, plan.Host.look(), *ids(spec)))
            return 0
        return _run(spec)
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    for name, told in (("run", "run a command in a sandbox"), ("show-plan", "show the file system that it would see")):
        action = actions.add_parser(name, help=told, description=told)
        action.add_argument(
            "--profile", default=profile.DEFAULT, metavar="P", help=f"{', '.join(profile.names())}, or a TOML file (strict)"
        )
        action.add_argument("--read", action="append", default=[], metavar="PATH", help="show a path of the host, read-only")
        action.add_argument("--write", action="append", default=[], metavar="PATH", help="show a path of the host, writable")
        action.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable")
        action.add_argument(
            "--optional",
            action="append",
            default=[],
            choices=sorted(OPTIONAL_LAYERS),
            help="go on where this host lacks the layer: an ordinary user's login often has no cgroup for limits",
        )
        action.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command and its arguments")
    show = actions.add_parser("show-profile", help="show all that a profile grants, and which profile it comes from")
    show.add_argument(
        "name", nargs="?", default=profile.DEFAULT, metavar="P", help=f"{', '.join(profile.names())}, or a TOML file"
    )
    show.add_argument("--json", action="store_true", help="as JSON")
    doctor = actions.add_parser("doctor", help="tell what this host enforces")
    doctor.add_argument("--json", action="store_true", help="as a JSON list")
    return parser


def _spec(options: argparse.Namespace) -> SandboxSpec:
    chosen = profile.load(options.profile)
    if chosen.hosts or chosen.loopback_ports:
        print("sandbox: hosts and loopback_ports are reached through the supervisor's gateway alone: not here.", file=sys.stderr)
    read, write = (tuple(map(_real, paths)) for paths in (options.read, options.write))
    here = _here(chosen, read, write)
    binds = [*chosen.binds(here), *map(Bind, read), *(Bind(path, writable=True) for path in write)]
    spec = SandboxSpec(
        argv=tuple(options.command[1:] if options.command[:1] == ["--"] else options.command) or ("sh",),
        env=_environment(chosen, options.env),
        cwd=here if any(f"{here}/".startswith(f"{bind.place}/") for bind in binds) else HOME,
        binds=tuple(dict.fromkeys(binds)),
        init=True,
        **(chosen.spec_fields() | {"optional_layers": tuple({*chosen.optional_layers, *options.optional})}),
    )
    check(spec)
    return spec


def _environment(chosen: profile.Profile, given: list[str]) -> dict[str, str]:
    passed = {name: os.environ[name] for name in chosen.pass_env if name in os.environ}
    usual = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME}
    if lacking := [pair for pair in given if "=" not in pair]:
        raise SandboxError(f"--env {lacking[0]}: is not NAME=VALUE.", step="spec")
    return usual | passed | chosen.env | {name: value for name, _, value in (pair.partition("=") for pair in given)}


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except OSError as error:
        raise SandboxError(f"{path}: the current directory is gone.", step="cwd", errno=error.errno or 0) from error


def _here(chosen: profile.Profile, read: Sequence[str], write: Sequence[str]) -> str:
    """The current directory; raises SandboxError if the profile would grant it but should not."""
    try:
        here = os.getcwd()
    except OSError as error:
        if not chosen.here:
            return HOME
        raise SandboxError("the current directory is gone.", step="cwd", errno=error.errno or 0) from error
    writable = chosen.here == "write"
    if chosen.here and here not in (write if writable else (*read, *write)):
        secrets = [os.environ.get("XDG_RUNTIME_DIR", "")]
        if why := places.refusal(here, secrets, writable=writable):
            hint = f"Go to the directory of one project; or, to mean it: --{'write' if writable else 'read'} {here}"
            raise SandboxError(f"{here} is not given to the command: it {why}.", step="profile", hint=hint)
    return here


def _show_profile(name: str, *, as_json: bool) -> int:
    resolved = profile.resolve(name)
    print(json.dumps(resolved.as_json(), indent=2) if as_json else resolved)
    return 0


def _run(spec: SandboxSpec) -> int:
    spawner = Spawner.start(cgroup_name=f"sandbox-run-{os.getpid()}")
    _tell_what_is_not_held(spec, spawner)
    writable = [bind.source for bind in spec.binds if bind.writable]
    with protected.holding(writable, spec.protected if spec.protect_missing != "none" else ()):
        exit = asyncio.run(_run_with(spawner, spec))
    if exit.timed_out:
        print(f"sandbox: killed: it was not done within {spec.wall_s:g} s.", file=sys.stderr)
    if exit.oom_killed:
        print(f"sandbox: killed: more than {spec.memory_bytes} bytes of memory were needed.", file=sys.stderr)
    return exit.code if exit.code >= 0 else 128 + exit.signal


def _tell_what_is_not_held(spec: SandboxSpec, spawner: Spawner) -> None:
    if spawner.without and "namespaces" in spec.optional_layers:
        print("sandbox: without namespaces, as optional_layers allows: held by Landlock and the filter alone.", file=sys.stderr)
    lacking = {name: how for name, how in spawner.limits.items() if how != spawner.cgroup}
    asked = {field: how for name, how in lacking.items() for field in FIELDS[name] if getattr(spec, field)}
    if asked and "cgroup" in spec.optional_layers:
        whys = " ".join(dict.fromkeys(asked.values()))
        print(f"sandbox: not limited, as optional_layers allows: {', '.join(asked)}. {whys}", file=sys.stderr)


async def _run_with(spawner: Spawner, spec: SandboxSpec) -> Exit:
    terminal = Terminal() if Terminal.wanted() else None
    descriptors = {number: number for number in range(3)}
    if terminal:
        spec = msgspec.structs.replace(spec, terminal=True)
        descriptors = {number: terminal.inside if os.isatty(number) else number for number in range(3)}
    spawning = asyncio.ensure_future(spawner.spawn(spec, descriptors))
    early = _pass_signals_on(spawning)
    try:
        sandbox = await spawning
        for number in early:
            sandbox.signal(number)
        if terminal is None:
            return await sandbox.wait()
        terminal.open()
        try:
            return await sandbox.wait()
        finally:
            await terminal.close()
    finally:
        await spawner.aclose()


def _pass_signals_on(spawning: asyncio.Future[Sandbox]) -> list[int]:
    """From now on; those that come before there is a sandbox are kept in the list.

    But for SIGWINCH, which is about this process's own terminal: the program is told by its own.
    """
    early: list[int] = []

    def pass_on(number: int) -> None:
        if spawning.done() and not spawning.cancelled() and spawning.exception() is None:
            spawning.result().signal(number)
        else:
            early.append(number)

    for number in PASSED_ON - {signal.SIGWINCH}:
        asyncio.get_running_loop().add_signal_handler(number, pass_on, number)
    return early


def _doctor(*, as_json: bool) -> int:
    layers = probe.probe(whole=True)
    print(json.dumps([asdict(layer) for layer in layers]) if as_json else probe.report(layers))
    return int(any(layer.needed and not layer.enforced for layer in layers))
