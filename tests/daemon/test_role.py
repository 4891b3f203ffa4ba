# SPDX-License-Identifier: GPL-2.0-or-later
"""A role that has changed is looked at, whoever has read the announcement of the address."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest

from npd6_xdp.daemon.in_force import NOTHING, Change
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.machine import Machine, NextLook

ADDRESS = "192.0.2.1"


class Links:
    """An IPv4 address has come: nothing that a table is built of."""

    def on_change(self, _deadline: float) -> bool:
        return False

    def held(self, _: object) -> frozenset[str]:
        return frozenset({ADDRESS})

    def devices(self, _: object) -> frozenset[str]:
        return frozenset()


@pytest.mark.parametrize("held", [frozenset[str](), frozenset({ADDRESS})])
@pytest.mark.parametrize("by_a_reload", [False, True])
def test_a_role_is_looked_at_though_a_reload_that_comes_to_nothing_has_read_of_it(
    *, by_a_reload: bool, held: frozenset[str]
) -> None:
    look = NextLook()
    with closing(Loop()) as loop, closing(Machine(loop, look)) as machine:
        there, links = machine.netlink, Links()
        machine.netlink = links  # type: ignore[assignment]
        machine.apply(replace(NOTHING, held=held))
        assert not look.roles
        if by_a_reload:
            machine.take_in(Change(ExitStack(), asked=True))
        else:
            machine.on_link_change()
        found: Any = look.roles
        machine.netlink = there
    assert found is (held == frozenset())
