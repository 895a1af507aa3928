"""A directory of the host is bound with the rights of its owner, if that is who it should be, and nothing is made beside it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import Bind, SandboxSpec
from tests.support.sandbox import PACKAGE, said

OWNER, GROUP, STRANGER = 23456, 34567, 45678
by_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of other owners")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory of OWNER."""
    made = tmp_path / "work"
    made.mkdir()
    if os.geteuid() == 0:
        os.chown(made, OWNER, GROUP)
    return made


@by_root
async def test_a_directory_that_was_exchanged_for_one_of_root_is_refused(spawner: Spawner, work: Path) -> None:
    bind = Bind(str(work), "/w", writable=True, owner=(OWNER, GROUP))
    assert await said(spawner, "touch /w/mine; echo $?", bind) == "0"
    work.rename(work.with_name("aside"))
    work.mkdir()  # root's
    with pytest.raises(SandboxError, match=f"belongs to 0:0 now, no longer to {OWNER}:{GROUP}") as refused:
        await said(spawner, "touch /w/roots", bind)
    assert refused.value.step == "bind"
    assert os.listdir(work) == []


@by_root
@pytest.mark.parametrize("writable", [True, False])
async def test_an_owner_is_held_to_whatever_the_mode(spawner: Spawner, work: Path, writable: bool) -> None:
    with pytest.raises(SandboxError, match="no longer to"):
        await said(spawner, "true", Bind(str(work), "/w", writable=writable, owner=(STRANGER, GROUP)))


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an ordinary user")
async def test_an_ordinary_user_may_name_himself(spawner: Spawner, work: Path) -> None:
    status = work.stat()
    assert await said(spawner, "echo hi", Bind(str(work), "/w", writable=True, owner=(status.st_uid, status.st_gid))) == "hi"


@by_root
async def test_what_is_made_belongs_to_the_owner(spawner: Spawner, work: Path) -> None:
    (work / "file").touch()
    os.chown(work / "file", OWNER, GROUP)
    binds = (Bind(str(work), "/w", writable=True), Bind(str(work / "file"), "/f", writable=True))
    assert await said(spawner, "mkdir /w/d && echo x >/w/d/f && echo y >/f && stat -c %u:%g /w/d/f /f", *binds) == "\n".join(
        [f"{SandboxSpec(argv=('x',)).uid}:{SandboxSpec(argv=('x',)).uid}"] * 2
    )
    for made in (work / "d", work / "d" / "f", work / "file"):
        assert (made.stat().st_uid, made.stat().st_gid) == (OWNER, GROUP)
    assert (work / "file").read_text() == "y\n"


@by_root
async def test_files_of_other_groups_and_owners_are_what_they_are_to_the_owner(spawner: Spawner, work: Path) -> None:
    """Without their ids in the map they would be read-only, whatever their mode."""
    for name, uid, gid, mode in (
        ("other-group", OWNER, STRANGER, 0o660),
        ("group-root", OWNER, 0, 0o600),
        ("for-all", STRANGER, STRANGER, 0o666),
        ("not-for-all", STRANGER, STRANGER, 0o600),
        ("roots", 0, 0, 0o666),
        ("roots-secret", 0, 0, 0o600),
    ):
        (work / name).write_text(f"{name}\n")
        os.chown(work / name, uid, gid)
        (work / name).chmod(mode)
    script = 'cd /w; for f in *; do cat $f >/dev/null 2>&1 && printf r; (echo x >>$f) 2>/dev/null && printf w; echo " $f"; done'
    assert (await said(spawner, script, Bind(str(work), "/w", writable=True))).splitlines() == [
        "rw for-all",
        "rw group-root",
        " not-for-all",
        "rw other-group",
        "r roots",  # root has no place in the map: never written
        " roots-secret",
    ]
    assert (work / "other-group").stat().st_gid == STRANGER


@by_root
async def test_a_directory_that_hands_its_group_on_does_so(spawner: Spawner, work: Path) -> None:
    os.chown(work, OWNER, STRANGER)
    work.chmod(0o2775)
    assert await said(spawner, "mkdir /w/sub; echo x >/w/sub/f", Bind(str(work), "/w", writable=True)) == ""
    assert (work / "sub" / "f").stat().st_gid == STRANGER
    assert (work / "sub").stat().st_mode & stat.S_ISGID


@pytest.mark.parametrize("below", ["/var/run", "/bin", "/dev/fd"])
async def test_nothing_is_made_on_the_host_by_way_of_a_link(spawner: Spawner, work: Path, below: str) -> None:
    """The links of the root are there before it is the root: /var/run leads to the host's /run."""
    name = f"made-by-a-test-{os.getpid()}"
    try:
        with pytest.raises(SandboxError, match=f"{below} is a link to ") as refused:
            await said(spawner, "true", Bind(str(work), f"{below}/{name}/deep"))
        assert refused.value.step == "bind"
        assert not os.path.exists(f"/run/{name}")
        assert not os.path.exists(f"/usr/bin/{name}")
    finally:
        for place in (f"/run/{name}/deep", f"/run/{name}"):
            if os.path.isdir(place):
                os.rmdir(place)


@pytest.mark.parametrize("place", ["/home", "/dev", "/proc"])
async def test_a_bind_around_what_is_private_is_refused_and_keeps_its_mode(spawner: Spawner, work: Path, place: str) -> None:
    (work / "worker").mkdir(mode=0o755)
    before = (work / "worker").stat()
    with pytest.raises(SandboxError, match="cannot be bound"):
        await said(spawner, "true", Bind(str(work), place, writable=True))
    after = (work / "worker").stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


async def test_a_workspace_in_var_tmp_is_seen_there(spawner: Spawner, work: Path) -> None:
    seen = await said(spawner, "cat /var/tmp/project/file; touch /var/tmp/x; ls /var/tmp", Bind(str(work), "/var/tmp/project"))
    assert seen.splitlines()[-2:] == ["project", "x"]
    assert not os.path.exists("/var/tmp/project")


@by_root
@pytest.mark.parametrize("id", [2**32 - 1, 0])
def test_after_the_change_of_ids_nobody_is_root(id: int) -> None:
    """-1 means "as it is" to setresuid(2): asked to become 2³² − 1, root stays root."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sandbox import enter\n"
        "try:\n    enter._change_ids(int(sys.argv[2]), int(sys.argv[2]), [])\n"
        "except enter.SandboxError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, str(PACKAGE.parent), str(id)], capture_output=True, text=True)
    assert done.stdout == f"privileges: still not user {id} alone.\n", done.stderr
