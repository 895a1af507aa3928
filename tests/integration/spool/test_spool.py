"""Results are whole or absent; logs are capped and say so."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisord_agents.core.model import Result
from supervisord_agents.errors import DiskFull, NotFound, SupervisorError
from supervisord_agents.spool.logs import LogStore
from supervisord_agents.spool.results import ResultStore


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    result = Result(task_id="g.a", status="succeeded", output={"text": "é\n", "n": [1, 2.5, None]})
    path = store.write(result, sync=True)
    assert path.name == "task_g.a.json"
    assert store.read("g.a") == result
    assert os.listdir(tmp_path) == [path.name]


def test_a_missing_and_a_damaged_result_are_told_apart(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    with pytest.raises(NotFound, match="has no result yet"):
        store.read("g.a")
    store.path("g.a").write_bytes(b'{"task_id": "g')
    with pytest.raises(SupervisorError, match="damaged") as caught:
        store.read("g.a")
    assert "agentctl retry g.a" in caught.value.hint


def test_a_failed_write_keeps_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore(tmp_path)
    old = Result(task_id="g.a", output="old")
    store.write(old)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="No space left"):
        store.write(Result(task_id="g.a", output="new"), sync=True)
    assert store.read("g.a") == old
    assert os.listdir(tmp_path) == ["task_g.a.json"]


def test_a_log_is_cut_at_its_limit_and_says_so_once(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=10)
    for _ in range(5):
        logs.append("t", b"123456")
    logs.close("t")
    logs.append("t", b"more")
    logs.close_all()
    assert (tmp_path / "task_t.log").read_bytes() == b"1234561234\n[supervisor] log cut at 10 bytes\n"


def test_a_log_is_read_in_pieces(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=1000)
    assert logs.read("t", 0, 10) == (b"", 0)
    logs.append("t", b"0123456789")
    assert logs.read("t", 4, 3) == (b"456", 10)
    assert logs.read("t", 10, 3) == (b"", 10)
    logs.close_all()
