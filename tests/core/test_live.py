# SPDX-License-Identifier: GPL-2.0-or-later
"""What the next solicitation gets, by what is known: in the order in which the program and Python decide."""

from __future__ import annotations

import json
from typing import Any

import pytest

from npd6_xdp.core.config import Datapath
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.live import Kernel, Known, Waiting, foresee
from npd6_xdp.core.route_messages import RouteReply, RouteType
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.table import Decision
from npd6_xdp.core.verdict import Limit, Method, Outcome

ENTRY = EntryFacts("wan0", "wan0", "untagged", frozenset(), True, False, Datapath.HYBRID, False, "")
RULE = RuleFacts("2001:db8:1::/64", Method.NEIGHBOUR, ("lan0",))
KNOWN = Known(
    "2001:db8:1::42", "2001:db8::1", bytes.fromhex("020000000001"), (), ENTRY, "", "native", True, ("wan0", 7), RULE,
    via={"lan0": 8},
)  # fmt: skip
THERE = Kernel(RouteReply(RouteType.UNICAST, 8), True, None, {})
ELSEWHERE = Kernel(RouteReply(RouteType.UNICAST, 7), False, None, {})
STANDBY, MONITOR = ENTRY._replace(standby=True, why_standby="x isn't here"), ENTRY._replace(datapath=Datapath.MONITOR)
NEIGHBOUR: dict[str, Any] = {"decision": Decision.NEIGHBOUR}
ROUTE: dict[str, Any] = {"decision": Decision.ROUTE}
STATIC: dict[str, Any] = {"decision": Decision.STATIC}
HERE: dict[str, Any] = {**NEIGHBOUR, "behind": {"lan0": "reachable"}, "confirmed": True}


def test_what_is_known_is_the_same_when_it_was_json() -> None:
    rich = KNOWN._replace(
        **HERE,
        unanswered=(Outcome.OWN, "why"),
        vlan=(100, 7),
        nowhere=(3, 4),
        routing=RoutingFlag.ALL | RoutingFlag.SOURCE,
        doubted=("lan1",),
        away=("lan2",),
        waiting=Waiting(1.5, 2, True, ("lan0",)),
        refuses=(Limit.ALL, Limit.PENDING),
        recent={"outcome": "pending", "count": 3},
    )
    for known in (KNOWN, rich):
        assert Known.parse(json.loads(json.dumps(known.as_json()))) == known


@pytest.mark.parametrize(
    ("known", "kernel", "outcome"),
    [
        ({"attach": "", **STATIC}, THERE, None),
        ({"up": False, **STATIC}, THERE, None),
        ({"unanswered": (Outcome.OWN, "it is"), "entry": STANDBY}, THERE, Outcome.OWN),
        # a DAD probe comes before presence, role and datapath
        ({"source": "::", "entry": MONITOR, **ROUTE}, ELSEWHERE, Outcome.DAD),
        ({"source": "::", "defends": True, **STATIC}, THERE, Outcome.ANSWERED_PYTHON),
        ({"source": "::", "defends": True, **HERE}, THERE, Outcome.ANSWERED_PYTHON),
        ({"source": "::", "defends": True, **HERE, "confirmed": False}, THERE, Outcome.PENDING),
        # method route: absent before standby and monitored, but where XDP would have to ask first
        ({"entry": STANDBY, **ROUTE}, ELSEWHERE, Outcome.ABSENT),
        ({"entry": STANDBY, "routing": RoutingFlag.ALL, **ROUTE}, ELSEWHERE, Outcome.STANDBY),
        ({"entry": MONITOR, "routing": RoutingFlag.ALL, **ROUTE}, ELSEWHERE, Outcome.MONITORED),
        ({"routing": RoutingFlag.ALL, **ROUTE}, THERE, Outcome.ANSWERED_PYTHON),
        ({"routing": RoutingFlag.ALL, "kept": True, **ROUTE}, ELSEWHERE, Outcome.ANSWERED_XDP),
        ({"routing": RoutingFlag.UNFOUND, **ROUTE}, THERE, Outcome.ANSWERED_XDP),
        # tags beside the frame
        ({"hidden": "guarded", **STATIC}, THERE, Outcome.ANSWERED_PYTHON),
        ({"hidden": "guarded", "vlan": (100,), **STATIC}, THERE, Outcome.ANSWERED_XDP),
        ({"hidden": "silent", **STATIC}, THERE, Outcome.MONITORED),
        # method neighbour
        (NEIGHBOUR, THERE, Outcome.PENDING),
        ({**NEIGHBOUR, "via": {}}, THERE, Outcome.ABSENT),
        ({**NEIGHBOUR, "elsewhere": "reachable"}, THERE, Outcome.ABSENT),
        ({**NEIGHBOUR, "refuses": (Limit.FULL,)}, THERE, Outcome.RATE_LIMITED),
        ({**NEIGHBOUR, "refuses": (Limit.NEW_TARGET,)}, THERE, Outcome.PENDING),
        ({**NEIGHBOUR, "waiting": Waiting(1.0, 2, True, ()), "refuses": (Limit.FULL,)}, THERE, Outcome.PENDING),
        ({**NEIGHBOUR, "waiting": Waiting(1.0, 32, False, ())}, THERE, Outcome.RATE_LIMITED),
        ({**HERE, "refuses": (Limit.PENDING, Limit.SOURCE, Limit.ALL)}, THERE, Outcome.ANSWERED_XDP),
        ({**STATIC, "refuses": (Limit.NEW_TARGET,)}, THERE, Outcome.RATE_LIMITED),
        ({**STATIC, "xdp_source": False, "refuses": (Limit.ALL,)}, THERE, Outcome.RATE_LIMITED),
        ({"decision": Decision.KERNEL}, THERE, Outcome.ANSWERED_PYTHON),
        ({"decision": Decision.KERNEL, "proxied": True, "refuses": (Limit.ALL,)}, THERE, Outcome.KERNEL),
    ],
)
def test_the_next_outcome_is_foreseen_in_the_order_of_the_program(
    known: dict[str, Any], kernel: Kernel, outcome: Outcome | None
) -> None:
    assert foresee(KNOWN._replace(**known), kernel).outcome is outcome


def test_a_sample_is_said_to_go_another_way() -> None:
    assert "answered_python" in foresee(KNOWN._replace(hidden="sampled", **STATIC), THERE).note
