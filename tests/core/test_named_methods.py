# SPDX-License-Identifier: GPL-2.0-or-later
"""Methods that tests name in strings, to have them fail or kill there (tests/netns/faulty.py), are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r'"[<>]?(npd6_xdp(?:\.\w+)*):(\w+)\.(\w+)')  # MODULE:CLASS.METHOD


@cache
def classes() -> dict[str, ast.ClassDef]:
    return {
        each.name: each
        for file in ROOT.glob("npd6_xdp/**/*.py")
        for each in ast.parse(file.read_text()).body
        if isinstance(each, ast.ClassDef)
    }


def methods(name: str) -> set[str]:
    """Those of a class, and of the classes that it is derived from."""
    if (found := classes().get(name)) is None:
        return set()
    own = {each.name for each in found.body if isinstance(each, ast.FunctionDef)}
    return own.union(*(methods(base.id) for base in found.bases if isinstance(base, ast.Name)))


def is_there(module: str) -> bool:
    """Whether there is a file of that module, or a package."""
    path = ROOT.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def test_each_method_that_a_test_names_in_a_string_is_there() -> None:
    named = {found for file in ROOT.glob("tests/**/*.py") for found in NAMED.findall(file.read_text())}
    assert len(named) > 20
    assert [each for each in sorted(named) if each[2] not in methods(each[1])] == []
    assert [module for module, _, _ in sorted(named) if not is_there(module)] == []
