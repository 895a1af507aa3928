"""What the disk of the power-cut tests forgets, and what it must keep."""

from __future__ import annotations

import errno
import random
import stat

import pytest

from tests.support.lossy_disk import Inode, Loss, LossyDisk

FILE = stat.S_IFREG | 0o600


def file(disk: LossyDisk, path: str, data: bytes = b"") -> Inode:
    made = disk.make(path, FILE, 0, 0)
    disk.write(made, data, 0)
    return made


def names(disk: LossyDisk, path: str = "") -> set[str]:
    return set(disk.lookup(path).names)


def cut(disk: LossyDisk, loss: Loss = Loss.ALL, seed: int = 1) -> LossyDisk:
    return disk.cut_power(loss, random.Random(seed))


def test_what_was_synced_stays_and_nothing_else() -> None:
    disk = LossyDisk()
    kept = file(disk, "kept", b"synced")
    disk.sync(kept)
    disk.sync(disk.root)
    disk.write(kept, b"SYNCED, and more", 0)
    disk.sync(file(disk, "without a name", b"x"))
    left = cut(disk)
    assert names(left) == {"kept"}
    assert left.lookup("kept").content == b"synced"
    assert left.used == 6


def test_a_name_may_be_there_before_its_bytes() -> None:
    disk = LossyDisk()
    file(disk, "empty", b"x")
    disk.sync(disk.root)
    assert cut(disk).lookup("empty").content == b""


def test_a_rename_is_whole_or_not_at_all() -> None:
    disk = LossyDisk()
    new = file(disk, "new", b"2")
    old = file(disk, "file", b"1")
    for inode in (new, old, disk.root):
        disk.sync(inode)
    disk.rename("new", "file")
    assert {names: bytes(left.lookup("file").content) for left in [cut(disk)] for names in [frozenset(left.root.names)]} == {
        frozenset({"new", "file"}): b"1"
    }
    disk.sync(disk.root)
    left = cut(disk)
    assert (names(left), left.lookup("file").content) == ({"file"}, b"2")


def test_a_synced_directory_brings_along_what_its_names_build_on() -> None:
    disk = LossyDisk()
    disk.make("a", stat.S_IFDIR | 0o700, 0, 0)
    disk.make("b", stat.S_IFDIR | 0o700, 0, 0)
    disk.sync(disk.root)
    disk.sync(file(disk, "a/x", b"1"))
    disk.rename("a/x", "b/x")
    disk.sync(disk.lookup("b"))
    disk.sync(disk.lookup("a"))
    left = cut(disk)
    assert (names(left, "a"), names(left, "b")) == (set(), {"x"})


def test_some_and_torn_writes() -> None:
    disk = LossyDisk()
    one = file(disk, "one", b"a" * 8192)
    disk.sync(one)
    disk.sync(disk.root)
    disk.write(one, b"b" * 8192, 0)
    some = {bytes(cut(disk, Loss.SOME, seed).lookup("one").content[::4096]) for seed in range(200)}
    assert some == {b"aa", b"ab", b"ba", b"bb"}
    sectors = {bytes(cut(disk, Loss.TORN, seed).lookup("one").content[:1024:512]) for seed in range(200)}
    assert sectors == {b"aa", b"ab", b"ba", b"bb"}


def test_a_failed_sync_loses_what_it_should_have_written() -> None:
    disk = LossyDisk()
    one = file(disk, "one", b"x")
    disk.sync(disk.root)
    disk.sync_fails = True
    with pytest.raises(OSError, match="Input/output error"):
        disk.sync(one)
    disk.sync_fails = False
    disk.sync(one)
    assert (one.content, cut(disk).lookup("one").content) == (b"x", b"")


def test_no_room() -> None:
    disk = LossyDisk(capacity=10)
    one = file(disk, "one", b"12345678")
    with pytest.raises(OSError, match="No space left") as caught:
        disk.write(one, b"1234", 8)
    assert caught.value.errno == errno.ENOSPC
    disk.resize(one, 2)
    disk.write(one, b"12345678", 2)
    one.opened = 1
    disk.remove("one")
    assert disk.used == 10
    disk.release(one)
    assert disk.used == 0
