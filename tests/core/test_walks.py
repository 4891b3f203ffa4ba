# SPDX-License-Identifier: GPL-2.0-or-later
"""The walks of docs/architecture.md, "Walks": each step is there, and imported by one above, or handed to it."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.core.test_import_law import imports
from tests.walks import PACKAGE, PROJECT, ROW, Step, Walked, followers, section, steps

MOST = {
    # walk: how many rooms it may pass
    "A solicitation that Python answers": 7,
    "A target that isn't known yet": 8,
    "The answer to who has waited": 7,
    "A line of the file, at a reload": 7,
    "A neighbour's change": 5,
    "A reload": 8,
    "A change of the machine": 5,
    "A scrape": 7,
}


@cache
def imported(file: str) -> frozenset[str]:
    """The rooms that a room imports."""
    names = (name.split(".")[1:] for name, _ in imports((PACKAGE / file).read_text()) if name.startswith("npd6_xdp."))
    return frozenset("/".join(name) + ".py" for name in names)


def functions(file: str) -> set[str]:
    """The functions of a room, those of classes as CLASS.NAME."""
    if not file.endswith(".py"):
        return {*re.findall(r"^\w[\w *]* \**(\w+)\(", (PROJECT / file).read_text(), re.MULTILINE)}
    found = set()
    for node in ast.parse((PACKAGE / file).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.update(f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))
    return found


def test_the_page_has_these_walks_and_no_other() -> None:
    page = (PROJECT / "docs/architecture.md").read_text().partition("## Walks\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (.*)$", page, re.MULTILINE) == [*MOST]


@pytest.mark.parametrize("walk", MOST)
def test_a_walk_is_no_longer_than_it_may_be_and_passes_no_room_twice(walk: str) -> None:
    files = [step.file for step in steps(walk)]
    assert 1 < len(files) <= MOST[walk]
    assert len({*files}) == len(files)


@pytest.mark.parametrize(("walk", "step"), [(walk, step) for walk in MOST for step in steps(walk)])
def test_a_step_of_a_walk_is_there(walk: str, step: Step) -> None:
    assert step.function in functions(step.file)


def offences(walk: list[Step]) -> list[str]:
    """What of a walk isn't as the imports are: who is to be imported by a room above, and who by none of them."""
    found = []
    python = [step for step in walk if step.file.endswith(".py")]
    for number, step in enumerate(python[1:], 1):
        importers = [above.file for above in python[:number] if step.file in imported(above.file)]
        if step.file != ROW and bool(importers) == step.handed:
            found.append(f"{step.file} is imported by {importers or 'none'} above it")
    return found


@pytest.mark.parametrize("walk", MOST)
def test_each_room_of_a_walk_is_imported_by_one_above_or_else_the_page_says_that_it_is_handed(walk: str) -> None:
    assert offences(steps(walk)) == []


def test_a_step_that_nobody_above_imports_is_found_and_one_that_is_handed_to_nobody() -> None:
    first, *rest = steps("A neighbour's change")
    assert offences([*rest, first])
    assert offences([Step("daemon/rings.py", "Rings.look", False), first])
    assert len(offences([first, *(step._replace(handed=True) for step in rest)])) == len(rest)


def test_the_page_says_how_many_follow_what_is_in_force() -> None:
    assert f"they are {len(followers())} files" in section("A reload")


def test_the_page_names_each_room_of_the_daemon_once_and_says_which_follow_what_is_in_force() -> None:
    table = section("Rooms").partition("| of `daemon/` | rooms |")[2]
    named = re.findall(r"(?<!/)`(\w+)`(\*?)", table.partition("\n\n")[0])
    files = {path.stem for path in (PACKAGE / "daemon").glob("*.py")} - {"__init__"}
    assert sorted(name for name, _ in named) == sorted(files)
    assert {f"daemon/{name}.py" for name, star in named if star} == followers()


# --- what a trace says ---

ABOVE, BELOW, LAST = (Step(f"daemon/{name}.py", f"{name}", handed=False) for name in ("rings", "answering", "ports"))
LOOP = "1/1 cli.py:main daemon/__init__.py:Daemon.run daemon/loop.py:Loop.run"


def walked(*stacks: str) -> Walked:
    return Walked([ABOVE, BELOW, LAST], [f"{LOOP} {stack}" for stack in stacks])


def test_rooms_that_call_each_other_downward_are_a_walk_whatever_they_ask_by_the_way() -> None:
    one, two = "daemon/rings.py:rings", "daemon/rings.py:rings daemon/answering.py:answering"
    found = walked(one, f"{one} system/clock.py:now", two, f"{two} system/clock.py:now", f"{one} daemon/ports.py:ports")
    assert [*found.called_by.items()] == [
        ("daemon/rings.py:rings", ""),
        ("daemon/answering.py:answering", "daemon/rings.py"),
        ("daemon/ports.py:ports", "daemon/rings.py"),
    ]
    assert found.called_back == set()
    assert found.rooms == {"daemon/rings.py", "system/clock.py", "daemon/answering.py", "daemon/ports.py"}


@pytest.mark.parametrize(
    "stack",
    [
        "daemon/rings.py:rings daemon/answering.py:answering daemon/rings.py:Rings.look",
        "daemon/rings.py:rings daemon/answering.py:answering system/clock.py:now daemon/rings.py:Rings.look",
        "daemon/rings.py:rings system/clock.py:now daemon/rings.py:Rings.look",
        "daemon/rings.py:rings daemon/ports.py:ports daemon/answering.py:answering",
        "daemon/rings.py:rings daemon/ports.py:ports daemon/answering.py:Answering.made_elsewhere*",
    ],
)
def test_a_room_above_that_is_called_back_is_found(stack: str) -> None:
    assert len(walked("daemon/rings.py:rings", stack).called_back) == 1


def test_what_a_room_has_made_for_its_own_call_is_that_room_going_on() -> None:
    steps_on = "daemon/rings.py:rings core/steps.py:finish daemon/rings.py:Rings.bits* daemon/answering.py:answering"
    handed_along = "daemon/rings.py:rings daemon/answering.py:answering daemon/rings.py:Rings.look.<locals>.<lambda>*"
    found = walked("daemon/rings.py:rings", steps_on, handed_along)
    assert found.called_back == set()
    assert found.called_by["daemon/answering.py:answering"] == "daemon/rings.py"


def test_a_walk_begins_in_its_first_room_and_goes_on_wherever_it_has_come_to() -> None:
    beside = "system/aside.py:_hand_over daemon/answering.py:answering"
    assert walked("daemon/ports.py:ports", "daemon/answering.py:answering").called_by == {}
    assert len(walked("daemon/rings.py:rings", "daemon/rings.py:rings daemon/answering.py:answering").called_by) == 2
    two = "daemon/rings.py:rings daemon/answering.py:answering"
    assert walked(two, two.partition(" ")[0], f"daemon/rings.py:rings {beside} daemon/ports.py:ports").called_by == {
        "daemon/answering.py:answering": "daemon/rings.py",
        "daemon/rings.py:rings": "",
        "daemon/ports.py:ports": "daemon/answering.py",
    }
