"""Results are whole or absent; logs are capped and say so."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisord_agents.core.model import Result
from supervisord_agents.errors import DiskFull, NotFound, SupervisorError
from supervisord_agents.spool import logs as log_module
from supervisord_agents.spool.logs import LogStore
from supervisord_agents.spool.results import ResultStore
from tests.support.journal import StepFiles


def result(output: object, attempt: int = 1, status: str = "succeeded") -> Result:
    return Result(task_id="g.a", status=status, attempt=attempt, output=output)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    written = result({"text": "é\n", "n": [1, 2.5, None]})
    store.put(written)
    assert store.read("g.a") == written
    assert sorted(os.listdir(tmp_path)) == [".staging", "task_g.a.json"]
    assert not os.listdir(tmp_path / ".staging")


def test_a_staged_result_counts_once_it_is_published(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.put(result("old"))
    staged = store.stage(result("new", attempt=2))
    assert store.read("g.a").output == "old"
    store.publish("g.a", staged)
    store.sync_names()
    assert store.read("g.a").output == "new"


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(SupervisorError, match="cannot be written") as refused:
        ResultStore(tmp_path / "results", StepFiles(lambda _, name: OSError(errno.EIO, "Input/output error")))
    assert str(tmp_path / "results") in str(refused.value)


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    ResultStore(tmp_path).stage(result("x"))
    assert os.listdir(tmp_path / ".staging")
    ResultStore(tmp_path)
    assert not os.listdir(tmp_path / ".staging")


def test_a_missing_and_a_damaged_result_are_told_apart(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    with pytest.raises(NotFound, match="has no result yet"):
        store.read("g.a")
    for damage in (b'{"task_id": "g', b"", b'{"task_id": "g.a", "output": ' + b"[" * 100_000, b'"\xff"'):
        store.path("g.a").write_bytes(damage)
        with pytest.raises(SupervisorError, match="cannot be read") as caught:
            store.read("g.a")
        assert "agentctl retry g.a" in caught.value.hint


def test_a_result_that_the_disk_refuses_is_kept_and_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore(tmp_path)
    store.put(result("old", status="failed"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", full)
        store.put(result("new", attempt=2))
        assert (store.kept, store.read("g.a").output, store.read("g.a").attempt) == (1, "new", 2)
        with pytest.raises(SupervisorError, match="1 results could not be written"):
            store.sync_all()
        store.write_kept()
        assert store.kept == 1
        assert ResultStore(tmp_path).read("g.a").output == "old"
    store.write_kept()
    assert store.kept == 0
    store.sync_all()
    assert ResultStore(tmp_path).read("g.a").output == "new"


def test_a_result_that_cannot_be_staged_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="No space left"):
        store.stage(result("new"))
    assert not os.listdir(tmp_path / ".staging")


def add(logs: LogStore, task: str, data: bytes) -> bytes:
    """What comes next of attempt 1."""
    return logs.hear(task, 1, logs.heard(task, 1), data)


def test_a_log_is_cut_at_its_limit_and_says_so_once(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=10)
    for _ in range(5):
        add(logs, "t", b"123456")
    logs.close("t")
    add(logs, "t", b"more")
    logs.close_all()
    assert (tmp_path / "task_t.log").read_bytes() == b"1234561234\n[supervisor] log cut at 10 bytes\n"


def test_a_log_is_read_in_pieces(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=1000)
    assert logs.read("t", 0, 10) == (b"", 0)
    add(logs, "t", b"0123456789")
    assert logs.read("t", 4, 3) == (b"456", 10)
    assert logs.read("t", 10, 3) == (b"", 10)
    logs.close_all()
    assert logs.read("t", 2**62, 3) == (b"", 10)


def test_a_full_log_still_tells_how_the_attempt_ended(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=10)
    add(logs, "t", b"x" * 100)
    logs.notice("t", "attempt 1 is over")
    for _ in range(10_000):
        logs.notice("t", "a line of many")
    logs.close_all()
    text = (tmp_path / "task_t.log").read_bytes()
    assert b"[supervisor] attempt 1 is over\n" in text
    assert len(text) < 10 + log_module.NOTICE_ROOM_BYTES + 100


def test_a_log_that_cannot_be_opened_costs_nothing_else(tmp_path: Path) -> None:
    logs = LogStore(tmp_path / "logs", limit_bytes=1000)
    (tmp_path / "logs").rename(tmp_path / "away")
    add(logs, "t", b"lost")
    logs.notice("t", "lost")
    (tmp_path / "away").rename(tmp_path / "logs")
    add(logs, "t", b"still lost")
    logs.close("t")
    add(logs, "t", b"kept")
    logs.close_all()
    assert (tmp_path / "logs" / "task_t.log").read_bytes() == b"kept"


def test_however_many_logs_are_written_few_are_open(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=1000)
    before = len(os.listdir("/proc/self/fd"))
    for round in range(2):
        for number in range(log_module.MAX_OPEN + 50):
            add(logs, f"t{number}", b"%d" % round)
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * log_module.MAX_OPEN  # each with its position
    logs.close_all()
    assert (tmp_path / "task_t0.log").read_bytes() == b"01"


def test_the_supervisor_s_lines_begin_a_line(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=1000)
    logs.notice("t", "one")
    add(logs, "t", b"half a line")
    logs.close("t")
    logs.notice("t", "two")
    add(logs, "t", b"whole\n")
    logs.notice("t", "three")
    logs.close_all()
    text = (tmp_path / "task_t.log").read_bytes()
    assert text == b"[supervisor] one\nhalf a line\n[supervisor] two\nwhole\n[supervisor] three\n"


def test_output_that_is_said_again_is_not_logged_again(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=1000)
    assert logs.hear("t", 1, 0, b"0123") == b"0123"
    logs.notice("t", "a line between")
    logs.close_all()  # as by a daemon that stops while the attempt goes on
    logs = LogStore(tmp_path, limit_bytes=1000)
    assert logs.heard("t", 1) == 4
    assert logs.hear("t", 1, 2, b"2345") == b"45"
    assert logs.hear("t", 1, 0, b"012345") == b""
    assert logs.hear("t", 2, 0, b"next") == b"next"
    logs.close("t")
    assert logs.heard("t", 2) == 0
    logs.close_all()
    text = (tmp_path / "task_t.log").read_bytes()
    assert text == b"0123\n[supervisor] a line between\n45next"


def test_output_that_is_missing_is_told(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=1000)
    logs.hear("t", 1, 0, b"01\n")
    logs.hear("t", 1, 8, b"89\n")
    logs.close_all()
    text = (tmp_path / "task_t.log").read_bytes()
    assert text == b"01\n[supervisor] 5 bytes of output were lost with an earlier daemon\n89\n"


@pytest.mark.parametrize("written", [0, 1, 3])
def test_a_daemon_killed_while_it_logs_has_logged_just_that_much(
    tmp_path: Path, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = LogStore(tmp_path, limit_bytes=1000)
    logs.hear("t", 1, 0, b"abc")
    real = os.write

    def killed(descriptor: int, data: bytes) -> int:
        real(descriptor, data[:written])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        logs.hear("t", 1, 3, b"def")
    monkeypatch.undo()
    again = LogStore(tmp_path, limit_bytes=1000)
    assert again.heard("t", 1) == 3 + written
    again.hear("t", 1, 0, b"abcdefghi")
    again.close_all()
    assert (tmp_path / "task_t.log").read_bytes() == b"abcdefghi"


def test_what_is_known_of_attempts_that_are_over_is_removed(tmp_path: Path) -> None:
    logs = LogStore(tmp_path, limit_bytes=1000)
    for task in ("goes-on", "is-over", "ended"):
        logs.hear(task, 1, 0, b"x")
    logs.close("ended")
    logs.close_all()
    again = LogStore(tmp_path, limit_bytes=1000)
    again.forget_positions({"goes-on"})
    assert os.listdir(tmp_path / ".heard") == ["goes-on"]
