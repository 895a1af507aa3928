"""Workers that lie to the daemon: these speak to the real pool, or run in a real daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from supervisord_agents.core.model import TaskSpec, Usage
from supervisord_agents.rpc.client import Client
from supervisord_agents.wire import frames
from supervisord_agents.wire.messages import TaskView
from tests.escape.attempt import Judged, Verdict
from tests.support.daemon import DaemonProcess
from tests.support.pools import PoolBench, StubSandbox, result, until

MIB = 1 << 20
CONFIG = (
    "[pools.standard]\nmin_workers = 0\nmax_workers = 2\nscaling = 'on-demand'\n"
    "[tasks]\nbackoff_s = 0.01\nlog_limit_bytes = 1048576\n"
)
Run = Callable[[Path], Awaitable[Judged]]


class WorkerAttempt(NamedTuple):
    """One lie. `run` is given a directory of its own."""

    name: str
    tells: str
    run: Run


ATTEMPTS: list[WorkerAttempt] = []


def attempt(run: Run) -> Run:
    tells = (run.__doc__ or "").strip().split("\n")[0].rstrip(".")
    ATTEMPTS.append(WorkerAttempt(run.__name__.replace("_", "-"), tells, run))  # type: ignore[attr-defined]
    return run


@contextlib.asynccontextmanager
async def pool(place: Path) -> AsyncIterator[PoolBench]:
    bench = PoolBench(place)
    try:
        yield bench
    finally:
        await bench.pools.aclose()


async def _ends_its_worker_alone(place: Path, *sent: frames.Frame | bytes) -> Judged:
    """The liar is killed and its attempt told as dead; the task of another worker ends as if nothing had been."""
    async with pool(place) as bench:
        liar, honest = await bench.working("g.liar"), await bench.working("g.honest")
        with contextlib.suppress(OSError):
            liar.channel.setblocking(True)
            await asyncio.to_thread(liar.say, *sent)
        await until(lambda: liar.killed)
        return await _honest_ends(bench, honest)


async def _honest_ends(bench: PoolBench, honest: StubSandbox) -> Judged:
    honest.say(result("g.honest", output="mine"))
    await until(lambda: bench.heard.ended)
    assert [(end.task, end.output) for end in bench.heard.ended] == [("g.honest", "mine")]  # type: ignore[union-attr]
    return Judged(Verdict.CONTAINED, "its worker is ended, another's task is not touched")


async def _is_ignored(place: Path, *sent: frames.Frame) -> Judged:
    """What was sent has no effect, and the liar's own end still counts."""
    async with pool(place) as bench:
        liar, honest = await bench.working("g.liar"), await bench.working("g.honest")
        liar.say(*sent, result("g.liar"))
        await until(lambda: bench.heard.ended)
        if [end.task for end in bench.heard.ended] != ["g.liar"] or bench.heard.said or bench.heard.died:
            return Judged(Verdict.ESCAPED, f"{bench.heard.ended} {bench.heard.said}")
        honest.say(result("g.honest"))
        await until(lambda: len(bench.heard.ended) == 2)
        return Judged(Verdict.BLOCKED, "ignored")


@attempt
async def forged_result_for_another_task(place: Path) -> Judged:
    """Answers in the name of another worker's task."""
    return await _is_ignored(place, result("g.honest", output="forged"))


@attempt
async def forged_result_for_another_attempt(place: Path) -> Judged:
    """Answers in the name of an attempt of its task that is not the one it was given."""
    return await _is_ignored(place, frames.TaskResult(task="g.liar", attempt=7, output="forged"))


@attempt
async def forged_progress_and_usage(place: Path) -> Judged:
    """Reports progress, output and cost for another task."""
    return await _is_ignored(
        place,
        frames.Progress(task="g.honest", attempt=1, fraction=1.0, message="done"),
        frames.Log(task="g.honest", attempt=1, stream="stdout", data=b"forged"),
        frames.UsageReport(task="g.honest", attempt=1, usage=Usage(cost_usd=1e9)),
    )


@attempt
async def second_answer(place: Path) -> Judged:
    """Answers twice, the second time as another task that it was never given."""
    async with pool(place) as bench:
        liar, honest = await bench.working("g.liar"), await bench.working("g.honest")
        liar.say(result("g.liar", output=1), result("g.liar", output=2), result("g.honest", output="forged"))
        await until(lambda: bench.heard.ended)
        honest.say(result("g.honest", output="mine"))
        await until(lambda: len(bench.heard.ended) == 2)
        said = [(end.task, end.output) for end in bench.heard.ended]
        good = said == [("g.liar", 1), ("g.honest", "mine")]
        return Judged(Verdict.BLOCKED if good else Verdict.ESCAPED, "ignored" if good else str(said))


@attempt
async def answer_before_the_task(place: Path) -> Judged:
    """Answers, without having said hello, a task that it has not been told yet."""
    async with pool(place) as bench:
        bench.claim("g.liar")
        await until(lambda: bench.spawner.made)
        bench.spawner.made[0].say(result("g.liar", output="forged"))
        await until(lambda: bench.heard.died or bench.heard.ended)
        return Judged(Verdict.ESCAPED if bench.heard.ended else Verdict.CONTAINED, "its worker is ended")


@attempt
async def oversized_frame_announced(place: Path) -> Judged:
    """Announces a frame of 4 GiB, to have the daemon make room for it."""
    before = psutil.Process().memory_info().rss
    judged = await _ends_its_worker_alone(place, b"\xff\xff\xff\xff" + b"x" * 65536)
    grown = psutil.Process().memory_info().rss - before
    return judged if grown < 256 * MIB else Judged(Verdict.ESCAPED, f"{grown} bytes")


@attempt
async def oversized_frame_sent(place: Path) -> Judged:
    """Sends a frame of one byte more than the limit."""
    size = frames.MAX_FRAME_BYTES + 1
    return await _ends_its_worker_alone(place, struct.pack("<I", size) + bytes(size))


@attempt
async def lengths_that_lie(place: Path) -> Judged:
    """Sends texts, lists and maps that claim 4 GiB of what is not there."""
    lies = [b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
    bodies = [b"\x82\xa4type\xa6result\xa6output" + lie for lie in lies]
    found = [await _ends_its_worker_alone(place / str(n), _framed(body)) for n, body in enumerate(bodies)]
    return found[-1]


def _framed(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


@attempt
async def deep_frame(place: Path) -> Judged:
    """Nests a million lists in each other, for a decoder that calls itself."""
    return await _ends_its_worker_alone(place, _framed(b"\x82\xa4type\xa6result\xa6output" + b"\x91" * 1_000_000))


@attempt
async def garbage(place: Path) -> Judged:
    """Sends frames of noise, of unknown kinds and of the daemon's own kinds."""
    bodies = [os.urandom(512), b"", b"\xc1", frames.encoder.encode({"type": "obey"}), frames.encoder.encode({"type": "cancel"})]
    found = [await _ends_its_worker_alone(place / str(n), _framed(body)) for n, body in enumerate(bodies)]
    return found[-1]


@attempt
async def flood_of_strays(place: Path) -> Judged:
    """Sends 50,000 frames that are not for it, to keep the daemon busy."""
    stray = frames.Progress(task="g.other", attempt=1, fraction=0.5)
    return await _ends_its_worker_alone(place, *[stray] * 50_000)


@attempt
async def second_hello(place: Path) -> Judged:
    """Says hello again, as the worker of another task."""
    hello = frames.WorkerHello(version=frames.WORKER_PROTOCOL_VERSION, task="g.honest", attempt=1)
    return await _ends_its_worker_alone(place, hello)


@attempt
async def descriptors_in_frames(place: Path) -> Judged:
    """Sends open files along, hundreds at a time, to use up the daemon's."""
    async with pool(place) as bench:
        liar, honest = await bench.working("g.liar"), await bench.working("g.honest")
        before = len(os.listdir("/proc/self/fd"))
        beat = _framed(frames.encoder.encode(frames.Heartbeat()))
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(20):
            socket.send_fds(liar.channel, [beat], [null] * 200)
        os.close(null)
        liar.say(result("g.liar"))
        await until(lambda: bench.heard.ended)
        grown = len(os.listdir("/proc/self/fd")) - before
        bench.heard.ended.clear()
        await _honest_ends(bench, honest)
        return Judged(Verdict.ESCAPED if grown > 50 else Verdict.BLOCKED, f"{max(grown, 0)} more are open")


@attempt
async def numbers_out_of_range(place: Path) -> Judged:
    """Reports infinite, negative and undefined progress and cost for its own task."""
    async with pool(place) as bench:
        liar, honest = await bench.working("g.liar"), await bench.working("g.honest")
        for value in (float("inf"), float("nan"), -1e308):
            liar.say(frames.Progress(task="g.liar", attempt=1, fraction=value, message="\x1b[2J" * 1000))
        liar.say(result("g.liar"))
        await until(lambda: bench.heard.ended)
        bench.heard.ended.clear()
        return await _honest_ends(bench, honest)


# In a real daemon


@contextlib.asynccontextmanager
async def daemon(place: Path) -> AsyncIterator[tuple[DaemonProcess, Client]]:
    process = DaemonProcess(place, CONFIG)
    try:
        await process.start()
        async with process.client() as client:
            yield process, client
    finally:
        process.close()


def _function(source: str, **fields: Any) -> TaskSpec:
    given = {"function": "builtins:exec", "args": [textwrap.dedent(source), {}]}
    return TaskSpec(agent="python", input=given, **{"max_retries": 0, **fields})


async def _end(client: Client, task: str) -> TaskView:
    return (await client.wait([task], mode="all", timeout_s=60)).tasks[0]


async def _works_on(client: Client) -> bool:
    reply = await client.submit([TaskSpec(input={"argv": ["true"]})])
    return (await _end(client, reply.tasks[0])).state == "succeeded"


SEND = """
    import msgspec, os, signal, struct, sys, time
    def send(frame):
        data = msgspec.msgpack.encode(frame)
        os.write(3, struct.pack('<I', len(data)) + data)
"""


@attempt
async def never_answering(place: Path) -> Judged:
    """Ignores every signal and never answers."""
    async with daemon(place) as (_, client):
        source = "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: time.sleep(60)"
        reply = await client.submit([_function(source, timeout_s=0.5)])
        view = await _end(client, reply.tasks[0])
        good = view.failure is not None and view.failure.code == "TIMEOUT" and await _works_on(client)
        return Judged(Verdict.CONTAINED if good else Verdict.ESCAPED, f"{view.state}, {view.failure and view.failure.code}")


@attempt
async def answering_after_cancel(place: Path) -> Judged:
    """Answers that all went well, when it has been cancelled."""
    async with daemon(place) as (_, client):
        source = (
            SEND
            + """
    def answer(*_):
        send({'type': 'result', 'task': 'g', 'attempt': 1, 'output': 'forged'})
        os._exit(0)
    signal.signal(signal.SIGTERM, answer)
    print('up', flush=True)
    while True: time.sleep(60)
"""
        )
        reply = await client.submit([_function(source)])
        (task,) = reply.tasks
        while b"up" not in (await client.logs(task)).data:
            await asyncio.sleep(0.01)
        await client.cancel(task)
        view = await _end(client, task)
        good = view.state == "cancelled" and await _works_on(client) and (await client.show(task)).task.state == "cancelled"
        return Judged(Verdict.BLOCKED if good else Verdict.ESCAPED, view.state)


@attempt
async def forged_by_a_function(place: Path) -> Judged:
    """Writes an end for a task that waits for it, on its runtime's own descriptor."""
    async with daemon(place) as (_, client):
        source = (
            SEND
            + """
    for name in ('other', sys.argv[-1], ''):
        send({'type': 'progress', 'task': name, 'attempt': 1, 'fraction': 0.5})
    send({'type': 'result', 'task': 'other', 'attempt': 1, 'output': 'forged'})
    time.sleep(30)
"""
        )
        waiting = TaskSpec(id="other", input={"argv": ["echo", "honest"]})
        reply = await client.submit([_function(source, id="liar"), waiting])
        ended = {task: await _end(client, task) for task in reply.tasks}
        other = await client.result(reply.tasks[1])
        good = "honest" in str(other.result.output) and "forged" not in str(other.result.output)
        states = ", ".join(view.state for view in ended.values())
        return Judged(Verdict.CONTAINED if good else Verdict.ESCAPED, f"its own result alone ({states})")


@attempt
async def log_bomb(place: Path) -> Judged:
    """Prints 64 MiB, to fill the daemon's disk with logs."""
    async with daemon(place) as (process, client):
        reply = await client.submit([TaskSpec(input={"argv": ["sh", "-c", "head -c 67108864 /dev/zero"]}, max_retries=0)])
        view = await _end(client, reply.tasks[0])
        size = _kept(process.state)
        good = size < 32 * MIB and await _works_on(client)
        return Judged(Verdict.CONTAINED if good else Verdict.ESCAPED, f"{size // MIB} MiB are kept ({view.state})")


@attempt
async def output_bomb(place: Path) -> Judged:
    """Returns 256 MiB as its result."""
    async with daemon(place) as (process, client):
        reply = await client.submit([_function("raise SystemExit('x' * (1 << 28))"), _function("print('y' * (1 << 26))")])
        for task in reply.tasks:
            await _end(client, task)
        size, memory = _kept(process.state), psutil.Process(process.process.pid if process.process else None).memory_info().rss
        good = size < 32 * MIB and memory < 512 * MIB and await _works_on(client)
        return Judged(
            Verdict.CONTAINED if good else Verdict.ESCAPED, f"{size // MIB} MiB kept, the daemon has {memory // MIB} MiB"
        )


@attempt
async def frame_bomb(place: Path) -> Judged:
    """Sends 100,000 reports of progress of a kilobyte each."""
    async with daemon(place) as (process, client):
        source = (
            SEND
            + """
    for number in range(100000):
        send({'type': 'progress', 'task': 'g', 'attempt': 1, 'fraction': 0.5, 'message': 'x' * 1000})
"""
        )
        reply = await client.submit([_function(source, timeout_s=20)])
        slowest = 0.0
        while not (await client.wait(reply.tasks, timeout_s=0.2)).done:
            before = asyncio.get_running_loop().time()
            await client.status()
            slowest = max(slowest, asyncio.get_running_loop().time() - before)
        size = _kept(process.state)
        good = size < 32 * MIB and await _works_on(client)
        return Judged(Verdict.CONTAINED if good else Verdict.ESCAPED, f"{size // MIB} MiB are kept")


def _kept(state: Path) -> int:
    """Bytes on disk of logs and results: the journal is made in advance."""
    return sum(path.stat().st_blocks * 512 for path in state.rglob("*") if path.is_file() and "journal" not in path.parts)
