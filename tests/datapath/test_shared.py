# SPDX-License-Identifier: GPL-2.0-or-later
"""A port with others behind it: what is not surely ours goes on to them; what is said is the bridge's MAC address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, DadPolicy, Datapath, Limits, RuleConfig
from npd6_xdp.core.event import EventFlag
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import PresentFlag, Table
from npd6_xdp.core.verdict import Method, Outcome
from tests.datapath.harness import IFINDEX, PORT, UNLIMITED, XDP_DROP, XDP_PASS, XDP_TX, Bench, Hook, entry, link
from tests.frames import FOREIGN_MAC, SETTING, UNSPECIFIED
from tests.kinds import solicit

HOOKS = (Hook.XDP, Hook.TC)
LAN = LinkFacts("lan0", 77, bytes.fromhex("02000000000a"))
BRIDGE_MAC, PORT_MAC = bytes.fromhex("0200000000b0"), SETTING.mac
MULTICAST = solicit(SETTING)
UNICAST = solicit(SETTING, destination=SETTING.target)
TO_BRIDGE = BRIDGE_MAC + UNICAST[6:]
PROBE = solicit(SETTING, source=UNSPECIFIED, options=b"")
BRIDGED = replace(link(), bridge_macs={(): BRIDGE_MAC}, shared=frozenset({()}))
PARENT = replace(link(), shared=frozenset({()}))  # macvlan devices have MAC addresses of their own


def one(method: Method, facts: LinkFacts = BRIDGED, **keys: Any) -> Table:
    via = ("lan0",) if method is Method.NEIGHBOUR else ()
    rule = RuleConfig("2001:db8::/32", (Prefix.of("2001:db8::/32"),), method, via=via)
    return build(Config((entry(rule, **keys),)), {PORT: facts, "lan0": LAN})


@pytest.fixture
def normal(bench: Bench) -> Iterator[Bench]:
    """The bench, whose limits a test may change."""
    yield bench
    bench.ns_filter.limit(UNLIMITED)


@pytest.mark.parametrize("facts", [BRIDGED, PARENT], ids=["a bridge's port", "a parent of macvlan devices"])
@pytest.mark.parametrize("datapath", [Datapath.HYBRID, Datapath.PYTHON])
def test_an_undecided_multicast_question_goes_up_and_goes_on(
    bench: Bench, facts: LinkFacts, datapath: Datapath
) -> None:
    bench.use(one(Method.NEIGHBOUR, facts, datapath=datapath))
    seen = bench.see(MULTICAST)
    assert (seen.action, seen.frame, seen.counted) == (XDP_PASS, MULTICAST, ())
    assert [event.flags for event in bench.events()] == [EventFlag.MISS]
    seen = bench.see(UNICAST)  # to the port's own MAC address: who asks so means us
    assert (seen.action, seen.counted) == (XDP_DROP, ())
    assert [event.flags for event in bench.events()] == [EventFlag.MISS]


def test_on_a_port_of_its_own_an_undecided_question_goes_no_further(bench: Bench) -> None:
    bench.use(one(Method.NEIGHBOUR, link()))
    assert bench.see(MULTICAST).action == XDP_DROP
    assert len(bench.events()) == 1


def test_a_probe_that_would_be_defended_goes_on_while_it_is_undecided(bench: Bench) -> None:
    bench.use(one(Method.NEIGHBOUR, dad=DadPolicy.DEFEND))
    assert bench.see(PROBE).action == XDP_PASS
    assert len(bench.events()) == 1


def test_the_first_question_of_method_kernel_is_python_s_to_answer_and_goes_no_further(bench: Bench) -> None:
    bench.use(one(Method.KERNEL))
    assert bench.see(MULTICAST).action == XDP_DROP
    assert len(bench.events()) == 1


@pytest.mark.parametrize("tags", [PresentFlag(0), PresentFlag.STALE])
def test_a_present_target_is_answered_and_its_question_consumed(bench: Bench, tags: PresentFlag) -> None:
    using = one(Method.NEIGHBOUR, datapath=Datapath.PYTHON)
    bench.use(using)
    bench.ns_filter.set_present(using.rules[0].via_set, SETTING.target, tags)
    try:
        assert bench.see(MULTICAST).action == XDP_DROP
    finally:
        bench.ns_filter.forget(using.rules[0].via_set, SETTING.target)
    assert len(bench.events()) == 1


@pytest.mark.parametrize("method", [Method.NEIGHBOUR, Method.STATIC])
@pytest.mark.parametrize(("facts", "multicast"), [(BRIDGED, XDP_PASS), (link(), XDP_DROP)], ids=["shared", "alone"])
def test_what_is_refused_goes_on_to_the_others(normal: Bench, method: Method, facts: LinkFacts, multicast: int) -> None:
    normal.use(one(method, facts, datapath=Datapath.PYTHON))
    normal.ns_filter.limit(Limits(events_per_second=1))
    actions = [normal.see(MULTICAST) for _ in range(3)]
    assert [seen.counted for seen in actions[1:]] == [(Outcome.RATE_LIMITED,)] * 2
    assert {seen.action for seen in actions[1:]} == {multicast}
    assert (normal.see(UNICAST).action, normal.see(UNICAST).counted) == (XDP_DROP, (Outcome.RATE_LIMITED,))


@pytest.mark.parametrize(("facts", "multicast"), [(BRIDGED, XDP_PASS), (link(), XDP_DROP)], ids=["shared", "alone"])
def test_what_is_lost_goes_on_to_the_others(one_cpu: None, facts: LinkFacts, multicast: int) -> None:
    bench = Bench(one(Method.NEIGHBOUR, facts), pages=1)
    try:
        seen = [bench.see(MULTICAST) for _ in range(200)]
    finally:
        bench.close()
    lost = {each.action for each in seen if each.counted == (Outcome.LOST,)}
    assert lost == {multicast}


@pytest.mark.parametrize("question", [MULTICAST, UNICAST, TO_BRIDGE], ids=["multicast", "to the port", "to the bridge"])
@pytest.mark.parametrize("datapath", [Datapath.HYBRID, Datapath.PYTHON])
def test_a_bridges_port_answers_with_the_bridges_mac_address_whichever_was_asked(
    bench: Bench, question: bytes, datapath: Datapath
) -> None:
    bench.use(one(Method.STATIC, datapath=datapath))
    seen = bench.see(question)
    (answer,) = [seen.frame] if seen.action == XDP_TX else bench.answers()
    na = NeighborAdvertisement.parse(answer)
    assert (na.eth_source, na.link_layer_address) == (BRIDGE_MAC, BRIDGE_MAC)


@pytest.mark.parametrize("mac", [BRIDGE_MAC, PORT_MAC])
def test_a_question_of_our_own_is_never_answered_by_whichever_mac_it_was_sent(bench: Bench, mac: bytes) -> None:
    bench.use(one(Method.STATIC))
    seen = bench.see(MULTICAST[:6] + mac + MULTICAST[12:])
    assert (seen.action, seen.counted) == (XDP_PASS, (Outcome.IGNORED,))


def test_a_question_to_a_neighbours_mac_address_is_passed(bench: Bench) -> None:
    bench.use(one(Method.STATIC))
    seen = bench.see(FOREIGN_MAC + UNICAST[6:])
    assert (seen.action, seen.counted) == (XDP_PASS, (Outcome.IGNORED,))


def test_frames_of_a_lower_interface_are_the_ports(bench: Bench) -> None:
    """A bond's program runs on its slaves, under their indexes."""
    bond = LinkFacts(PORT, 4242, SETTING.mac, lower=(IFINDEX,))
    bench.use(one(Method.STATIC, bond))
    assert bench.see(MULTICAST).counted == (Outcome.ANSWERED_XDP,)
    bench.use(one(Method.STATIC, replace(bond, lower=())))  # the bond uses another slave now
    seen = bench.see(MULTICAST)
    assert (seen.action, seen.counted, bench.events()) == (XDP_PASS, (), [])


def test_a_lower_interface_that_is_a_port_of_its_own_keeps_its_own_entry(bench: Bench) -> None:
    bond = LinkFacts("bond0", 4242, SETTING.mac, lower=(IFINDEX,))
    ignoring = RuleConfig("2001:db8::/32", (Prefix.of("2001:db8::/32"),), Method.IGNORE)
    entries = replace(entry(), name="bond0"), entry(ignoring)
    bench.use(build(Config(entries), {PORT: link(), "bond0": bond}))
    assert bench.see(MULTICAST).counted == (Outcome.IGNORED,)
