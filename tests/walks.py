# SPDX-License-Identifier: GPL-2.0-or-later
"""The walks of docs/architecture.md, as the page has them, and what a trace of the daemon says of one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "npd6_xdp"
PAGE = PROJECT / "docs/architecture.md"

ROW = "daemon/in_force.py"
"""The step that all rooms are which follow what is in force."""
_STEP = re.compile(r"^(\d+)\. `([\w./]+)` `([\w.]+)\(\)`( \(handed\))?: .*\.$")
_LOOP, _BESIDE = "daemon/loop.py:", "system/aside.py:_hand_over"
_GOES_ON = {"core/steps.py", "daemon/turns.py"}  # they take whoever hands them a generator a step further


class Step(NamedTuple):
    """A room of a walk, and the function by which the walk enters it; `handed`: whoever calls it doesn't import it."""

    file: str
    function: str
    handed: bool


def section(title: str) -> str:
    """What the page says below a title, up to the next."""
    return re.split(r"^##+ ", PAGE.read_text().partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def steps(title: str) -> list[Step]:
    """The steps of the walk with that title."""
    lines = [line for line in section(title).splitlines() if re.match(r"\d+\.", line)]
    found = [match for line in lines if (match := _STEP.match(line))]
    assert [int(match[1]) for match in found] == [*range(1, len(lines) + 1)], f"{title}: {lines}"
    return [Step(match[2], match[3], bool(match[4])) for match in found]


@cache
def followers() -> frozenset[str]:
    """The rooms with a class that follows what is in force."""
    return frozenset(
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.glob("daemon/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Follower" for base in node.bases)
    )


def among() -> dict[str, set[str]]:
    """Which rooms that follow what is in force ask which others of them, as the page says it."""
    sentence = re.sub(r"\s+", " ", section("A reload")).partition("Among themselves, ")[2].partition(".")[0]
    clauses = [re.findall(r"`(\w+)`", clause) for clause in sentence.split(";")]
    return {f"daemon/{first}.py": {f"daemon/{each}.py" for each in rest} for first, *rest in clauses}


class Walked:
    """What a trace of tests/netns/traced.py says of a walk: in which order the page's functions were called first, from
    which rooms, and who called back.
    """

    def __init__(self, walk: Sequence[Step], trace: Iterable[str]) -> None:
        self._number = {step.file: number for number, step in enumerate(walk)}
        if ROW in self._number:
            self._number = dict.fromkeys(followers(), self._number[ROW]) | self._number
        self._functions = {f"{step.file}:{step.function}" for step in walk}
        self._begins = {next(step.file for step in walk if step.file.endswith(".py"))}  # and from where it has come to
        self.called_by: dict[str, str] = {}
        """By function: the room that called it first, "" where that was who begins walks."""
        self.called_back: set[str] = set()
        self.rooms: set[str] = set()
        """All that were entered, those that were asked by the way, too."""
        self.among: dict[str, set[str]] = {}
        """Which rooms that follow what is in force have asked which others of them."""
        for stack in _stacks(trace):
            if _room(stack[0]) in self._begins:
                self._take(stack)

    def _take(self, stack: Sequence[str]) -> None:
        called, room = stack[-1], _room(stack[-1])
        above = [each for each in map(_room, stack[:-1]) if f"{each}:" != _LOOP]
        self.rooms.add(room)
        number = self._number.get(room)
        if number is None:
            return
        following = [each for each in above if each in followers()]
        if "daemon/changes.py" in above and room in followers() and following and following[-1] != room:
            self.among.setdefault(following[-1], set()).add(room)
        if (function := called.rstrip("*")) in self._functions:
            self.called_by.setdefault(function, above[-1] if above else "")
            self._begins.add(room)
        goes_on = room in above and called.endswith("*")
        passed = max((self._number[each] for each in above if each in self._number), default=-1)
        if (number < passed or room in above) and not goes_on:
            self.called_back.add(f"{stack[-2]} calls {called}")


def _room(place: str) -> str:
    return place.partition(":")[0]


def _stacks(trace: Iterable[str]) -> Iterator[list[str]]:
    """Each call of a trace as the stack of rooms below who has begun the walk."""
    for line in trace:
        _, *stack = line.split()
        if _room(stack[-1]) in _GOES_ON:
            continue
        places: list[str] = []
        for place in stack:
            if places and _room(places[-1]) == _room(place):
                places[-1] = place
            elif _room(place) not in _GOES_ON:
                places.append(place)
        beside = [number for number, place in enumerate(places) if place.startswith(_BESIDE)]
        loop = [number for number, place in enumerate(places) if place.startswith(_LOOP)]
        first = beside[-1] + 1 if beside else loop[0] + 1 if loop else 0
        asked = any(place.startswith(f"{_LOOP}Loop._next_due") for place in places)  # when, and nothing is done
        if places[first:] and not asked:
            yield places[first:]
