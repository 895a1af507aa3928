"""A journal that the disk has damaged: the daemon refuses it, says what to do, and that works."""

from __future__ import annotations

import json
from pathlib import Path

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.journal import survey
from tests.support.daemon import DaemonProcess


def task(id: str, *after: str) -> TaskSpec:
    return TaskSpec(id=id, input={"argv": ["true"]}, dependencies=after)


async def test_a_repaired_journal_keeps_what_can_be_kept(daemon: DaemonProcess, tmp_path: Path) -> None:
    await daemon.start()
    async with daemon.client() as client:
        kept = (await client.submit([task("A")])).tasks[0]
        lost = (await client.submit([task("B")])).tasks[0]
        await client.wait([kept, lost], mode="all", timeout_s=30)
        behind = (await client.submit([task("C", lost)])).tasks[0]
        await client.wait([behind], mode="all", timeout_s=30)
    daemon.kill()
    journal = tmp_path / "state" / "journal"
    _damage(journal, of=lost)

    daemon.spawn()
    assert daemon.process is not None
    assert daemon.process.wait(timeout=30) == 1
    assert "agentctl journal repair" in daemon.log_text()
    assert "Traceback" not in daemon.log_text()
    looked = daemon.agentctl("journal", "verify", str(journal))
    assert (looked.returncode, "damaged" in looked.stdout) == (1, True)
    assert "agentctl journal repair" in looked.stderr

    report = json.loads(daemon.agentctl("journal", "repair", "--json", str(journal)).stdout)
    assert (report["repaired"], report["records_lost"]) == (True, 1)
    assert daemon.agentctl("journal", "verify", str(journal)).returncode == 0
    assert "hole" in daemon.agentctl("journal", "dump", str(journal)).stdout
    assert json.loads(daemon.agentctl("journal", "stats", "--json", str(journal)).stdout)["records"] > 5

    await daemon.start()
    async with daemon.client() as client:
        assert {view.id: view.state for view in (await client.list()).tasks} == {kept: State.SUCCEEDED}
        assert "record_left_out" in daemon.log_text()
        again = (await client.submit([task("D", kept)])).tasks
        assert (await client.wait(again, mode="all", timeout_s=30)).tasks[0].state is State.SUCCEEDED


def _damage(journal: Path, *, of: str) -> None:
    """Flip a bit in the record that submitted the task."""
    graph = of.split(".")[0].encode()
    entry = next(entry for entry in survey.dump(journal) if graph in entry.payload)
    data = bytearray(entry.path.read_bytes())
    data[entry.offset + 30] ^= 1
    entry.path.write_bytes(data)
