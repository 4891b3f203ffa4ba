# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a packet in a filter, by what ip6tables and nft say of it: passed, dropped, or nobody knows."""

from __future__ import annotations

import json
from ipaddress import IPv6Address
from typing import Any

import pytest

from npd6_xdp.tools.doctor import ip6tables, nft
from npd6_xdp.tools.doctor.ruleset import Certainty, Chain, Packet, fate

HOST = IPv6Address("2001:db8:1::42")
INWARD = Packet("forward", "wan0", "lan0", None, HOST)
REPLY = INWARD._replace(state="established")
ADVERTISEMENT = Packet("input", "lan0", icmp=136, state="untracked")
PASSED, PERHAPS, DROPPED = Certainty.PASSED, Certainty.PERHAPS, Certainty.DROPPED


def chain_of(*lines: str, name: str = "FORWARD", policy: str = "ACCEPT") -> Chain:
    """A table of ip6tables-save with a policy and these rules; of it, one chain."""
    others = {line.split()[1] for line in lines} - {"INPUT", "FORWARD"}
    text = "\n".join(
        ["*filter", f":{name} {policy} [0:0]", *(f":{other} - [0:0]" for other in sorted(others)), *lines, "COMMIT"]
    )
    return next(chain for chain in ip6tables.chains(text, "ip6tables") if chain.hook == name.lower())


@pytest.mark.parametrize(
    ("lines", "packet", "expected"),
    [
        ((), INWARD, PASSED),
        (("-A FORWARD -j DROP",), INWARD, DROPPED),
        (("-A FORWARD -i lan0 -j DROP",), INWARD, PASSED),
        (("-A FORWARD -i wan+ -j DROP",), INWARD, DROPPED),
        (("-A FORWARD ! -i wan0 -j DROP",), INWARD, PASSED),
        (("-A FORWARD ! -o docker0 -j DROP",), INWARD, DROPPED),
        (("-A FORWARD -d 2001:db8:1::/64 -j REJECT --reject-with icmp6-port-unreachable",), INWARD, DROPPED),
        (("-A FORWARD -d 2001:db8:2::/64 -j DROP",), INWARD, PASSED),
        (("-A FORWARD -s 2001:db8:2::/64 -j DROP",), INWARD, PERHAPS),
        (("-A FORWARD -p tcp -m tcp --dport 25 -j DROP",), INWARD, PERHAPS),
        (("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A FORWARD -j DROP"), INWARD, DROPPED),
        (("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A FORWARD -j DROP"), REPLY, PASSED),
        (("-A FORWARD -m limit --limit 3/sec -j ACCEPT", "-A FORWARD -j DROP"), INWARD, PERHAPS),
        (("-A FORWARD -j A", "-A A -j RETURN", "-A A -j DROP"), INWARD, PASSED),
        (("-A FORWARD -j A", "-A FORWARD -j DROP", "-A A -j ACCEPT"), INWARD, PASSED),
        (("-A FORWARD -g A", "-A FORWARD -j DROP", "-A A -o eth9 -j ACCEPT"), INWARD, PASSED),
        (("-A FORWARD -p tcp -j A", "-A FORWARD -j DROP", "-A A -j ACCEPT"), INWARD, PERHAPS),
        (("-A FORWARD -j A", "-A A -m mark --mark 0x1 -j RETURN", "-A A -j DROP"), INWARD, PERHAPS),
        (('-A FORWARD -m comment --comment "let it -j ACCEPT" -j LOG --log-prefix "x"',), INWARD, PASSED),
        (("-A INPUT -p ipv6-icmp -j DROP",), ADVERTISEMENT, DROPPED),
        (("-A INPUT -p tcp -j DROP",), ADVERTISEMENT, PASSED),
        (("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j DROP",), ADVERTISEMENT, PASSED),
        (("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 136 -j ACCEPT", "-A INPUT -j DROP"), ADVERTISEMENT, PASSED),
        (("-A INPUT -m conntrack --ctstate INVALID -j DROP",), ADVERTISEMENT, PASSED),
        (("-A INPUT -m rt --rt-type 0 -j DROP",), ADVERTISEMENT, PASSED),
        (("-A INPUT -p ipv6-icmp -m hl --hl-eq 255 -j ACCEPT", "-A INPUT -j DROP"), ADVERTISEMENT, PASSED),
        (("-A INPUT -p ipv6-icmp -m hl --hl-lt 255 -j DROP",), ADVERTISEMENT, PASSED),
        (("-A FORWARD -m hl --hl-lt 2 -j DROP",), INWARD, PERHAPS),
        (("-A FORWARD -m rpfilter -j DROP",), INWARD, PERHAPS),
        (("-A FORWARD -m rpfilter -j ACCEPT", "-A FORWARD -j DROP"), INWARD, PERHAPS),
        (("-A FORWARD -m rpfilter --loose --invert -j DROP",), INWARD, PERHAPS),
        (("-A FORWARD -m socket -j DROP",), INWARD, PERHAPS),
    ],
)
def test_of_ip6tables_a_fate_is_certain_only_where_no_rule_may_say_otherwise(
    lines: tuple[str, ...], packet: Packet, expected: Certainty
) -> None:
    assert fate(chain_of(*lines, name=packet.hook.upper()), packet).certainty is expected


def test_chains_that_jump_from_many_places_to_others_are_walked_once() -> None:
    levels = [f"-A L{level} -p tcp -m tcp --dport {port} -j L{level + 1}" for level in range(12) for port in range(10)]
    chain = chain_of("-A FORWARD -j L0", *levels, "-A L12 -j DROP")
    assert fate(chain, INWARD).certainty is PERHAPS
    assert fate(chain, ADVERTISEMENT._replace(hook="forward")).certainty is PASSED


def test_a_policy_is_named_where_it_is_what_drops_and_a_rule_by_its_own_words() -> None:
    assert fate(chain_of(policy="DROP"), INWARD).by == "ip6tables: filter FORWARD: policy drop"
    rule = "-A FORWARD -i wan0 -j DROP"
    assert fate(chain_of(rule), INWARD).by == f'ip6tables: filter FORWARD: "{rule}"'


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


META = {name: {"meta": {"key": name}} for name in ("iifname", "oifname", "nfproto", "l4proto", "mark")}
DADDR = {"payload": {"protocol": "ip6", "field": "daddr"}}
TYPE = {"payload": {"protocol": "icmpv6", "field": "type"}}
STATE = {"ct": {"key": "state"}}
PORT = {"payload": {"protocol": "tcp", "field": "dport"}}
BACK = {"fib": {"result": "oif", "flags": ["saddr", "mark", "iif"]}}
TO_HOST = {"fib": {"result": "oif", "flags": ["daddr"]}}
LED_BACK = INWARD._replace(returns=True)
IP4 = {"payload": {"protocol": "ip", "field": "saddr"}}
CODE = {"payload": {"protocol": "icmpv6", "field": "code"}}
DROP, ACCEPT, COUNTER = {"drop": None}, {"accept": None}, {"counter": {"packets": 0, "bytes": 0}}
DISCOVERY = {"set": ["nd-neighbor-advert", "nd-neighbor-solicit"]}
P64 = {"prefix": {"addr": "2001:db8:1::", "len": 64}}


def nft_chain(*rules: list[dict[str, Any]], hook: str = "forward", policy: str = "accept") -> Chain:
    """A chain of nft -j with these rules, beside one that rules may jump to and a set."""
    of = {"family": "inet", "table": "t"}
    objects: list[dict[str, Any]] = [
        {"chain": {**of, "name": "c", "hook": hook, "type": "filter", "policy": policy}},
        {"chain": {**of, "name": "other"}},
        {"set": {**of, "name": "kept", "elem": [P64, "2001:db8:9::1"]}},
        {"rule": {**of, "chain": "other", "handle": 7, "expr": [match(META["iifname"], "wan0"), DROP]}},
        *({"rule": {**of, "chain": "c", "handle": number, "expr": rule}} for number, rule in enumerate(rules)),
    ]
    (chain,) = nft.chains(json.dumps({"nftables": objects}), "", without_xtables=False)
    return chain


@pytest.mark.parametrize(
    ("rules", "packet", "expected"),
    [
        ([[DROP]], INWARD, DROPPED),
        ([[COUNTER, {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]], INWARD, DROPPED),
        ([[match(META["iifname"], {"set": ["lan0", "wan*"]}), DROP]], INWARD, DROPPED),
        ([[match(META["iifname"], "wan0", "!="), DROP]], INWARD, PASSED),
        ([[match(META["nfproto"], "ipv4"), DROP]], INWARD, PASSED),
        ([[match({"payload": {"protocol": "ip", "field": "saddr"}}, "192.0.2.1"), DROP]], INWARD, PASSED),
        ([[match(DADDR, P64), DROP]], INWARD, DROPPED),
        ([[match(DADDR, "@kept"), DROP]], INWARD, DROPPED),
        ([[match(DADDR, {"range": ["2001:db8:1::43", "2001:db8:1::50"]}), DROP]], INWARD, PASSED),
        ([[match(META["mark"], 7), DROP]], INWARD, PERHAPS),
        ([[match(BACK, False), DROP]], INWARD, PERHAPS),
        ([[match(BACK, False), DROP]], LED_BACK, PASSED),
        ([[match(BACK, True, "!="), DROP]], LED_BACK, PASSED),
        ([[match(BACK, True), ACCEPT], [DROP]], LED_BACK, PASSED),
        ([[match(BACK, True), ACCEPT], [DROP]], INWARD, PERHAPS),
        ([[match(BACK, False), DROP]], ADVERTISEMENT._replace(hook="forward"), PASSED),
        ([[match(TO_HOST, False), DROP]], LED_BACK, PERHAPS),
        ([[{"limit": {"rate": 9, "per": "second"}}, ACCEPT], [DROP]], INWARD, PERHAPS),
        ([[{"xt": {"type": "match", "name": "x"}}, DROP]], INWARD, PERHAPS),
        ([[match(STATE, ["established", "related"], "in"), ACCEPT], [DROP]], REPLY, PASSED),
        ([[match(STATE, ["established", "related"], "in"), ACCEPT], [DROP]], INWARD, DROPPED),
        ([[{"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT], ["new", DROP]]}}}]], INWARD, DROPPED),
        ([[{"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT], ["new", DROP]]}}}]], REPLY, PASSED),
        ([[{"jump": {"target": "other"}}]], INWARD, DROPPED),
        ([[{"goto": {"target": "nowhere"}}], [DROP]], INWARD, PASSED),
        ([[match(TYPE, DISCOVERY), ACCEPT], [DROP]], ADVERTISEMENT, PASSED),
        ([[match(META["l4proto"], "ipv6-icmp"), DROP]], ADVERTISEMENT, DROPPED),
        ([[match({"payload": {"protocol": "tcp", "field": "dport"}}, 22), ACCEPT], [DROP]], ADVERTISEMENT, DROPPED),
        # what isn't of a protocol isn't looked at for it, with != as well
        ([[match(PORT, 22, "!="), DROP]], ADVERTISEMENT, PASSED),
        ([[match(PORT, 22, "!="), DROP]], INWARD, PERHAPS),
        ([[match({"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, 3]}, 3), DROP]], ADVERTISEMENT, PASSED),
        ([[match(IP4, {"prefix": {"addr": "10.0.0.0", "len": 8}}, "!="), DROP]], INWARD, PASSED),
        ([[match({"payload": {"protocol": "icmp", "field": "type"}}, "echo-request", "!="), DROP]], INWARD, PASSED),
        ([[match(TYPE, DISCOVERY, "!="), DROP]], ADVERTISEMENT, PASSED),
        ([[match(TYPE, {"range": [133, "nd-redirect"]}), ACCEPT], [DROP]], ADVERTISEMENT, PASSED),
        ([[match(TYPE, {"range": [1, 4]}), ACCEPT], [DROP]], ADVERTISEMENT, DROPPED),
        ([[match({"payload": {"protocol": "ip6", "field": "hoplimit"}}, 255), ACCEPT], [DROP]], ADVERTISEMENT, PASSED),
        ([[match({"payload": {"protocol": "ip6", "field": "hoplimit"}}, 1), DROP]], INWARD, PERHAPS),
        ([[match({"exthdr": {"name": "rt", "field": "type"}}, 0), DROP]], INWARD, PASSED),
        ([[match({"concat": [META["iifname"], META["l4proto"]]}, {"set": [{"concat": ["lan0", "ipv6-icmp"]}]}), DROP]],
         ADVERTISEMENT, DROPPED),
        ([[match({"concat": [TYPE, CODE]}, {"set": [{"concat": ["nd-neighbor-advert", "no-route"]}]}), DROP]],
         ADVERTISEMENT, DROPPED),
        ([[match(CODE, 3), DROP]], ADVERTISEMENT, PASSED),
        # one that isn't understood hides none of the others
        ([[match(TYPE, {"yet": "unknown"}), ACCEPT], [match(META["iifname"], "lan0"), DROP]], ADVERTISEMENT, PERHAPS),
    ],
)  # fmt: skip
def test_of_nftables_a_fate_is_certain_only_where_no_rule_may_say_otherwise(
    rules: list[list[dict[str, Any]]], packet: Packet, expected: Certainty
) -> None:
    assert fate(nft_chain(*rules, hook=packet.hook), packet).certainty is expected


def test_a_table_that_is_switched_off_drops_nothing() -> None:
    of = {"family": "inet", "table": "t"}
    chain = {"chain": {**of, "name": "f", "hook": "forward", "type": "filter", "policy": "drop"}}
    text = json.dumps({"nftables": [{"table": {"family": "inet", "name": "t"}}, chain]})
    hook = "\tchain f {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n"
    assert nft.chains(text, f"table inet t {{\n\tflags dormant\n\n{hook}", without_xtables=False) == ()
    assert len(nft.chains(text, f"table inet t {{\n{hook}", without_xtables=False)) == 1


def test_devices_are_read_from_the_list_where_json_has_none() -> None:
    hook = 'type filter hook ingress device "lan0" priority filter; policy drop;'
    listed = f"table netdev t {{\n\tchain in {{\n\t\t{hook}\n\t}}\n}}\n"
    chain = {"family": "netdev", "table": "t", "name": "in", "hook": "ingress", "type": "filter", "policy": "drop"}
    (found,) = nft.chains(json.dumps({"nftables": [{"chain": chain}]}), listed, without_xtables=False)
    assert found.devices == ("lan0",)
