"""The wall clock is set forth or back, under a daemon that runs and between two: order, timers and deadlines hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.rpc.client import Client
from tests.support.clocked_daemon import ClockedDaemon

HOUR_S = 3600.0
STEPS = {"an hour back": -HOUR_S, "an hour forth": HOUR_S, "to 1970": 86400 - time.time(), "ten years forth": 87_660 * HOUR_S}
CONFIG = "[pools.standard]\nmin_workers = 1\nmax_workers = 3\nscaling = 'on-demand'\n"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ClockedDaemon]:
    process = ClockedDaemon(tmp_path, CONFIG)
    yield process
    process.close()


def task(id: str, *argv: str, **more: object) -> TaskSpec:
    return TaskSpec(id=id, input={"argv": list(argv)}, **more)  # type: ignore[arg-type]


async def until_state(client: Client, name: str, state: State) -> None:
    while (await client.show(name)).task.state is not state:
        await asyncio.sleep(0.02)


async def submitted(client: Client, spec: TaskSpec) -> str:
    return (await client.submit([spec])).tasks[0]


async def check_history(client: Client, names: list[str]) -> None:
    """Times do not run backwards: not within a task, nor from one submit to the next."""
    starts = []
    for name in names:
        shown = await client.show(name)
        times = [moment["at"] for moment in shown.history]
        assert times == sorted(times), shown
        starts.append(shown.task.submitted_at)
    assert starts == sorted(starts)


async def test_steps_while_it_runs_change_nothing(daemon: ClockedDaemon, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    await daemon.start()
    async with daemon.client() as client:
        argv = ("sh", "-c", "until [ -e go ]; do sleep 0.05; done")
        held = await submitted(client, task("held", *argv, workspace=str(workspace), timeout_s=600, deadline_s=1800))
        await until_state(client, held, State.RUNNING)
        started_at = (await client.status()).started_at
        names = [held]
        for number, step in enumerate(STEPS.values()):
            names += await _live_through(client, daemon, step, f"seen{number}", workspace)
        assert (await client.show(held)).task.state is State.RUNNING
        (workspace / "go").touch()
        assert (await client.wait([held], timeout_s=60)).tasks[0].state is State.SUCCEEDED
        await check_history(client, names)
        assert (await client.status()).started_at == started_at
    assert daemon.stop() == 0


async def _live_through(client: Client, daemon: ClockedDaemon, step: float, mark: str, workspace: Path) -> list[str]:
    """A step, while a timeout and a backoff are under way."""
    late = await submitted(client, task("late", "sleep", "1000", timeout_s=2, max_retries=0))
    argv = ("sh", "-c", f"[ -e {mark} ] || {{ touch {mark}; exit 1; }}")
    again = await submitted(client, task("again", *argv, backoff_s=1, workspace=str(workspace)))
    await until_state(client, again, State.BACKING_OFF)
    await until_state(client, late, State.RUNNING)
    daemon.step_clock(step)
    after = await submitted(client, task("after", "true"))
    waited = await client.wait([late, again, after], mode="all", timeout_s=60)
    assert [view.state for view in waited.tasks] == [State.FAILED, State.SUCCEEDED, State.SUCCEEDED]
    failure = waited.tasks[0].failure
    assert failure is not None
    assert failure.code == "TIMEOUT"
    return [late, again, after]


@pytest.mark.parametrize(("name", "end"), list(zip(STEPS, ["kill", "stop", "stop", "kill"], strict=True)))
async def test_a_step_between_two_daemons_keeps_order_and_work(daemon: ClockedDaemon, name: str, end: str) -> None:
    await daemon.start()
    async with daemon.client() as client:
        first = await submitted(client, task("first", "true"))
        await client.wait([first], timeout_s=30)
        waiting = await submitted(client, task("waiting", "sh", "-c", "exit 3", backoff_s=HOUR_S))
        await until_state(client, waiting, State.BACKING_OFF)
        due = await submitted(client, task("due", "sleep", "1000", deadline_s=4, max_retries=0))
        await until_state(client, due, State.RUNNING)
    if end == "stop":
        assert daemon.stop() == 0
    else:
        daemon.kill()
    daemon.step_clock(STEPS[name])
    await daemon.start()
    async with daemon.client() as client:
        assert (await client.status()).recovery.clean == (end == "stop")
        assert (await client.show(first)).task.state is State.SUCCEEDED
        after = await submitted(client, task("after", "true", timeout_s=600))
        assert (await client.wait([after], timeout_s=30)).tasks[0].state is State.SUCCEEDED
        # By this clock or by that, its deadline passes.
        ended = (await client.wait([due], timeout_s=60)).tasks[0]
        assert ended.failure is not None
        assert ended.failure.code == "DEADLINE"
        # Its backoff, of five minutes at most, is over; or the time that is left of it counts from the last record.
        if STEPS[name] > 0:
            while (await client.show(waiting)).task.attempt < 2:
                await asyncio.sleep(0.02)
        else:
            assert (await client.show(waiting)).task.attempt == 1
        await check_history(client, [first, waiting, due, after])
    # Set right again. What the journal holds may be from the future, and stays in order all the same.
    assert daemon.stop() == 0
    daemon.step_clock(0.0)
    await daemon.start()
    async with daemon.client() as client:
        last = await submitted(client, task("last", "true"))
        assert (await client.wait([last], timeout_s=30)).tasks[0].state is State.SUCCEEDED
        await check_history(client, [first, waiting, due, after, last])
