# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables with a rule of a method that knows targets, and the solicitations that the tests ask by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, Datapath, RuleConfig
from npd6_xdp.core.event import EventFlag
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import PresentFlag, Table
from npd6_xdp.core.verdict import Method, Outcome
from tests.datapath.harness import (
    PORT,
    entry,
    link,
)
from tests.frames import SETTING, UNSPECIFIED, plain_solicitation, solicited_node
from tests.kinds import solicit

TARGET = SETTING.target
LAN = LinkFacts("lan0", 77, bytes.fromhex("02000000000a"))
FRESH = PresentFlag(0)
MISS, STALE, ANSWERED = EventFlag.MISS, EventFlag.STALE, EventFlag.ANSWERED


def one(method: Method, **keys: Any) -> Table:
    """A table of one rule over all of 2001:db8::/32."""
    via = ("lan0",) if method is Method.NEIGHBOUR else ()
    covering = RuleConfig("2001:db8::/32", (Prefix.of("2001:db8::/32"),), method, via=via)
    return build(Config((entry(covering, **keys),)), {PORT: link(), "lan0": LAN})


def question(target: bytes = TARGET, **fields: Any) -> bytes:
    if not fields:
        return plain_solicitation(replace(SETTING, target=target))
    return solicit(replace(SETTING, target=target), destination=solicited_node(target), **fields)


QUESTION = question()
PROBE = question(source=UNSPECIFIED, options=b"")


NEIGHBOUR, KERNEL = Method.NEIGHBOUR, Method.KERNEL
HYBRID, PYTHON, MONITOR = Datapath.HYBRID, Datapath.PYTHON, Datapath.MONITOR
XDP, MONITORED = Outcome.ANSWERED_XDP, Outcome.MONITORED
