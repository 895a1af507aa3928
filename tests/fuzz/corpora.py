"""The corpora: one file a target, one input a line, in hexadecimal and sorted, so that the repository stays small."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def read(target: str) -> list[bytes]:
    path = CORPUS / f"{target}.hex"
    return [bytes.fromhex(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(target: str, inputs: Iterable[bytes]) -> None:
    lines = sorted({data.hex() for data in inputs}, key=lambda line: (len(line), line))
    (CORPUS / f"{target}.hex").write_text("".join(f"{line}\n" for line in lines))


def unpack(inputs: Iterable[bytes], directory: Path) -> None:
    """As files, one an input, named by what is in them."""
    directory.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (directory / hashlib.sha1(data).hexdigest()).write_bytes(data)


def pack(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.iterdir()]
