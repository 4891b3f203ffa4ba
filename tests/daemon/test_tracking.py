# SPDX-License-Identifier: GPL-2.0-or-later
"""A change of the machine is taken in: which objects are still referenced when that has ended."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.in_force import InForce
from npd6_xdp.daemon.machine import NextLook
from npd6_xdp.daemon.tracking import Tracking
from tests.daemon.forces import in_force


class Changes:
    """From one to another, or not."""

    asleep_until = None

    def __init__(self, old: InForce, new: InForce, *, refused: bool) -> None:
        self.in_force, self._new, self._refused = old, new, refused

    def tracking(self) -> Steps[None]:
        yield
        if self._refused:
            raise MachineError("not now")
        self.in_force = self._new


@pytest.mark.parametrize("refused", [False, True])
def test_what_was_in_force_before_isnt_held_until_the_next_change(*, refused: bool) -> None:
    """A large one is let go of bit by bit, and only whoever holds it last does that at once."""
    old, new = (in_force(Table({}, {}, {}, {}, {}), {}) for _ in range(2))
    said: list[str] = []
    changes: Any = Changes(old, new, refused=refused)
    parts: list[Any] = [None, NextLook(), changes, None, SimpleNamespace(status=said.append)]
    found = Tracking(*parts)
    found.go_on()
    assert not found.is_under_way
    assert said == ([] if refused else [new.summary])
    changes.in_force = new  # by a reload, say
    assert [each for each in gc.get_referrers(old) if isinstance(each, Tracking)] == []
