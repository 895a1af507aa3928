"""Emptying directories that somebody filled on purpose, and reading outboxes that were cut short."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisord_agents.core.model import Failure, TaskSpec
from supervisord_agents.daemon import recovery
from supervisord_agents.errors import ProtocolError
from supervisord_agents.wire import frames
from supervisord_agents.workers import outbox
from supervisord_agents.workers.emptying import empty
from supervisord_agents.workers.nest import Nest, end_left
from supervisord_agents.workers.rooms import kept, mount_points

END = frames.TaskResult(task="g.a", attempt=2, output="x" * 100)


LEVELS = 2100
"""More than the interpreter recurses, than descriptors are open at a time, and than a path can name (4096 bytes)."""


def deep(directory: Path) -> None:
    here = os.open(directory, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def test_a_tree_of_any_depth_and_modes_goes(tmp_path: Path) -> None:
    deep(tmp_path)
    shut = tmp_path / "shut" / "in"
    shut.mkdir(parents=True)
    (shut / "file").touch()
    shut.chmod(0)
    shut.parent.chmod(0)
    os.mkfifo(tmp_path / "fifo")
    empty(str(tmp_path), within_s=60)
    assert os.listdir(tmp_path) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept_file = tmp_path / "kept" / "file"
    kept_file.parent.mkdir()
    kept_file.touch()
    room = tmp_path / "room"
    (room / "sub").mkdir(parents=True)
    for place in (room, room / "sub"):
        (place / "link").symlink_to(kept_file.parent)
    empty(str(room), within_s=60)
    assert os.listdir(room) == []
    assert kept_file.exists()
    (tmp_path / "alias").symlink_to(kept_file.parent)
    with pytest.raises(OSError, match="alias"):
        empty(str(tmp_path / "alias"), within_s=60)


def test_what_is_to_be_kept_stays(tmp_path: Path) -> None:
    (tmp_path / "way" / "mount").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    empty(str(tmp_path), within_s=60, keep=frozenset({f"{tmp_path}/way"}))
    assert os.listdir(tmp_path) == ["way"]


def test_too_much_to_remove_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TimeoutError):
        empty(str(tmp_path), within_s=-1)


def test_mounts_below_a_directory_and_the_way_to_them_are_kept() -> None:
    keep, ways = kept(["/tmp", "/home/worker"], ["/", "/tmp", "/tmp/a/b/work", "/tmp/a/b/work/sub", "/tmpx/c"])
    assert keep == {"/tmp/a", "/tmp/a/b", "/tmp/a/b/work", "/tmp/a/b/work/sub"}
    assert ways == ["/tmp/a/b", "/tmp/a"]


def test_mount_points_with_blanks() -> None:
    line = b"36 35 98:0 / /mnt/a\\040b\\134c rw,noatime master:1 - ext3 /dev/root rw\n"
    assert list(mount_points(line)) == ["/mnt/a b\\c"]


# Outboxes


def written(path: Path, end: frames.TaskResult | frames.TaskError = END) -> bytes:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    outbox.Outbox(descriptor).put(frames.encoder.encode(end))
    os.close(descriptor)
    return path.read_bytes()


def test_an_end_comes_back_and_a_shorter_one_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    path.touch()
    assert outbox.read(path) is None
    for end in (END, frames.TaskError(task="g.b", attempt=1, failure=Failure(code="X"))):
        written(path, end)
        assert outbox.read(path) == end


def test_a_record_that_was_cut_or_damaged_anywhere_is_none(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    whole = written(path)
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ProtocolError):
            outbox.read(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        with pytest.raises(ProtocolError):
            outbox.read(path)


@pytest.mark.parametrize("kind", ["directory", "link", "fifo", "length", "payload", "missing"])
def test_what_is_no_outbox_is_skipped(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "outbox"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        written(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "length":
        path.write_bytes(b"\xff" * 64)
    elif kind == "payload":
        path.write_bytes(outbox.HEADER.pack(1, 0x8A2D0D61) + b"\xc1")
    assert end_left(tmp_path, "g.a", 2) is None


def test_only_the_end_of_the_very_attempt_is_taken(tmp_path: Path) -> None:
    written(tmp_path / "outbox")
    assert end_left(tmp_path, "g.a", 2) == END
    assert end_left(tmp_path, "g.a", 1) is None
    assert end_left(tmp_path, "g.b", 2) is None


class OneRunning:
    """A scheduler, as far as the adoption looks at it."""

    class Task:
        id, attempt, worker, spec = "g.a", 2, "w-1", TaskSpec()

    def running_tasks(self) -> list[Task]:
        return [self.Task()]


def test_a_daemon_that_comes_back_adopts_ends_and_clears_whatever_lies_there(tmp_path: Path) -> None:
    nest = Nest(tmp_path / "w-1")
    nest.handed_over()
    written(tmp_path / "w-1" / "outbox")
    adopted: list[tuple[str, object]] = []
    assert recovery.adopt_outboxes(OneRunning(), tmp_path, lambda *item: adopted.append(item), ()) == 1  # type: ignore[arg-type]
    assert adopted == [("w-1", END)]
    assert recovery.adopt_outboxes(OneRunning(), tmp_path, lambda *item: adopted.append(item), {"g.a"}) == 0  # type: ignore[arg-type]
    (tmp_path / "w-old" / "outbox").mkdir(parents=True)
    deep(tmp_path / "w-old" / "outbox")
    recovery.clear(tmp_path, {"w-1"})
    assert os.listdir(tmp_path) == ["w-1"]
    recovery.clear(tmp_path, ())
    assert os.listdir(tmp_path) == []


def test_a_bad_outbox_is_no_reason_not_to_start(tmp_path: Path) -> None:
    (tmp_path / "w-1").mkdir()
    (tmp_path / "w-1" / "outbox").write_bytes(b"\xff" * 20)
    assert recovery.adopt_outboxes(OneRunning(), tmp_path, lambda *_: None, ()) == 0  # type: ignore[arg-type]
