"""How a recording draws paths together, and which host a request asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.record import host_of
from sandbox.record_profile import collapsed


def made(root: Path, *names: str) -> list[str]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return [str(root / name) for name in names]


def test_few_files_are_named_and_many_become_their_directory(tmp_path: Path) -> None:
    few, many = made(tmp_path, "a/1", "a/2", "a/3"), made(tmp_path, "b/1", "b/2", "b/3", "b/4", "b/c/5")
    assert collapsed([*few, *many]) == [*few, f"{tmp_path}/b"]


def test_packages_are_given_as_a_whole(tmp_path: Path) -> None:
    made(tmp_path, "venv/pyvenv.cfg", "tool/bin/run", "tool/lib/x")
    used = made(
        tmp_path,
        "venv/lib/python3/site-packages/m.py",
        "tool/share/data",
        "web/node_modules/a/node_modules/b/i.js",
        "lone/site-packages/m/__init__.py",
    )
    roots = ("lone/site-packages", "tool", "venv", "web/node_modules")
    assert collapsed(used) == [f"{tmp_path}/{root}" for root in roots]


def test_a_home_is_never_drawn_together() -> None:
    files = [f"/home/ann/{name}" for name in "abcdef"]
    assert collapsed(files) == files


@pytest.mark.parametrize(
    ("head", "host"),
    [
        (b"CONNECT example.org:443 HTTP/1.1\r\n", "example.org"),
        (b"CONNECT Example.org:8443 HTTP/1.1\r\n", "example.org:8443"),
        (b"GET http://example.org/x HTTP/1.1\r\n", "example.org:80"),
        (b"GET http://me:pw@example.org:81/x HTTP/1.1\r\n", "example.org:81"),
        (b"GET /x HTTP/1.1\r\n", ""),
        (b'CONNECT a"\nb:1 HTTP/1.1\r\n', ""),
        (b"CONNECT", ""),
        (b"\xff\xff \xff \xff\r\n", ""),
    ],
)
def test_the_host_of_a_request(head: bytes, host: str) -> None:
    assert host_of(head) == host
