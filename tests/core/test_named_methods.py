# SPDX-License-Identifier: GPL-2.0-or-later
"""Methods that tests name in strings, to have them fail or kill there (tests/netns/faulty.py), are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r'"[<>]?(npd6_xdp(?:\.\w+)*):(\w+)\.(\w+)')  # MODULE:CLASS.METHOD


def file_of(module: str) -> Path:
    """A module's file, or a package's; it needn't be there."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def methods(module: str, name: str) -> set[str]:
    """Those of a module's class, and of the classes that it is derived from; other modules have some of that name."""
    if not (file := file_of(module)).exists():
        return set()
    text = ast.parse(file.read_text()).body
    origin = {
        alias.asname or alias.name: (each.module, alias.name)
        for each in text
        if isinstance(each, ast.ImportFrom) and each.module
        for alias in each.names
    }
    found = next((each for each in text if isinstance(each, ast.ClassDef) and each.name == name), None)
    if found is None:
        return set()
    own = {each.name for each in found.body if isinstance(each, ast.FunctionDef)}
    bases = (origin.get(base.id, (module, base.id)) for base in found.bases if isinstance(base, ast.Name))
    return own.union(*(methods(*base) for base in bases))


def test_each_method_that_a_test_names_in_a_string_is_there() -> None:
    named = {found for file in ROOT.glob("tests/**/*.py") for found in NAMED.findall(file.read_text())}
    assert len(named) > 20
    assert [each for each in sorted(named) if each[2] not in methods(*each[:2])] == []
    assert methods("npd6_xdp.tools.doctor.facts", "Program").isdisjoint({"apply"}), "the XDP program's is another"
