# SPDX-License-Identifier: GPL-2.0-or-later
"""Rooms of the daemon that go by something in force, one at a time, without the others."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from npd6_xdp.core.config import Config
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce


def in_force(table: Table, links: Mapping[str, LinkFacts], config: Config = NOTHING.config) -> InForce:
    """Of a configuration whose limits, or whatever a room looks at, are meant to be the defaults."""
    return InForce(config, config, links, table)


def go_by(room: Follower, new: InForce, old: InForce = NOTHING) -> None:
    """It is in force from now on."""
    with ExitStack() as undo:
        finish(room.prepare(new, Change(undo, asked=True)))
        undo.pop_all()
    room.apply(new)
    finish(room.settle(old, new))
