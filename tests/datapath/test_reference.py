# SPDX-License-Identifier: GPL-2.0-or-later
"""Hundreds of thousands of generated and mutated frames, against the rules in plain Python."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from npd6_xdp.core.config import Config, DadPolicy, Datapath, RuleConfig, Vlan
from npd6_xdp.core.icmpv6 import NeighborSolicitation
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.rules import build
from npd6_xdp.core.verdict import Method, Outcome, Reason
from tests.datapath.harness import PORT, XDP_DROP, XDP_PASS, XDP_TX, Bench, entry, link
from tests.frames import ASKER_MACS, FOREIGN_MAC, SETTING, random_frames

OWN = ("2001:db8:1::1", "fe80::1")
NEXT_HOPS = ("2001:db8:ffff::1",)
RULES = {
    "2001:db8:1::/64": Method.STATIC,
    "2001:db8:1::ff42/128": Method.IGNORE,
    "2001:db8::/32": Method.IGNORE,
    "2001:db8:2::/48": Method.STATIC,
    "2001:db8:1:1::1/128": Method.STATIC,
    "fe80::42/128": Method.STATIC,
    "2001:db9::/32": Method.NEIGHBOUR,
}
PORT_MAC = FOREIGN_MAC  # of a bridge's port; the bridge's is SETTING.mac
SPOKEN = ((), (100,), (100, 7))


def vlan_ids(tags: bytes) -> tuple[int, ...]:
    ids = [int.from_bytes(tags[at + 2 : at + 4], "big") & 0xFFF for at in range(0, len(tags), 4)]
    return tuple(vid for vid in ids if vid)


def decide(
    ns: NeighborSolicitation, datapath: Datapath, dad: DadPolicy, *, shared: bool = False
) -> tuple[Outcome | None, int]:
    """DESIGN.md, 'What becomes of the frame', for a valid solicitation. No outcome: handed up to Python.

    `shared`: the port is a bridge's, with a MAC address of its own.
    """
    target = IPv6Address(ns.target)
    to = ns.link_layer_address or ns.eth_source
    ours = (SETTING.mac, PORT_MAC) if shared else (SETTING.mac,)
    if ns.eth_source in ours:
        return Outcome.IGNORED, XDP_PASS
    if not ns.eth_destination[0] & 1 and ns.eth_destination not in ours:
        return Outcome.IGNORED, XDP_PASS
    if to[0] & 1 or not any(to):
        return Outcome.IGNORED, XDP_PASS
    if target in (IPv6Address("::"), IPv6Address("::1")):
        return Outcome.IGNORED, XDP_PASS
    spoken = vlan_ids(ns.tags) in SPOKEN
    if spoken and str(target) in OWN:
        return Outcome.OWN, XDP_PASS
    if spoken and str(target) in NEXT_HOPS:
        return Outcome.IGNORED, XDP_PASS
    covering = [IPv6Network(prefix) for prefix in RULES if spoken and target in IPv6Network(prefix)]
    best = max(covering, key=lambda network: network.prefixlen, default=None)
    if target in IPv6Network("fe80::/10") and (best is None or best.prefixlen < 128):
        return Outcome.IGNORED, XDP_PASS
    if best is None:
        return Outcome.UNMATCHED, XDP_PASS
    if RULES[str(best)] is Method.IGNORE:
        return Outcome.IGNORED, XDP_PASS
    if not any(ns.source) and dad is DadPolicy.IGNORE:
        return Outcome.DAD, XDP_PASS
    if datapath is Datapath.MONITOR:
        return Outcome.MONITORED, XDP_PASS
    if RULES[str(best)] is Method.NEIGHBOUR:  # nobody is known here: Python is to find out, and others may be asked
        return None, XDP_PASS if shared and ns.eth_destination[0] & 1 else XDP_DROP
    if datapath is Datapath.HYBRID and any(ns.source) and not ns.extended:
        return Outcome.ANSWERED_XDP, XDP_TX
    return None, XDP_DROP


def compare(
    bench: Bench, seed: int, count: int, datapath: Datapath, dad: DadPolicy, *, shared: bool = False
) -> Counter[str]:
    """Run the frames of a seed; each one's action and frame, then the sums of all counters, must be as expected."""
    rules = [
        RuleConfig(prefix, (Prefix.of(prefix),), method, via=("lan0",) if method is Method.NEIGHBOUR else ())
        for prefix, method in RULES.items()
    ]
    entries = [entry(*rules, vlan=Vlan(tags=tags), datapath=datapath, dad=dad) for tags in SPOKEN]
    facts = link(OWN, NEXT_HOPS)
    if shared:
        facts = replace(facts, mac=PORT_MAC, bridge_macs={(): SETTING.mac}, shared=frozenset({()}))
    bench.use(build(Config(tuple(entries)), {PORT: facts}))
    before = bench.totals()
    wanted: Counter[Outcome | Reason] = Counter()
    handed_up = 0
    for number, frame in enumerate(random_frames(seed, count, asker_macs=(*ASKER_MACS, PORT_MAC))):
        if len(frame) < 14:
            continue  # no test run takes less than an Ethernet header
        ns = NeighborSolicitation.parse(frame)
        where = f"seed {seed}, frame {number}: {frame.hex()}"
        outcome: Outcome | Reason | None
        if isinstance(ns, NeighborSolicitation):
            outcome, action = decide(ns, datapath, dad, shared=shared)
        else:
            outcome, action = ns, XDP_PASS
        got, out = bench.run(frame)
        assert got == action, where
        assert got != XDP_PASS or out == frame, where
        if outcome is not None:
            wanted[outcome] += 1
            if isinstance(outcome, Reason):
                wanted[Outcome.INVALID] += 1
        if isinstance(ns, NeighborSolicitation) and outcome is None:
            handed_up += 1
            if handed_up % 1000 == 0:
                handed_up -= len(bench.events())
        if number % 1000 == 0:
            grown = Counter({name: n - before[name] for name, n in bench.totals().items() if n != before[name]})
            assert grown == wanted, f"{where} or up to 999 before it"
    grown = Counter({name: n - before[name] for name, n in bench.totals().items() if n != before[name]})
    assert grown == wanted, f"seed {seed}"
    assert len(bench.events()) == handed_up, f"seed {seed}"
    return Counter({str(name): n for name, n in wanted.items()})


@pytest.mark.parametrize(
    ("seed", "count", "datapath", "dad", "shared"),
    [
        (1, 120_000, Datapath.HYBRID, DadPolicy.IGNORE, False),
        (2, 30_000, Datapath.HYBRID, DadPolicy.DEFEND, False),
        (3, 20_000, Datapath.PYTHON, DadPolicy.DEFEND, False),
        (4, 20_000, Datapath.MONITOR, DadPolicy.IGNORE, False),
        (5, 20_000, Datapath.HYBRID, DadPolicy.DEFEND, True),
    ],
)
def test_the_program_and_the_plain_rules_agree_on_every_frame(
    bench: Bench, seed: int, count: int, datapath: Datapath, dad: DadPolicy, shared: bool
) -> None:
    counts = compare(bench, seed, count, datapath, dad, shared=shared)
    assert not set(Reason) - set(counts), "every reason has come up"
    if datapath is Datapath.HYBRID:
        assert counts[Outcome.ANSWERED_XDP] > count / 50
        assert {Outcome.OWN, Outcome.IGNORED, Outcome.UNMATCHED} <= set(counts)


def test_they_agree_on_frames_that_nobody_has_seen_before(bench: Bench) -> None:
    """The seed stands in the message; NPD6_SEED runs it again."""
    seed = int(os.environ.get("NPD6_SEED", int.from_bytes(os.urandom(4), "big")))
    compare(bench, seed, 10_000, Datapath.HYBRID, DadPolicy.DEFEND, shared=bool(seed & 1))
