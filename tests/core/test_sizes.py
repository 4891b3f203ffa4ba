# SPDX-License-Identifier: GPL-2.0-or-later
"""No file of the package that can't be read at a sitting, and no function that is longer than a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE, LONGEST_FUNCTION = 400, 60  # lines


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "npd6_xdp").rglob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text()


def long_functions(source: str) -> Iterator[tuple[str, int]]:
    """The functions of a source that are too long, each with its lines, decorators apart."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield node.name, lines


def test_no_file_is_above_400_lines() -> None:
    found = {name: len(source.splitlines()) for name, source in sources()}
    assert {name: lines for name, lines in found.items() if lines > LONGEST_FILE} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    assert [(name, *found) for name, source in sources() for found in long_functions(source)] == []


def test_a_function_that_is_too_long_is_found_wherever_it_stands() -> None:
    body = "        pass\n" * LONGEST_FUNCTION
    source = f"class A:\n    def f(self):\n{body}\n    async def g(self):\n{body}\n    def h(self):\n{body[13:]}"
    assert list(long_functions(source)) == [("f", 61), ("g", 61)]
