"""`python -m sandbox`: run a command in a sandbox, show what it would see, or tell what this host enforces."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict

from sandbox import plan, probe, profile
from sandbox.errors import SandboxError
from sandbox.spawner import Exit, Sandbox, Spawner
from sandbox.spec import HOME, Bind, SandboxSpec, check

REFUSED = 125
"""Exit code when there was no sandbox, so that it cannot be taken for the command's own."""
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: the command's own, 128 + the signal that ended it, or REFUSED."""
    options = _parser().parse_args(arguments)
    try:
        if options.action == "doctor":
            return _doctor(as_json=options.json)
        spec = _spec(options)
        if options.action == "show-plan":
            print(plan.make(spec, plan.Host.look(), *_ids(spec)))
            return 0
        return _run(spec)
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return REFUSED


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
        action.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command and its arguments")
    doctor = actions.add_parser("doctor", help="tell what this host enforces")
    doctor.add_argument("--json", action="store_true", help="as a JSON list")
    return parser


def _spec(options: argparse.Namespace) -> SandboxSpec:
    chosen = profile.load(options.profile)
    here = os.getcwd()
    binds = [*chosen.binds(here)]
    binds += [Bind(os.path.realpath(path)) for path in options.read]
    binds += [Bind(os.path.realpath(path), writable=True) for path in options.write]
    spec = SandboxSpec(
        argv=tuple(options.command[1:] if options.command[:1] == ["--"] else options.command) or ("sh",),
        env=_environment(chosen, options.env),
        cwd=here if any(here == bind.place or here.startswith(f"{bind.place}/") for bind in binds) else HOME,
        hostname=chosen.hostname,
        binds=tuple(binds),
        tmp_bytes=chosen.tmp_bytes,
        open_files=chosen.open_files,
        file_size_bytes=chosen.file_size_bytes,
        memory_bytes=chosen.memory_bytes,
        pids=chosen.pids,
        cpu_percent=chosen.cpu_percent,
        init=True,
        optional_layers=chosen.optional_layers,
    )
    check(spec)
    return spec


def _environment(chosen: profile.Profile, given: list[str]) -> dict[str, str]:
    passed = {name: os.environ[name] for name in chosen.pass_env if name in os.environ}
    usual = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME}
    if lacking := [pair for pair in given if "=" not in pair]:
        raise SandboxError(f"--env {lacking[0]}: is not NAME=VALUE.", step="spec")
    return usual | passed | chosen.env | {name: value for name, _, value in (pair.partition("=") for pair in given)}


def _ids(spec: SandboxSpec) -> tuple[int, int]:
    return (spec.uid, spec.uid) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def _run(spec: SandboxSpec) -> int:
    spawner = Spawner.start(cgroup_name=f"sandbox-run-{os.getpid()}")
    exit = asyncio.run(_run_with(spawner, spec))
    if exit.oom_killed:
        print(f"sandbox: killed: more than {spec.memory_bytes} bytes of memory were needed.", file=sys.stderr)
    return exit.code if exit.code >= 0 else 128 + exit.signal


async def _run_with(spawner: Spawner, spec: SandboxSpec) -> Exit:
    spawning = asyncio.ensure_future(spawner.spawn(spec, {number: number for number in range(3)}))
    early = _pass_signals_on(spawning)
    try:
        sandbox = await spawning
        for number in early:
            sandbox.signal(number)
        return await sandbox.wait()
    finally:
        await spawner.aclose()


def _pass_signals_on(spawning: asyncio.Future[Sandbox]) -> list[int]:
    """From now on; those that come before there is a sandbox are kept in the list."""
    early: list[int] = []

    def pass_on(number: int) -> None:
        if spawning.done() and not spawning.cancelled() and spawning.exception() is None:
            spawning.result().signal(number)
        else:
            early.append(number)

    for number in PASSED_ON:
        asyncio.get_running_loop().add_signal_handler(number, pass_on, number)
    return early


def _doctor(*, as_json: bool) -> int:
    layers = probe.probe()
    print(json.dumps([asdict(layer) for layer in layers]) if as_json else probe.report(layers))
    return int(any(layer.needed and not layer.enforced for layer in layers))


if __name__ == "__main__":
    sys.exit(main())
