"""Run a command in a sandbox, show what it would see or what a profile grants, or tell what this host enforces.

`python -m` looks for modules in the current directory first. Where that is not to be trusted, use `agent-sandbox`, or
`python -P -m sandbox`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

import msgspec

from sandbox import linux, places, plan, probe, profile, protected, record, record_profile
from sandbox.cgroup import FIELDS
from sandbox.errors import SandboxError
from sandbox.init import PASSED_ON
from sandbox.notify_calls import CHOICES
from sandbox.notify_events import Event, Follower, line
from sandbox.spawner import Exit, Sandbox, Spawner
from sandbox.spec import HOME, OPTIONAL_LAYERS, Bind, SandboxSpec, check, ids
from sandbox.terminal import Terminal

REFUSED = 125
"""Exit code when there was no sandbox, so that it cannot be taken for the command's own."""
DRAIN_S = 5.0
"""For the supervisor to tell what it has still seen."""
MOST_TOLD = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: the command's own, 128 + the signal that ended it, or REFUSED."""
    linux.fill_standard_descriptors()
    options = _parser().parse_args(arguments)
    try:
        if options.action == "doctor":
            return _doctor(as_json=options.json)
        if options.action == "show-profile":
            return _show_profile(options.name, as_json=options.json)
        if options.action == "record":
            return _record(options)
        spec = _spec(options)
        if options.action == "show-plan":
            print(plan.make(spec, plan.Host.look(), *ids(spec)))
            return 0
        return _code(_run(spec))
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    for name, told in (
        ("run", "run a command in a sandbox"),
        ("show-plan", "show the file system that it would see"),
        ("record", "run a command in a sandbox that shows more, and write a profile of what it needed"),
    ):
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
        if name == "record":
            action.add_argument("--output", default="profile.toml", metavar="FILE", help="a new file (profile.toml)")
            action.add_argument(
                "--see", action="append", default=[], metavar="PATH", help="show this, read-only, instead of the home and /opt"
            )
        action.add_argument(
            "--supervise",
            choices=CHOICES,
            help="tell at the end what the command tried in vain: calls and hosts (refused), and files too (files)",
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
        **(
            chosen.spec_fields()
            | {
                "supervise": options.supervise or chosen.supervise,
                "optional_layers": tuple({*chosen.optional_layers, *options.optional}),
            }
        ),
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


def _record(options: argparse.Namespace) -> int:
    output = os.path.abspath(options.output)
    if os.path.lexists(output):
        raise SandboxError(f"{output} is there already.", step="record", hint="Name another: --output FILE.")
    base = profile.load(options.profile)
    seen = record.shown(options.see)
    given = _spec(options)
    program = shutil.which(given.argv[0], path=f"{given.env['PATH']}:{os.environ.get('PATH', '')}")
    here = os.getcwd()
    argv = (os.path.abspath(program), *given.argv[1:]) if program and os.sep not in given.argv[0] else given.argv
    path = ":".join(dict.fromkeys((*given.env["PATH"].split(":"), *_seen_of_path(seen))))
    show_here = [] if any(f"{here}/".startswith(f"{bind.source}/") for bind in given.binds) else _readable(here)
    spec = msgspec.structs.replace(
        given,
        argv=argv,
        env=given.env | {"PATH": path} | dict.fromkeys(record.PROXY_VARIABLES, record.PROXY),
        binds=tuple({bind.place: bind for bind in (*seen, *show_here, *given.binds)}.values()),
        cwd=here if show_here else given.cwd,
        supervise="record",
        loopback_listen=(record.PROXY_PORT,),
    )
    check(spec)
    _tell_what_is_shown(spec)
    needs = record.Needs.none()
    exit = _run(spec, needs)
    writable = tuple(bind.source for bind in given.binds if bind.writable)
    setting = record_profile.Setting(
        command=given.argv,
        base=base,
        extends=_named_from(os.path.dirname(output), options.profile),
        here=here,
        shown=tuple(bind.source for bind in spec.binds),
        writable=writable,
        host=plan.Host.look(),
    )
    with open(output, "x", encoding="utf-8", errors="backslashreplace") as file:
        file.write(record_profile.text(needs, setting, exit))
    print(f"sandbox: written: {output}. Read it, then: python -m sandbox run --profile {options.output} -- …", file=sys.stderr)
    return _code(exit)


def _named_from(directory: str, name: str) -> str:
    """What a profile is called by one in this directory, in which files are named as they lie there."""
    if not name.endswith(".toml"):
        return name
    path = os.path.abspath(name)
    return os.path.relpath(path, directory) if path.startswith(f"{directory}/") else path


def _seen_of_path(seen: Sequence[Bind]) -> list[str]:
    path = os.environ.get("PATH", "").split(":")
    return [place for place in path if any(f"{place}/".startswith(f"{bind.source}/") for bind in seen)]


def _readable(here: str) -> list[Bind]:
    return [] if places.refusal(here, [], writable=False) else [Bind(here)]


def _tell_what_is_shown(spec: SandboxSpec) -> None:
    shown = [bind.source for bind in spec.binds if not bind.writable]
    writable = [bind.source for bind in spec.binds if bind.writable]
    print(
        "sandbox: RECORDING. The command can read, of what you can: "
        f"{', '.join(shown[:MOST_TOLD])}{' …' if len(shown) > MOST_TOLD else ''}.\n"
        f"sandbox: It can write to {', '.join(writable) or 'nothing of the host'}, and reaches no network. "
        "Keys, tokens, history and mail in your home are not shown.",
        file=sys.stderr,
    )


def _run(spec: SandboxSpec, needs: record.Needs | None = None) -> Exit:
    spawner = Spawner.start(cgroup_name=f"sandbox-run-{os.getpid()}")
    _tell_what_is_not_held(spec, spawner)
    events: list[Event] = []
    writable = [bind.source for bind in spec.binds if bind.writable]
    with protected.holding(writable, spec.protected if spec.protect_missing != "none" else ()):
        exit = asyncio.run(_run_with(spawner, spec, needs.add if needs else events.append, needs.hosts if needs else None))
    _tell_what_was_tried(events)
    if exit.timed_out:
        print(f"sandbox: killed: it was not done within {spec.wall_s:g} s.", file=sys.stderr)
    if exit.oom_killed:
        print(f"sandbox: killed: more than {spec.memory_bytes} bytes of memory were needed.", file=sys.stderr)
    if exit.disk_limit_hit:
        most = " or ".join(f"{count} {what}" for count, what in ((spec.disk_bytes, "bytes"), (spec.disk_files, "files")) if count)
        print(f"sandbox: killed: it added more than {most} to the disk, where they are still.", file=sys.stderr)
    return exit


def _code(exit: Exit) -> int:
    return exit.code if exit.code >= 0 else 128 + exit.signal


def _tell_what_was_tried(events: list[Event]) -> None:
    """Each once, with how often, and no more than a person reads."""
    lines: Counter[str] = Counter()
    for event in events:
        lines[line(event)] += 1
    for text, times in list(lines.items())[:MOST_TOLD]:
        print(f"sandbox: {text}" + (f" ({times} times)" if times > 1 else ""), file=sys.stderr)
    if len(lines) > MOST_TOLD:
        print(f"sandbox: … and {len(lines) - MOST_TOLD} more", file=sys.stderr)


def _tell_what_is_not_held(spec: SandboxSpec, spawner: Spawner) -> None:
    if spawner.without and "namespaces" in spec.optional_layers:
        print("sandbox: without namespaces, as optional_layers allows: held by Landlock and the filter alone.", file=sys.stderr)
    lacking = {name: how for name, how in spawner.limits.items() if how != spawner.cgroup}
    asked = {field: how for name, how in lacking.items() for field in FIELDS[name] if getattr(spec, field)}
    if asked and "cgroup" in spec.optional_layers:
        whys = " ".join(dict.fromkeys(asked.values()))
        print(f"sandbox: not limited, as optional_layers allows: {', '.join(asked)}. {whys}", file=sys.stderr)


async def _run_with(
    spawner: Spawner, spec: SandboxSpec, on_event: Callable[[Event], None], hosts: set[str] | None = None
) -> Exit:
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
        proxy = record.Proxy(set() if hosts is None else hosts)
        for listener in sandbox.listeners:
            await proxy.open(listener)
        follower = Follower(sandbox.events, on_event) if sandbox.events else None
        exit = await _in_terminal(sandbox, terminal) if terminal else await sandbox.wait()
        if follower is not None:
            await follower.drained(DRAIN_S)
        proxy.close()
        return exit
    finally:
        await spawner.aclose()


async def _in_terminal(sandbox: Sandbox, terminal: Terminal) -> Exit:
    terminal.open()
    try:
        return await sandbox.wait()
    finally:
        await terminal.close()


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
