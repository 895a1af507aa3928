"""Nothing of the product mounts but through a guarded door: the promise of sandbox/mounts.py, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import mounts, probe_child, root, shield

ROOT = Path(__file__).resolve().parents[3]
PRODUCT = ("sandbox", "supervisord_agents", "examples", "benchmarks", ".ci", "systemd")
"""Not tests/systemd/guest: it writes the image of a virtual machine, and what runs from it runs there."""

DOOR = Path(mounts.__file__)
"""Has the class PrivateMounts with its guard: test_mount_guard.py."""
WHO_ENTERS = (Path(root.__file__), Path(probe_child.__file__), Path(shield.__file__))
FUSE_MOUNTER = ROOT / "tests" / "support" / "lossy_mount.py"
"""The one file of the tests that mounts: a file system by FUSE, behind the same guard, in a process of its own."""
TABLES = ROOT / "sandbox" / "syscalls.py"
"""Names of system calls as data, in a module that cannot make one."""

CALLS = frozenset({"mount", "umount", "umount2", "pivot_root", "open_tree", "open_tree_attr", "move_mount", "mount_setattr"})
FUSE_LIBRARIES = frozenset({"fuse", "fusepy", "mfusepy", "pyfuse3", "llfuse", "refuse"})
CALLS |= {"fsopen", "fsconfig", "fsmount", "fspick", "setns"}
NUMBERS = {
    "x86-64": {155, 165, 166, 308, 428, 429, 430, 431, 432, 433, 442, 467},
    "the others": {39, 40, 41, 268, 428, 429, 430, 431, 432, 433, 442, 467},
}
_NAMES = r"(?:(?:/usr)?/s?bin/)?(?:mount|umount|nsenter|unshare|pivot_root|switch_root)"
COMMAND = re.compile(rf"(?<![\w./$-]){_NAMES}(?=\s|$)")
COMMAND_IN_TEXT = re.compile(rf"(?:^|[;&|({{\n]|\b(?:sudo|exec|then|do)\b)\s*{_NAMES}\s+(?:\S+\s+)?(?:[-/$.{{'\"~]|$)")
"""In a text that may be a message: followed by an option or a path."""


class Finder(ast.NodeVisitor):
    """What a module has that mounts, or looks like it: (line, what)."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[int, str]] = []
        self._numbers = dict(_constants(tree))
        self._no_command = set(_docstrings_and_tables(tree))
        self.visit(tree)

    def _add(self, node: ast.expr | ast.stmt, what: str) -> None:
        self.found.append((node.lineno, what))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        of = node.value.id if isinstance(node.value, ast.Name) else ""
        if node.attr in CALLS or "PrivateMounts" in (node.attr, of) or (of == "mounts" and node.attr.startswith("_")):
            self._add(node, f"{of}.{node.attr}")
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(node.lineno, f"import of {alias.name}") for alias in node.names if alias.name in FUSE_LIBRARIES]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module in FUSE_LIBRARIES:
            self._add(node, f"import of {node.module}")
        for alias in node.names:
            if node.module == "sandbox.mounts" and (alias.name == "PrivateMounts" or alias.name.startswith(("_", "*"))):
                self._add(node, f"import of {alias.name}")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.slice, ast.Constant) and node.slice.value in CALLS:
            self._add(node, str(node.slice.value))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ("getattr", "__getattr__", "__getitem__"):
            self.found += [
                (node.lineno, word.value) for word in node.args if isinstance(word, ast.Constant) and word.value in CALLS
            ]
        if name.lstrip("_") == "syscall":
            for number in filter(None, (self._number(argument) for argument in node.args)):
                self.found += [(node.lineno, f"call {number} on {on}") for on, numbers in NUMBERS.items() if number in numbers]
        self._words(node.args)
        self.generic_visit(node)

    def visit_List(self, node: ast.List) -> None:
        self._words(node.elts)
        self.generic_visit(node)

    def visit_Tuple(self, node: ast.Tuple) -> None:
        self._words(node.elts)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        if isinstance(text, str) and node not in self._no_command and " " in text and COMMAND_IN_TEXT.search(text):
            self._add(node, f"command in {text!r}")

    def _words(self, words: list[ast.expr]) -> None:
        """A command as a word of an argument list; what is a name of ours too, only at the beginning or before an option."""
        texts = [word.value if isinstance(word, ast.Constant) and isinstance(word.value, str) else "" for word in words]
        for position, (word, text) in enumerate(zip(words, texts, strict=True)):
            name = text.rpartition("/")[2]
            sure = position == 0 or (*texts, "")[position + 1].startswith("-")
            if name in ("mount", "umount", "nsenter") or (name in ("unshare", "pivot_root") and sure):
                self._add(word, f"command {text}")

    def _number(self, node: ast.expr) -> int:
        if isinstance(node, ast.Call) and len(node.args) == 1:  # ctypes.c_long(number)
            return self._number(node.args[0])
        if isinstance(node, ast.Name):
            return self._numbers.get(node.id, 0)
        return node.value if isinstance(node, ast.Constant) and type(node.value) is int else 0


def _constants(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                for name, value in pairs:
                    if isinstance(name, ast.Name) and isinstance(value, ast.Constant) and type(value.value) is int:
                        yield name.id, value.value


def _docstrings_and_tables(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            yield node.value
        if isinstance(node, ast.Attribute) and node.attr == "split":
            yield node.value


def in_python(source: str) -> list[tuple[int, str]]:
    return Finder(ast.parse(source)).found


def in_shell(text: str) -> list[tuple[int, str]]:
    lines = enumerate((re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines()), 1)
    return [(number, line.strip()) for number, line in lines if COMMAND.search(line)]


def in_unit(text: str) -> list[tuple[int, str]]:
    lines = enumerate(text.splitlines(), 1)
    return [(number, line) for number, line in lines if re.match(r"Exec\w*=", line) and COMMAND.search(line.replace("=", " ", 1))]


def product_files() -> list[tuple[Path, str]]:
    """Every text file of the product, and its kind."""
    files = [(ROOT / "Makefile", "shell")]
    for path in sorted(path for directory in PRODUCT for path in (ROOT / directory).rglob("*") if path.is_file()):
        if path.suffix == ".py":
            files.append((path, "python"))
        elif path.suffix in (".service", ".socket"):
            files.append((path, "unit"))
        elif path.suffix == ".sh" or path.read_bytes()[:40].startswith((b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash")):
            files.append((path, "shell"))
        elif path.read_bytes()[:2] == b"#!":
            files.append((path, "python"))
    return files


LOOK = {"python": in_python, "shell": in_shell, "unit": in_unit}


def test_the_files_that_are_looked_at_are_those_of_the_product() -> None:
    found = {str(path.relative_to(ROOT)): kind for path, kind in product_files()}
    for path, kind in {
        "Makefile": "shell",
        ".ci/run": "shell",
        ".ci/setup": "shell",
        "sandbox/root.py": "python",
        "supervisord_agents/daemon/app.py": "python",
        "examples/demo/run.py": "python",
        "benchmarks/bench_spawn.py": "python",
        "systemd/agent-supervisor.service": "unit",
    }.items():
        assert found[path] == kind


@pytest.mark.parametrize(("path", "kind"), product_files(), ids=lambda value: value.name if isinstance(value, Path) else value)
def test_nothing_mounts_but_the_doors(path: Path, kind: str) -> None:
    found = LOOK[kind](path.read_text())
    if path == DOOR:
        [door] = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef) and node.name == "PrivateMounts"
        ]
        assert found, "the search finds what is known to be there"
        found = [(line, what) for line, what in found if not door.lineno <= line <= (door.end_lineno or 0)]
    elif path in WHO_ENTERS:
        assert [what for _, what in found] == ["import of PrivateMounts"]
        found = []
    elif path == TABLES:
        imported = {name for node in ast.walk(ast.parse(path.read_text())) for name in _imports(node)}
        assert imported <= {"__future__", "dataclasses", "enum", "errno", "stat"}
        found = []
    assert found == []


def test_of_the_tests_one_file_mounts_by_fuse_and_only_behind_the_guard() -> None:
    texts = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    fuse = {
        path: found
        for path, text in texts.items()
        if "fuse" in text and (found := [what for _, what in in_python(text) if what.startswith("import of") and "fuse" in what])
    }
    assert set(fuse) == {FUSE_MOUNTER}
    assert {what for _, what in in_python(FUSE_MOUNTER.read_text())} == {"mounts.PrivateMounts", "import of mfusepy"}
    functions = {node.name: node for node in ast.parse(FUSE_MOUNTER.read_text()).body if isinstance(node, ast.FunctionDef)}
    guard, main = functions["enter_own_mount_namespace"], functions["main"]
    assert isinstance(guard.body[-1], ast.Expr)
    assert ast.unparse(guard.body[-1].value) == "mounts.PrivateMounts()"
    [entered] = [node.lineno for node in main.body if ast.unparse(node) == "enter_own_mount_namespace()"]
    mounting = [node.lineno for node in ast.walk(main) if isinstance(node, ast.ImportFrom) or "FUSE" in ast.dump(node)]
    assert min(line for line in mounting if line != main.lineno) > entered


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.parametrize(
    "source",
    [
        "libc.mount(None, b'/', None, 0, None)",
        "ctypes.CDLL(None).umount2(b'/', 2)",
        "f = libc.pivot_root",
        "getattr(libc, 'mount')(1)",
        "libc['umount2'](b'/', 2)",
        "libc.syscall(165, 0, 0)",
        "libc.syscall(ctypes.c_long(155), b'.', b'.')",
        "N = 166\nlibc.syscall(N, b'/', 2)",
        "_A, _B = 428, 1\nlinux.syscall('step', 'what', _A, 0)",
        "from sandbox.linux import syscall\nsyscall('x', 'y', 41, b'.')",
        "from sandbox.mounts import PrivateMounts\nPrivateMounts('')",
        "from sandbox.mounts import _libc",
        "from sandbox import mounts\nmounts._libc",
        "mounts.PrivateMounts._mount(None, '/', None, 0, None)",
        "PrivateMounts._set(-100, b'/', 0, 1)",
        "os.setns(fd, 0)",
        "subprocess.run(['mount', '-t', 'tmpfs', 'x', '/'])",
        "subprocess.run(('/bin/umount', '-l', '/'))",
        "await asyncio.create_subprocess_exec('nsenter', '-t', '1', '-m')",
        "run(['sudo', 'unshare', '-m', 'sh'])",
        "os.system('umount /proc')",
        "subprocess.run('cd /tmp && mount --bind a b', shell=True)",
        "run(['sh', '-c', 'set -e\\n  /sbin/mount -o remount,ro /'])",
        "run(f'mount {what} /x', shell=True)",
        "os.execvp('pivot_root', ['pivot_root', '.', 'old'])",
        "import mfusepy",
        "from pyfuse3 import init",
    ],
)
def test_python_that_mounts_is_found(source: str) -> None:
    assert in_python(source)


@pytest.mark.parametrize(
    "source",
    [
        "'''mount(2) in the namespace of the host is dangerous'''",
        "text = Path('/proc/self/mountinfo').read_text()",
        "linux.unshare(linux.CLONE_NEWUSER)",
        "linux.syscall('files', 'openat2', 437, 0)",
        "x = 165 + 41",
        "layers = ('mount namespace', 'pivot_root')",
        "raise Error('let the container mount: it may not')",
        "NAMES = 'setns mount pivot_root umount2'.split()",
        "from sandbox.mounts import NODEV, namespace",
        "run(['bwrap', '--unshare-all'])",
    ],
)
def test_python_that_does_not_mount_is_left_alone(source: str) -> None:
    assert in_python(source) == []


def test_shell_that_mounts_is_found() -> None:
    for line in (
        "mount -t tmpfs x /x",
        "  sudo umount /x",
        "a && /bin/mount --bind a b",
        "unshare -m sh",
        "nsenter -t 1 -m",
        "x=$(mount -l)",
    ):
        assert in_shell(line), line
    for line in ("# mount -t tmpfs", "findmnt /", "mountpoint -q /x", "say 'nothing here'  # mount x", "ls /mnt/mount"):
        assert not in_shell(line), line
    assert in_unit("ExecStartPre=/bin/mount -t tmpfs x /x")
    assert not in_unit("PrivateMounts=yes\n# ExecStart=mount x\nExecStart=/usr/bin/agent-supervisor")
