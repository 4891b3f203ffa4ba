# SPDX-License-Identifier: GPL-2.0-or-later
"""What has become of interfaces: said once, whatever is put in force in between."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon.in_force import Change
from npd6_xdp.daemon.lines import Damper
from npd6_xdp.daemon.link_log import LinkLog
from tests.core.tables import config, facts, rule
from tests.daemon.forces import in_force


def test_a_change_that_cannot_be_taken_in_yet_isnt_said_again_where_hidden_tags_are_seen_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "npd6-xdp")
    room, written, links = LinkLog(Damper()), config(rule("2001:db8::/64")), facts()
    (name, link), *_ = links.items()
    now = in_force(build(written, links), links, written)
    down = in_force(now.table, {name: replace(link, up=not link.up)}, written)
    room.apply(now)
    for _ in range(3):  # each second
        finish(room.prepare(down, Change(ExitStack(), asked=False)))
        room.apply(now)
    assert len(caplog.messages) == 1
