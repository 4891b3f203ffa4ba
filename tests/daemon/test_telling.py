# SPDX-License-Identifier: GPL-2.0-or-later
"""Long answers, made bit by bit: none of them delays the loop, and clients that ask together get the same."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import pytest

from npd6_xdp.core.errors import MachineError, UsageError
from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon.telling import Answer, Telling


class Document:
    """So many bits of a millisecond; `made` are those that were begun."""

    def __init__(self, bits: int, error: Exception | None = None) -> None:
        self.bits = bits
        self.error = error
        self.made: list[bytes] = []

    def make(self) -> Steps[Answer]:
        whole = b"x%d" % len(self.made)
        self.made.append(whole)
        for _ in range(self.bits):
            ends = time.monotonic() + 0.001
            while time.monotonic() < ends:
                pass
            yield
        if self.error:
            raise self.error
        return whole


def ticks(telling: Telling, *, busy: bool = False) -> int:
    count = 0
    while telling.due is not None:
        telling.tick(busy=busy)
        count += 1
    return count


def test_a_long_one_takes_many_turns_and_all_who_asked_before_it_began_get_the_one_copy() -> None:
    telling, document, found = Telling(), Document(50), list[Any]()
    for _ in range(30):
        telling.ask("status", document.make, found.append)
    assert ticks(telling) >= 10
    assert len(document.made) == 1
    assert len(found) == 30
    assert all(each is found[0] for each in found)


def test_who_asks_while_one_is_made_gets_the_next_as_that_says_what_is_later() -> None:
    telling, document, found = Telling(), Document(20), dict[str, Any]()
    telling.ask("status", document.make, lambda answer: found.update(first=answer))
    telling.tick(busy=False)
    for name in ("second", "third"):
        telling.ask("status", document.make, lambda answer, name=name: found.update({name: answer}))  # type: ignore[misc]
    ticks(telling)
    assert found == {"first": b"x0", "second": b"x1", "third": b"x1"}


def test_solicitations_have_their_share_while_there_are_any() -> None:
    telling, document = Telling(), Document(20)
    telling.ask("status", document.make, lambda _: None)
    telling.tick(busy=False)
    assert telling.due == 0.0
    began = time.monotonic()
    telling.tick(busy=True)
    assert telling.due is not None
    assert telling.due - began >= 0.006, "twice as long as it was at it"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MachineError("the map is gone"), {"error": "the map is gone"}),
        (UsageError("no such interface"), {"error": "no such interface", "usage": True}),
        (RuntimeError("oops"), {"error": "internal error: oops; see the log"}),
    ],
)
def test_who_asks_for_what_fails_hears_of_it_and_the_next_is_made(error: Exception, said: dict[str, object]) -> None:
    telling, document, found = Telling(), Document(2, error), list[Any]()
    telling.ask("status", document.make, found.append)
    with pytest.raises(RuntimeError) if isinstance(error, RuntimeError) else nullcontext():
        ticks(telling)
    assert found == [said]
    document.error = None
    telling.ask("status", document.make, found.append)
    ticks(telling)
    assert found[1] == b"x1"
