"""A loss of power, on a real file system that then forgets what was not synced: all that was told is true, and stays done."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_agents.core.model import END_STATES, State
from supervisord_agents.errors import SupervisorError
from supervisord_agents.rpc.client import Client
from tests.support.crashes import CONFIG, MODULE, Load, all_ids
from tests.support.lossy_disk import Loss
from tests.support.lossy_machine import LossyMachine, why_not

ROUNDS = int(os.environ.get("POWER_CUT_ROUNDS", "9"))
"""Three of each kind of loss; a journal that syncs nothing is seen at the first. `make power-cuts` makes 200."""
SEED = int(os.environ.get("POWER_CUT_SEED", "1"))
CLIENTS = 3
ROUND_S = 1.0
LARGE = 100_000

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not() or "nothing is missing"), pytest.mark.slow]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[LossyMachine]:
    machine = LossyMachine(tmp_path, CONFIG.replace("segment_bytes = 1048576", "segment_bytes = 65536"))
    yield machine
    machine.close()


class Told:
    """What a subscriber was told of ends: no end that was told may ever be taken back."""

    def __init__(self, machine: LossyMachine) -> None:
        self._machine = machine
        self.ends: dict[str, tuple[State, int]] = {}

    async def listen(self, connected: asyncio.Event) -> None:
        async with self._machine.client() as client:
            connected.set()
            async for item in client.subscribe():
                if item.kind == "state" and item.state in END_STATES:
                    self.ends[item.task] = item.state, item.attempt


@pytest.mark.timeout(120 + 60 * ROUNDS)
async def test_what_was_told_survives_every_loss_of_power(machine: LossyMachine, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "marker.py").write_text(MODULE)
    dice = random.Random(SEED)
    loads = [Load(machine, workspace, f"client{number}") for number in range(CLIENTS)]
    told = Told(machine)
    runs: dict[str, int] = {}
    torn = 0
    for number in range(ROUNDS):
        machine.boot()
        await machine.start()
        async with machine.client() as client:
            torn += (await client.status()).recovery.torn_bytes > 0
            await _judge(client, loads, told)
        await _live_until_cut(machine, loads, told, dice, list(Loss)[number % len(Loss)])
        counted = _runs(workspace)
        runs |= {task: counted[task] for task in told.ends if task not in runs}
    machine.boot()
    await machine.start()
    async with machine.client() as client:
        await _judge(client, loads, told)
        acknowledged = [task for load in loads for task in load.acknowledged]
        cancelled = {graph for load in loads for graph in load.cancelled}
        for start in range(0, len(acknowledged), 200):
            waited = await client.wait(acknowledged[start : start + 200], mode="all", timeout_s=300)
            assert waited.done
            for view in waited.tasks:
                assert view.state is State.SUCCEEDED or (view.state is State.CANCELLED and view.graph in cancelled), view
    assert "Traceback" not in machine.log_text()
    again = {task: (count, _runs(workspace)[task]) for task, count in runs.items() if _runs(workspace)[task] != count}
    assert not again, f"ran again after their end was told: {again}"
    print(f"{ROUNDS} cuts, {len(acknowledged)} tasks acknowledged, {len(told.ends)} ends told, {torn} torn tails")
    assert told.ends


async def _live_until_cut(machine: LossyMachine, loads: list[Load], told: Told, dice: random.Random, loss: Loss) -> None:
    """Load until the power goes. In some lives the disk has stalled by then, so that much is not synced."""
    connected = [asyncio.Event() for _ in range(len(loads) + 1)]
    jobs = [asyncio.create_task(load.run(event)) for load, event in zip(loads, connected, strict=False)]
    jobs.append(asyncio.create_task(told.listen(connected[-1])))
    for event in connected:
        await event.wait()
    # On a slow machine nothing would ever end in so short a life, and what is lost ten times is given up.
    told_before, until_one_ends = len(told.ends), dice.random() < 0.5
    while until_one_ends and not any(state is State.SUCCEEDED for state, _ in list(told.ends.values())[told_before:]):
        await asyncio.sleep(0.02)
    await asyncio.sleep(dice.uniform(0.0, ROUND_S))
    if dice.random() < 0.3:
        machine.set(stalled=True)
        while not machine.look()["waiting"]:
            await asyncio.sleep(0.01)
    machine.cut_power(loss, dice.getrandbits(32))
    # What was sent before that is still read.
    for outcome in await asyncio.gather(*jobs, return_exceptions=True):
        assert isinstance(outcome, SupervisorError), outcome


async def _judge(client: Client, loads: list[Load], told: Told) -> None:
    known = await all_ids(client)
    lost = {task for load in loads for task in load.acknowledged} - known
    assert not lost, f"acknowledged, and lost: {sorted(lost)}"
    for task, (state, attempt) in told.ends.items():
        result = (await client.result(task)).result
        assert (result.status, result.attempt) == (state, attempt), task
        if state is State.SUCCEEDED:
            assert result.error is None, result
            assert result.output == attempt or len(result.output) == LARGE, task


def _runs(workspace: Path) -> Counter[str]:
    log = workspace / "done.log"
    return Counter(log.read_text().split()) if log.exists() else Counter()
