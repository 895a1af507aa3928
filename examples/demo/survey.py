"""The demo's tasks: they survey a source tree, and run inside the sandbox by the `python` agent.

A plans four shares of the files, B1 to B4 each read one share, C writes the report.
"""

from __future__ import annotations

import ast
import time
from pathlib import Path
from typing import Any

SHARES = 4
PACE_S = 0.08
"""A pause a file, so that a person can follow, and the daemon can be killed in the middle."""


def plan(context: Any) -> list[list[str]]:
    """The Python files of the workspace, dealt out in SHARES of about equal size."""
    root = Path(context.workspace)
    files = sorted(root.rglob("*.py"), key=lambda path: path.stat().st_size, reverse=True)
    return [[str(path.relative_to(root)) for path in files[share::SHARES]] for share in range(SHARES)]


def survey(share: int, context: Any) -> dict[str, Any]:
    """Count modules, lines, functions and docstrings of one share; name the longest function."""
    names = context.dependencies["A"].output[share]
    totals: dict[str, Any] = {"modules": 0, "lines": 0, "functions": 0, "documented": 0, "longest": ["", 0]}
    for done, name in enumerate(names, start=1):
        _survey_module(Path(context.workspace) / name, name, totals)
        context.progress(done / len(names), name)
        time.sleep(PACE_S)
    return totals


def _survey_module(path: Path, name: str, totals: dict[str, Any]) -> None:
    text = path.read_text(encoding="utf-8")
    totals["modules"] += 1
    totals["lines"] += text.count("\n")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            totals["functions"] += 1
            totals["documented"] += ast.get_docstring(node) is not None
            if length > totals["longest"][1]:
                totals["longest"] = [f"{name}:{node.name}", length]


def report(context: Any) -> str:
    """The report of all shares, also written to report.md in the workspace."""
    shares = [context.dependencies[f"B{number}"].output for number in range(1, SHARES + 1)]
    total = {key: sum(share[key] for share in shares) for key in ("modules", "lines", "functions", "documented")}
    name, length = max((share["longest"] for share in shares), key=lambda longest: longest[1])
    text = (
        f"# Survey\n\n{total['modules']} modules, {total['lines']} lines, {total['functions']} functions,"
        f" {total['documented']} of them with a docstring.\nThe longest function is {name} with {length} lines.\n"
    )
    (Path(context.workspace) / "report.md").write_text(text, encoding="utf-8")
    return text
