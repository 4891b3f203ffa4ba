# SPDX-License-Identifier: GPL-2.0-or-later
"""No file of the package or of its tests is too long to be read, and no function is longer than a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILES = {"npd6_xdp": 400, "tests": 600}  # lines: tests have rows of examples, which nobody reads through
LONGEST_FUNCTION = 60


def sources(folder: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text()


def long_functions(source: str) -> Iterator[tuple[str, int]]:
    """The functions of a source that are too long, each with its lines, decorators apart."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield node.name, lines


@pytest.mark.parametrize(("folder", "longest"), LONGEST_FILES.items())
def test_no_file_is_above_its_folders_number_of_lines(folder: str, longest: int) -> None:
    found = {name: len(source.splitlines()) for name, source in sources(folder)}
    assert {name: lines for name, lines in found.items() if lines > longest} == {}


@pytest.mark.large
@pytest.mark.parametrize("folder", LONGEST_FILES)
def test_no_function_is_longer_than_a_screen(folder: str) -> None:
    assert [(name, *found) for name, source in sources(folder) for found in long_functions(source)] == []


def test_a_function_that_is_too_long_is_found_wherever_it_stands() -> None:
    body = "        pass\n" * LONGEST_FUNCTION
    source = f"class A:\n    def f(self):\n{body}\n    async def g(self):\n{body}\n    def h(self):\n{body[13:]}"
    assert list(long_functions(source)) == [("f", 61), ("g", 61)]
