"""`agentctl journal verify | stats | dump | repair` on each kind of damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisord_agents.cli.main import main
from supervisord_agents.journal.segment import HEADER, RECORD_OVERHEAD, segments
from supervisord_agents.journal.snapshot import snapshots
from tests.support.journal import fill, open_journal

SIZE = 1300
RECORDS = [bytes([number]) * SIZE for number in range(1, 9)]
LAST_RECORD = HEADER.size + (len(RECORDS) - 7) * (RECORD_OVERHEAD + SIZE)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def torn(directory: Path) -> None:
    flip(segments(directory)[2][1], LAST_RECORD + RECORD_OVERHEAD + 5)


def in_a_record(directory: Path) -> None:
    flip(segments(directory)[1][1], HEADER.size + RECORD_OVERHEAD + 5)


def in_a_length(directory: Path) -> None:
    flip(segments(directory)[0][1], HEADER.size + RECORD_OVERHEAD + SIZE)


def in_a_header(directory: Path) -> None:
    flip(segments(directory)[1][1], 9)


def in_two_places(directory: Path) -> None:
    in_a_record(directory)
    in_a_length(directory)


def without_a_segment(directory: Path) -> None:
    segments(directory)[1][1].unlink()


def in_the_snapshot(directory: Path) -> None:
    flip(snapshots(directory)[0], 40)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Eight records in three segments, a snapshot of the first two of them, and no orderly end."""
    directory = tmp_path / "journal"
    journal, _ = open_journal(directory)
    fill(journal, RECORDS)
    journal.write_snapshot(b"the state", 2)
    journal.close(clean=False)
    assert len(segments(directory)) == 3
    return directory


@pytest.mark.parametrize(
    ("damage", "says", "lost"),
    [
        (torn, None, []),
        (in_a_record, "a record does not check", [4]),
        (in_a_length, "does not check", []),
        (in_a_header, "the header does not check", []),
        (in_two_places, "does not check", [4]),
        (without_a_segment, "records 4 to 6 are missing", [4, 5, 6]),
        (in_the_snapshot, "this snapshot cannot be used", []),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_each_kind_of_damage(
    directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    says: str | None,
    lost: list[int],
) -> None:
    def agentctl(command: str) -> tuple[int, list[Any]]:
        code = main(["journal", command, "--json", str(directory)])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def sequences() -> list[int]:
        return [entry["sequence"] for entry in agentctl("dump")[1] if entry["kind"] == "payload"]

    assert agentctl("verify") == (0, [{"directory": str(directory), "ok": True, "findings": []}])
    assert sequences() == list(range(1, 9))
    damage(directory)
    as_it_was = tmp_path / "as it was"
    shutil.copytree(directory, as_it_was)

    code, (found,) = agentctl("verify")
    assert (code, found["ok"]) == ((1, False) if says else (0, True))
    assert any(says is None or says in finding["what"] for finding in found["findings"])
    assert all(finding["fatal"] == bool(says) for finding in found["findings"])
    if says:
        main(["journal", "verify", str(directory)])
        assert "agentctl journal repair" in capsys.readouterr().err
    code, (stats,) = agentctl("stats")
    assert (code, stats["records"]) == (0, len(sequences()))
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {
        path.name: path.read_bytes() for path in as_it_was.iterdir()
    }, "looking changes nothing"

    code, (report,) = agentctl("repair")
    assert (code, report["repaired"]) == (0, bool(says))
    assert [number for first, last in report["lost"] for number in range(first, last + 1)] == lost
    assert agentctl("verify")[0] == 0
    journal, recovered = open_journal(directory)
    journal.close()
    behind = recovered.snapshot_sequence
    whole = [number for number in range(behind + 1, 9) if number not in lost and (says or number != 8)]
    assert [sequence for sequence, _ in recovered.records] == whole
    assert agentctl("verify") == (0, [{"directory": str(directory), "ok": True, "findings": []}])
