# SPDX-License-Identifier: GPL-2.0-or-later
"""What is named like a question only answers: whoever reads `room.due` or `room.is_full()` changes nothing by it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.core.test_sizes import sources

ASKS = ("is_", "has_", "to_")
"""How a method begins that reads as a question. What hands out something that it then forgets begins with `take_`."""
CHANGE = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove", "setdefault"}
CHANGE |= {"__setattr__", "appendleft", "move_to_end", "update"}
"""Methods of Python's own collections, which `self` may have."""


def is_of_self(node: ast.expr) -> bool:
    """Whether this is an attribute of `self`, or something in one."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node.value, ast.Name):
            return node.value.id == "self"
        node = node.value
    return False


def changes(function: ast.FunctionDef) -> Iterator[str]:
    """What of `self` a function changes by its own hands."""
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load) and is_of_self(node):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGE:
            itself = node.args[:1] if node.func.attr == "__setattr__" else []
            if is_of_self(node.func.value) or any(isinstance(a, ast.Name) and a.id == "self" for a in itself):
                yield ast.unparse(node)


def is_question(function: ast.FunctionDef) -> bool:
    """Whether it is read without a call, or named like what is asked."""
    decorators = {ast.unparse(each) for each in function.decorator_list}
    return bool(decorators & {"property", "cached_property"}) or function.name.lstrip("_").startswith(ASKS)


def untrue(source: str) -> list[str]:
    """The questions of a source that change something."""
    return [
        f"{node.name}: {what}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and is_question(node)
        for what in changes(node)
    ]


def test_no_question_changes_what_it_asks() -> None:
    assert {name: found for name, source in sources("npd6_xdp") if (found := untrue(source))} == {}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return self._due", []),
        ("due = self._due; found[0] = due; return other.pop()", []),
        ("found, self._due = self._due, []; return found", ["self._due"]),
        ("self._count += 1", ["self._count"]),
        ("del self._hosts[host]", ["self._hosts[host]"]),
        ("self._shares[0].count = 1", ["self._shares[0].count"]),
        ("return self._hosts.pop(host)", ["self._hosts.pop(host)"]),
        ("object.__setattr__(self, 'made_of', None)", ["object.__setattr__(self, 'made_of', None)"]),
    ],
)
def test_a_change_is_told_from_a_look(body: str, found: list[str]) -> None:
    for head in ("@property\ndef due(self)", "def is_due(self)", "def _has_due(self)", "def to_ask(self)"):
        assert [line.partition(": ")[2] for line in untrue(f"{head}: {body}")] == found
    assert untrue(f"def take(self): {body}") == []
