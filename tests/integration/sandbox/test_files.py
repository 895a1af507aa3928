"""What of the host's files a program reaches: the system read-only, its own in memory, and what it was given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sandbox.mounts import namespace
from tests.support.sandbox import Maker

TRY_TO_WRITE = """
import errno, json, os, sys
def attempt(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps([attempt(path) for path in sys.argv[1:]]))
"""
WORKSPACE_OWNER = 23456


def test_the_system_is_read_only_even_for_its_owner(by: Maker) -> None:
    """EROFS, which the kernel answers before it looks at the rights of the caller: the answer of a read-only mount."""
    places = [
        "/new",
        "/usr/new",
        "/usr/bin/new",
        "/etc/new",
        "/etc/ssl/new",
        "/dev/new",
        "/root/new",
        "/home/new",
        "/run/new",
        "/var/new",
    ]
    assert by.python(TRY_TO_WRITE, *places) == ["EROFS"] * len(places)


def test_files_of_the_system_cannot_be_changed(by: Maker) -> None:
    code = """
import errno, json, os
outcome = []
for change in (
    lambda: os.chmod("/usr/bin/env", 0o777), lambda: os.unlink("/usr/bin/env"), lambda: os.rename("/etc/passwd", "/etc/x"),
    lambda: os.symlink("/tmp", "/opt"), lambda: os.mkdir("/srv"), lambda: os.utime("/usr/bin/env"), lambda: os.rmdir("/root"),
):
    try:
        change()
        outcome.append("done")
    except OSError as error:
        outcome.append(errno.errorcode[error.errno])
print(json.dumps(outcome))
"""
    assert set(by.python(code)) <= {"EROFS", "EACCES", "EBUSY"}


def test_its_own_places_are_writable_and_gone_afterwards(by: Maker) -> None:
    places = ["/tmp/kept", "/home/worker/kept", "/workspace/kept", "/dev/shm/kept", "/var/tmp/kept2"]
    assert by.python(TRY_TO_WRITE, *places) == ["written"] * len(places)
    assert not any(os.path.exists(place) for place in places)
    code = "import json, os; print(json.dumps([os.listdir(path) for path in ('/tmp', '/home/worker', '/workspace', '/dev/shm')]))"
    assert by.python(code) == [[], [], [], []]


def test_the_hosts_temporary_files_are_not_there(by: Maker) -> None:
    shown = by.home / "of-the-host"
    shown.write_text("seen")
    code = "import json, os, sys; print(json.dumps([os.path.exists(sys.argv[1]), os.listdir('/tmp')]))"
    assert by.python(code, str(shown)) == [False, []]


def test_nothing_of_the_callers_home_is_there(by: Maker) -> None:
    key = by.home / ".ssh" / "id_ed25519"
    key.parent.mkdir(exist_ok=True)
    key.write_text("the secret")
    key.chmod(0o644)
    places = [str(key), "$HOME/.ssh/id_ed25519", "~/.ssh/id_ed25519", "/root/.ssh/id_ed25519", "/proc/1/root" + str(key)]
    places += [
        "/etc/shadow",
        "/etc/sudoers",
        "/etc/ssh/ssh_host_ed25519_key",
        "/run/docker.sock",
        "/var/run/dbus/system_bus_socket",
    ]
    done = by.run("sh", "-c", f"for place in {' '.join(places)}; do cat $place && echo FOUND $place; done; true")
    assert done.returncode == 0
    assert "secret" not in done.stdout
    assert "FOUND" not in done.stdout
    # That the way is open where it is granted, or the above would say nothing.
    assert by.run("cat", str(key), options=("--read", str(key.parent))).stdout == "the secret"


def test_a_workspace_is_writable_and_its_files_are_its_owners(by: Maker) -> None:
    owner = WORKSPACE_OWNER if by.uid == 0 else by.uid
    workspace = by.directory("work", owner)
    (workspace / "there").write_text("before")
    os.chown(workspace / "there", owner, owner)
    script = "cat there; echo after >there; mkdir -p a/b; echo new >a/b/file; ln -s there link; mv a/b/file moved; stat -c %U ."
    done = by.run("sh", "-ec", script, options=("--profile", "agent"), cwd=workspace)
    assert (done.returncode, done.stdout) == (0, "beforeworker\n"), done.stderr
    assert (workspace / "there").read_text() == "after\n"
    assert (workspace / "moved").read_text() == "new\n"
    made = [workspace / name for name in ("there", "moved", "a", "a/b", "link")]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in made} == {(owner, owner)}


def test_a_single_file_may_be_writable(by: Maker) -> None:
    directory = by.directory("single", WORKSPACE_OWNER if by.uid == 0 else None)
    for name in ("given", "other"):
        (directory / name).write_text("before")
        os.chown(directory / name, directory.stat().st_uid, directory.stat().st_gid)
    done = by.run("sh", "-c", f"echo after >{directory}/given; ls {directory}", options=("--write", str(directory / "given")))
    assert (done.stdout, done.returncode) == ("given\n", 0), done.stderr
    assert (directory / "given").read_text() == "after\n"


def test_what_is_given_to_read_is_not_writable_even_by_its_owner(by: Maker) -> None:
    shown = by.directory("shown", mode=0o777)
    (shown / "file").write_text("text")
    (shown / "file").chmod(0o666)
    assert by.python(TRY_TO_WRITE, f"{shown}/file", f"{shown}/new", options=("--read", str(shown))) == ["EROFS", "EROFS"]
    assert by.run("cat", f"{shown}/file", options=("--read", str(shown))).stdout == "text"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system below the directory that is given")
def test_mounts_below_what_is_given_are_there_and_as_read_only(by: Maker) -> None:
    if by.name != "root":
        pytest.skip("the mount is root's: one test of it is enough")
    shown = by.directory("outer", mode=0o777)
    (shown / "inner").mkdir()
    # In a mount namespace of its own: unshare(1) makes it before the shell starts, and the shell looks before it mounts.
    script = f"""set -e
test "$(readlink /proc/self/ns/mnt)" != "{namespace()}"
mount -t tmpfs -o mode=0777 inner {shown}/inner
echo text >{shown}/inner/file
chmod 0666 {shown}/inner/file
exec "$@"
"""
    inside = f"cat {shown}/inner/file; for name in new inner/new inner/file; do echo x >{shown}/$name || echo refused; done"
    sandboxed = [*by.interpreter, "-m", "sandbox", "run", "--read", str(shown), "--", "sh", "-c", inside]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *sandboxed]
    done = subprocess.run(argv, capture_output=True, text=True, env=by.environment(), timeout=60, check=False)
    assert done.stdout == "text\nrefused\nrefused\nrefused\n", done.stderr
    assert done.stderr.count("Read-only file system") == 3
    assert list((shown / "inner").iterdir()) == []


def refused(by: Maker, profile: str) -> str:
    done = by.run("true", options=("--profile", by.profile(profile)))
    assert done.returncode == 125
    assert done.stdout == ""
    return done.stderr


def test_a_source_that_is_not_there_is_named(by: Maker) -> None:
    missing = str(by.home / "missing")
    for option in ("--read", "--write"):
        done = by.run("true", options=(option, missing))
        assert (done.returncode, missing in done.stderr, "No such file" in done.stderr) == (125, True, True), done.stderr


def test_a_workspace_reached_through_a_link_is_refused(by: Maker) -> None:
    real = by.directory("real")
    (real / "below").mkdir()
    link = by.home / f"{real.name}-link"
    link.symlink_to(real)
    for source in (link, link / "below"):
        said = refused(by, f'[[paths]]\nsource = "{source}"\nwritable = true')
        assert f"{source}: is reached through a symbolic link" in said


def test_a_place_behind_a_link_that_a_worker_made_is_refused(by: Maker) -> None:
    """Bound without a look at links, `secret` would be attached to whatever the worker's link leads to."""
    workspace, shown = by.directory("planted"), by.directory("protected")
    (workspace / "hooks").symlink_to("/home/worker")
    (workspace / "deep").symlink_to("/")
    binds = f'[[paths]]\nsource = "{workspace}"\nwritable = true\n[[paths]]\nsource = "{shown}"\ntarget = "{workspace}/'
    for place in ("hooks", "deep/tmp"):
        assert f"no place for {workspace}/{place} inside: a symbolic link is in the way" in refused(by, f'{binds}{place}"')
    (workspace / "hooks").unlink()
    (workspace / "hooks").mkdir()
    done = by.run("sh", "-c", f"echo x >{workspace}/hooks/new", options=("--profile", by.profile(f'{binds}hooks"')))
    assert "Read-only file system" in done.stderr


def test_no_place_in_the_system_for_what_is_not_in_it(by: Maker) -> None:
    shown = by.directory("nowhere")
    said = refused(by, f'[[paths]]\nsource = "{shown}"\ntarget = "/usr/not/there"')
    assert "no place for /usr/not/there inside: No such file or directory" in said


def test_a_directory_where_the_command_starts_must_be_there(by: Maker) -> None:
    here = by.directory("here")
    assert by.run("pwd", options=("--profile", "agent"), cwd=here).stdout.strip() == str(here)
    assert by.run("pwd", options=("--read", str(by.home)), cwd=here).stdout.strip() == str(here)
    assert by.run("pwd", cwd=here).stdout.strip() == "/home/worker"


def test_a_bind_may_be_seen_elsewhere(by: Maker) -> None:
    shown = by.directory("moved")
    Path(shown / "file").write_text("text")
    profile = by.profile(f'[[paths]]\nsource = "{shown}"\ntarget = "/data/in"')
    done = by.run("sh", "-c", f"cat /data/in/file; ls {shown}", options=("--profile", profile))
    assert done.stdout == "text"
    assert "No such file" in done.stderr
