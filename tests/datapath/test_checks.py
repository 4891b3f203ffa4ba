# SPDX-License-Identifier: GPL-2.0-or-later
"""Each kind of solicitation on its own: what becomes of the frame, and under which name it is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_RA, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from npd6_xdp.core.config import DadPolicy, Datapath, Vlan
from npd6_xdp.core.verdict import Method, Outcome, Reason
from tests.datapath.harness import XDP_DROP, XDP_PASS, XDP_TX, Bench, Hook, Seen, entry, link, rule, table
from tests.frames import SETTING, TAGS_8021Q, TAGS_PRIORITY, TAGS_PRIORITY_Q, TAGS_QINQ, ip6, solicited_node
from tests.judge import judge_advertisement
from tests.kinds import KINDS, PEER_KINDS, Kind, Wanted, nonce, option, sllao, solicit, three_tags

TAGS = {
    "untagged": b"",
    "802.1Q": TAGS_8021Q,
    "QinQ": TAGS_QINQ,
    "802.1ad": bytes.fromhex("88a80064"),
    "two of 802.1Q": bytes.fromhex("8100006481000007"),
}
HOOKS = tuple(Hook)
OUTCOMES = {Wanted.DAD: Outcome.DAD, Wanted.IGNORED: Outcome.IGNORED}


def everywhere(datapath: Datapath, dad: DadPolicy = DadPolicy.IGNORE):  # type: ignore[no-untyped-def]
    vlans = (Vlan(), Vlan(tags=(100,)), Vlan(tags=(100, 7)))
    return table(*[entry(vlan=vlan, datapath=datapath, dad=dad) for vlan in vlans])


def passed(frame: bytes, *outcomes: Outcome, reasons: tuple[Reason, ...] = ()) -> Seen:
    return Seen(XDP_PASS, frame, outcomes, reasons)


def test_there_are_26_kinds_to_begin_with() -> None:
    assert len(PEER_KINDS) == 26
    assert sum(kind.wanted is Wanted.ANSWERED for kind in PEER_KINDS) == 9


@pytest.mark.parametrize("dad", DadPolicy)
@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("datapath", Datapath)
def test_every_kind_gets_what_the_rfc_says(bench: Bench, datapath: Datapath, tags: bytes, dad: DadPolicy) -> None:
    bench.use(everywhere(datapath, dad))
    for kind in KINDS:
        frame = kind.build(replace(SETTING, tags=tags))
        seen, answers = bench.see(frame), bench.answers()
        answered = kind.wanted is Wanted.ANSWERED or (kind.wanted is Wanted.DAD and dad is DadPolicy.DEFEND)
        if answered and datapath is Datapath.MONITOR:
            assert (seen, answers) == (passed(frame, Outcome.MONITORED), []), kind.name
        elif answered and seen.action == XDP_TX:
            assert datapath is Datapath.HYBRID, kind.name
            assert (seen.counted, seen.reasons, answers) == ((Outcome.ANSWERED_XDP,), (), []), kind.name
            judge_advertisement(seen.frame, frame, SETTING.mac, router=True)
        elif answered:
            assert (seen.action, seen.counted, seen.reasons, len(answers)) == (XDP_DROP, (), (), 1), kind.name
            judge_advertisement(answers[0], frame, SETTING.mac, router=True)
        else:
            assert (seen, answers) == (left_alone(frame, kind), []), kind.name


def left_alone(frame: bytes, kind: Kind) -> Seen:
    if isinstance(kind.wanted, Reason):
        return passed(frame, Outcome.INVALID, reasons=(kind.wanted,))
    return passed(frame, *([OUTCOMES[kind.wanted]] if kind.wanted in OUTCOMES else []))


def test_hybrid_hands_up_only_what_it_cannot_write_itself(bench: Bench) -> None:
    bench.use(everywhere(Datapath.HYBRID, DadPolicy.DEFEND))
    handed_up = {kind.name for kind in KINDS if bench.run(kind.build(SETTING))[0] == XDP_DROP}
    events = bench.events()
    assert len(events) == len(handed_up) > 0
    for kind in KINDS:
        if kind.name in handed_up:
            frame = kind.build(SETTING)
            extended = frame[20] != 58  # the IPv6 header's next header
            assert kind.wanted is Wanted.DAD or extended, kind.name


# --- what a target is matched by ---


def ask(bench: Bench, target: str, **fields: object) -> Seen:
    address = ip6(target)
    frame = solicit(replace(SETTING, target=address), destination=solicited_node(address), **fields)  # type: ignore[arg-type]
    seen = bench.see(frame)
    assert (seen.frame == frame) == (seen.action != XDP_TX)
    return seen


MATCHES = (  # C1, C6, C7, C8, C2 and C3 of docs/rules.md
    ("an address of the interface's own", "2001:db8::2", Outcome.OWN),
    ("a link-local address of the interface's own", "fe80::aa", Outcome.OWN),
    ("a next hop", "2001:db8::1", Outcome.IGNORED),
    ("an address under the prefix", "2001:db8:1::42", Outcome.ANSWERED_XDP),
    ("the last address of the prefix", "2001:db8:1:0:ffff:ffff:ffff:ffff", Outcome.ANSWERED_XDP),
    ("the address before the prefix", "2001:db8:0:ffff:ffff:ffff:ffff:ffff", Outcome.UNMATCHED),
    ("the address behind the prefix", "2001:db8:1:1::", Outcome.UNMATCHED),
    ("one address ignored in it", "2001:db8:1::dead", Outcome.IGNORED),
    ("a part ignored in it", "2001:db8:1::1:7", Outcome.IGNORED),
    ("one address answered in that part", "2001:db8:1::1:8", Outcome.ANSWERED_XDP),
    ("a longer prefix answered in that part", "2001:db8:1::1:42", Outcome.ANSWERED_XDP),
    ("a link-local address that no rule names", "fe80::99", Outcome.IGNORED),
    ("a link-local address that a rule names", "fe80::42", Outcome.ANSWERED_XDP),
    ("the unspecified address", "::", Outcome.IGNORED),
    ("the loopback address", "::1", Outcome.IGNORED),
)
RULES = (
    rule("2001:db8:1::/64"),
    rule("2001:db8:1::dead/128", Method.IGNORE),
    rule("2001:db8:1::1:0/112", Method.IGNORE),
    rule("2001:db8:1::1:8/128"),
    rule("2001:db8:1::1:40/124"),
    rule("fe80::42/128"),
    rule("2001:db8::/127"),
)


@pytest.mark.parametrize(("what", "target", "outcome"), MATCHES, ids=[what for what, _, _ in MATCHES])
def test_a_target_is_decided_by_its_most_specific_rule(bench: Bench, what: str, target: str, outcome: Outcome) -> None:
    bench.use(table(entry(*RULES), facts=link(own=["2001:db8::2", "fe80::aa"], next_hops=["2001:db8::1"])))
    seen = ask(bench, target)
    assert seen.counted == (outcome,)
    assert seen.action == (XDP_TX if outcome is Outcome.ANSWERED_XDP else XDP_PASS)


def test_a_rule_of_the_unspecified_prefix_answers_neither_loopback_nor_unspecified(bench: Bench) -> None:
    bench.use(table(entry(rule("::/0"))))
    assert ask(bench, "::").counted == ask(bench, "::1").counted == (Outcome.IGNORED,)
    assert ask(bench, "1::").counted == (Outcome.ANSWERED_XDP,)


def test_rules_count_what_they_covered(bench: Bench) -> None:
    using = table(entry(*RULES))
    bench.use(using)
    before = [bench.ns_filter.rule_counters(rule_id) for rule_id in using.rules]
    for target in ("2001:db8:1::42", "2001:db8:1::43", "2001:db8:1::dead", "2001:db8:9::1"):
        ask(bench, target)
    grown = {
        using.rules[rule_id].prefix: {o: n - before[rule_id][o] for o, n in now.items() if n != before[rule_id][o]}
        for rule_id, now in ((rule_id, bench.ns_filter.rule_counters(rule_id)) for rule_id in using.rules)
    }
    assert {prefix: counts for prefix, counts in grown.items() if counts} == {
        "2001:db8:1::/64": {Outcome.ANSWERED_XDP: 2},
        "2001:db8:1::dead/128": {Outcome.IGNORED: 1},
    }


# --- which frames ---

VLAN_CASES: tuple[tuple[str, bytes, set[str]], ...] = (
    ("untagged", b"", {"untagged"}),
    ("a priority tag", TAGS_PRIORITY, {"untagged"}),  # H1
    ("VLAN 100", TAGS_8021Q, {"100"}),
    ("VLAN 200", bytes.fromhex("810000c8"), set()),
    ("a priority tag, then VLAN 200", TAGS_PRIORITY_Q, {"200"}),
    ("100.7", TAGS_QINQ, {"100.7"}),
    ("7.100", bytes.fromhex("8100000781000064"), set()),
    ("VLAN 100 with priority and DEI", bytes.fromhex("8100f064"), {"100"}),
)
VLAN_KEYS = {"untagged": Vlan(), "100": Vlan(tags=(100,)), "200": Vlan(tags=(200,)), "100.7": Vlan(tags=(100, 7))}


@pytest.mark.parametrize(("what", "tags", "speaks"), VLAN_CASES, ids=[what for what, _, _ in VLAN_CASES])
def test_an_entry_speaks_for_its_vlan_only(bench: Bench, what: str, tags: bytes, speaks: set[str]) -> None:
    for key, vlan in VLAN_KEYS.items():
        bench.use(table(entry(vlan=vlan)))
        seen = bench.see(solicit(replace(SETTING, tags=tags)))
        answered = key in speaks or (what == "VLAN 200" and key == "200")
        assert seen.counted == ((Outcome.ANSWERED_XDP if answered else Outcome.UNMATCHED),), key
    bench.use(table(entry(vlan=Vlan(any=True))))
    assert bench.see(solicit(replace(SETTING, tags=tags))).counted == (Outcome.ANSWERED_XDP,)


def test_a_given_vlan_beats_any(bench: Bench) -> None:
    ignoring = rule("2001:db8::/32", Method.IGNORE)
    bench.use(table(entry(vlan=Vlan(any=True)), entry(ignoring, vlan=Vlan(tags=(100,)))))
    assert bench.see(solicit(replace(SETTING, tags=TAGS_8021Q))).counted == (Outcome.IGNORED,)
    assert bench.see(solicit(replace(SETTING, tags=TAGS_QINQ))).counted == (Outcome.ANSWERED_XDP,)


def test_a_message_as_long_as_a_page_takes_is_checked_and_answered(bench: Bench) -> None:
    """Longer ones, of two pages, come only by an interface: tests/netns."""
    bench.use(table(entry()))
    options = option(253, bytes(2038)) + 100 * nonce() + sllao(SETTING.asker_mac)
    frame = solicit(SETTING, options=options)
    seen = bench.see(frame)
    assert (seen.action, seen.counted) == (XDP_TX, (Outcome.ANSWERED_XDP,))
    judge_advertisement(seen.frame, frame, SETTING.mac, router=True)
    assert bench.see(solicit(SETTING, options=options, checksum_error=1)).reasons == (Reason.CHECKSUM,)
    assert bench.see(solicit(SETTING, options=options + bytes(8))).reasons == (Reason.OPTION_LENGTH,)


SETTING_IP = IPv6(src="fe80::2", dst="ff02::1:ff00:42", hlim=255)
# Without an address to go to, scapy would ask for one on this machine's links.
ETHER = Ether(dst="33:33:00:00:00:01", src="02:00:00:00:00:02")
OTHERS = {
    "three tags": three_tags(SETTING),
    "router advertisement": bytes(ETHER / SETTING_IP / ICMPv6ND_RA()),
    "router solicitation": bytes(ETHER / SETTING_IP / ICMPv6ND_RS()),
    "neighbor advertisement": bytes(ETHER / SETTING_IP / ICMPv6ND_NA(tgt="2001:db8:1::42")),
    "TCP over IPv6": bytes(ETHER / IPv6(dst="2001:db8:1::42") / TCP()),
    "TCP over IPv4": bytes(ETHER / IP(dst="192.0.2.1") / TCP()),
    # npd6 takes its first byte for an ICMPv6 type: 34560 is 0x8700
    "UDP from port 34560, an NS in it": bytes(
        ETHER
        / IPv6(src="fe80::2", dst="2001:db8:1::42", hlim=255)
        / UDP(sport=34560, dport=9)
        / Raw(solicit(SETTING)[54:])
    ),
    "14 bytes": bytes(ETHER)[:12] + b"\x86\xdd",
}


@pytest.mark.parametrize("frame", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("datapath", Datapath)
def test_what_is_no_solicitation_is_passed_and_not_counted(bench: Bench, frame: bytes, datapath: Datapath) -> None:
    bench.use(table(entry(datapath=datapath)))
    assert bench.see(frame) == passed(frame)
    assert bench.events() == []
