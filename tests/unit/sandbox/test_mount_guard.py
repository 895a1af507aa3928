"""The guard of sandbox/mounts.py refuses the mount namespace of the parent. That nothing goes past it: test_no_other_mounts.py.

mount(2), umount2(2) and pivot_root(2) in the mount namespace of the host replace the root of the whole machine.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from sandbox import mounts

ROOT = Path(__file__).resolve().parents[3]
DOOR = Path(mounts.__file__)

CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sandbox import mounts
from sandbox.errors import SandboxError
if mounts.namespace() == sys.argv[2]:
    sys.exit("not in a mount namespace of its own: nothing is tried")
look = lambda: open("/proc/self/mountinfo").read()
before = look()
if " shared:" not in before:
    sys.exit("no mount is shared: that the guard touches nothing could not be seen")
exec(sys.argv[3])
try:
    mounts.PrivateMounts()
    print("made", end=" ")
except SandboxError as error:
    print(error.step, str(error), sep="|", end=" ")
print("untouched" if look() == before else "touched")
"""


LEAVE = "from sandbox import linux; linux.unshare(linux.CLONE_NEWNS)"


def in_a_namespace_of_its_own(first: str) -> str:
    """What PrivateMounts says in the namespace that its module was loaded in, after `first` has run there.

    The process has a mount namespace of its own, cut off from this one and shared with nothing but itself: the machine keeps its
    mounts even if the guard is broken. A user who is not root makes it in a user namespace.
    """
    cut_off = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount", "--propagation", "private"]
    then_shared = ["unshare", "--mount", "--propagation", "shared"]
    arguments = [sys.executable, "-c", CHILD, str(ROOT), mounts.namespace(), first]
    done = subprocess.run([*cut_off, *then_shared, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_guard_refuses_the_namespace_that_it_was_loaded_in_and_touches_nothing() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    said = in_a_namespace_of_its_own("")
    assert said == "guard|guard: still in the mount namespace of the host: refused to mount. untouched"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_the_guard_opens_in_a_namespace_of_ones_own() -> None:
    assert in_a_namespace_of_its_own(LEAVE) == "made touched"


def test_a_broken_guard_is_seen() -> None:
    """The same trial on a copy of the guard that always opens: the test above would fail."""
    broken = "import itertools; mounts.namespace = lambda numbers=itertools.count(): f'mnt:[{next(numbers)}]'"
    assert in_a_namespace_of_its_own(broken) == "made touched"


def test_the_guard_stands_before_the_first_mount() -> None:
    [guarded] = [
        node for node in ast.parse(DOOR.read_text()).body if isinstance(node, ast.ClassDef) and node.name == "PrivateMounts"
    ]
    [constructor] = [node for node in guarded.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    first, second, *_ = constructor.body[1:]  # after the docstring
    assert isinstance(first, ast.If)
    assert isinstance(first.body[-1], ast.Raise)
    assert ast.unparse(second) == "self._mount(None, '/', None, MS_REC | MS_PRIVATE, None)"
