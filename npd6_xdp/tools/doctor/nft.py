# SPDX-License-Identifier: GPL-2.0-or-later
"""`nft -j list ruleset` as chains: libnftables-json(5)."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from npd6_xdp.tools.doctor import ruleset
from npd6_xdp.tools.doctor.ruleset import Chain, Rule, Test

_FAMILIES = ("ip6", "inet", "netdev")
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_VERDICTS = {"accept": "accept", "drop": "drop", "reject": "drop", "return": "return", "jump": "jump", "goto": "goto"}
_HARMLESS = ("counter", "log", "comment", "notrack", "mangle", "set", "flow offload", "continue", "dup", "tproxy")
_ICMP6 = ("ipv6-icmp", "icmpv6", 58)
_DEVICES = re.compile(r"^\s*type .* (?:device (\S+)|devices = \{ (.*?) \}) priority")
_XTABLES = ("filter", "mangle", "raw", "security", "nat")


def chains(text: str, listed: str, *, without_xtables: bool) -> tuple[Chain, ...]:
    """The base chains that see IPv6 packets; not those that ip6tables has made, where that tells them itself. `listed`
    is what nft lists as text: some versions have a chain's devices only there. Raises ValueError.
    """
    devices, dormant = _devices(listed), _dormant(listed)
    objects = json.loads(text)["nftables"]
    sets = {(each["family"], each["table"], each["name"]): each.get("elem", []) for each in _each(objects, "set")}
    sets |= {(each["family"], each["table"], each["name"]): each.get("elem", []) for each in _each(objects, "map")}
    rules: dict[tuple[str, str], defaultdict[str, list[Rule]]] = {}
    for each in _each(objects, "rule"):
        table = each["family"], each["table"]
        reader = _Reader({name: elements for (*of, name), elements in sets.items() if tuple(of) == table})
        rules.setdefault(table, defaultdict(list))[each["chain"]] += reader.rules(each)
    found = []
    for each in _each(objects, "chain"):
        table = each["family"], each["table"]
        if each["family"] not in _FAMILIES or each.get("hook") not in _HOOKS or each.get("type") == "nat":
            continue
        if table in dormant:
            continue
        if without_xtables and table[0] == "ip6" and table[1] in _XTABLES and each["name"].isupper():
            continue
        others = {name: tuple(some) for name, some in rules.get(table, {}).items()}
        found.append(
            Chain(
                f"nftables: {' '.join(table)} {each['name']}",
                "nft",
                f"nft insert rule {' '.join(map(shlex.quote, (*table, each['name'])))}",
                each["hook"],
                each.get("policy") == "drop",
                others.get(each["name"], ()),
                others,
                devices.get((*table, each["name"]), ()),
            )
        )
    return tuple(found)


def bridged(text: str) -> Iterator[str]:
    """The base chains of the family bridge that drop anything: a policy, or a rule."""
    objects = json.loads(text)["nftables"]
    verdicts = {
        (each["table"], each["chain"])
        for each in _each(objects, "rule")
        if each["family"] == "bridge" and any(kind != "counter" for one in each.get("expr", ()) for kind in one)
    }
    for each in _each(objects, "chain"):
        table = each["table"]
        drops = each.get("policy") == "drop" or any(of == table for of, _ in verdicts)
        if each["family"] == "bridge" and "hook" in each and drops:
            yield f"nft list chain bridge {table} {each['name']}"


def _devices(listed: str) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """The devices of chains, by family, table and name."""
    found, table, chain = {}, ("", ""), ""
    for line in listed.splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = words[1], words[2]
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif match := _DEVICES.search(line):
            found[(*table, chain)] = tuple(name.strip(' "') for name in (match[1] or match[2]).split(","))
    return found


def _dormant(listed: str) -> set[tuple[str, str]]:
    """The tables that are switched off, by family and name; some versions have garbage for that in JSON."""
    found, table = set(), ("", "")
    for line in listed.splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = words[1], words[2]
        elif words[:1] == ["flags"] and line.startswith("\tflags") and "dormant" in line:
            found.add(table)
    return found


def has_xtables(text: str) -> bool:
    """Whether ip6tables (of the kind that is made of nftables) has chains among them."""
    return any(
        each["family"] == "ip6" and each["table"] in _XTABLES and each["name"].isupper() and "hook" in each
        for each in _each(json.loads(text)["nftables"], "chain")
    )


def _each(objects: Sequence[Mapping[str, Any]], kind: str) -> Iterator[Mapping[str, Any]]:
    return (each[kind] for each in objects if kind in each)


class _Reader:
    """Reads the rules of one table, whose sets it knows."""

    def __init__(self, sets: Mapping[str, Sequence[Any]]) -> None:
        self._sets = sets

    def rules(self, rule: Mapping[str, Any]) -> Iterator[Rule]:
        """A rule, or several: a verdict map is one for each of its verdicts."""
        tests: list[Test] = []
        text = rule.get("comment") or f"rule with handle {rule.get('handle')}"
        for statement in rule.get("expr", ()):
            ((kind, what),) = statement.items()
            if kind == "match":
                tests.append(self._test(what))
            elif kind == "vmap":
                yield from self._mapped(what, tuple(tests), text)
                return
            elif kind in _VERDICTS:
                target = what["target"] if kind in ("jump", "goto") else ""
                yield Rule(f"{text} ({kind}{f' {target}' if target else ''})", tuple(tests), _VERDICTS[kind], target)
                return
            elif kind not in _HARMLESS:
                tests.append(ruleset.unknown)  # a limit, an extension of ip6tables, what is yet to be invented

    def _mapped(self, vmap: Mapping[str, Any], tests: tuple[Test, ...], text: str) -> Iterator[Rule]:
        data = vmap["data"]
        elements = self._sets.get(data[1:], ()) if isinstance(data, str) else data.get("set", ())
        for key, verdict in elements:
            ((kind, what),) = verdict.items()
            if kind in _VERDICTS:
                target = what["target"] if kind in ("jump", "goto") else ""
                one = self._test({"op": "==", "left": vmap["key"], "right": key})
                yield Rule(f"{text} ({kind}{f' {target}' if target else ''})", (*tests, one), _VERDICTS[kind], target)

    def _test(self, match: Mapping[str, Any]) -> Test:
        """A statement of a rule; of one that isn't understood nothing is known, and all others are still looked at."""
        left, operator = match["left"], match["op"]
        try:
            found = ruleset.any_of(tuple(self._one(left, value) for value in self._values(match["right"])))
            layer = _layer(left)
        except (LookupError, TypeError, ValueError, AttributeError):
            return ruleset.unknown
        if operator == "!=":
            found = ruleset.negated(found)
        elif operator not in ("==", "in"):
            found = ruleset.unknown
        return ruleset.all_of((layer, found))

    def _values(self, right: Any) -> Iterator[Any]:
        if isinstance(right, str) and right.startswith("@"):
            yield from self._values({"set": self._sets.get(right[1:], ())})
        elif isinstance(right, list):
            for each in right:
                yield from self._values(each)
        elif isinstance(right, dict) and "set" in right:
            for each in right["set"]:
                yield from self._values(each)
        elif isinstance(right, dict) and "elem" in right:
            yield from self._values(right["elem"]["val"])
        else:
            yield right

    def _one(self, left: Mapping[str, Any], value: Any) -> Test:
        match left:
            case {"concat": list(parts)}:
                values = value["concat"]
                return ruleset.all_of(tuple(self._one(*each) for each in zip(parts, values, strict=True)))
            case {"meta": {"key": "iifname" | "iif" | "oifname" | "oif" as key}}:
                return ruleset.by_interface(key[:3], str(value))
            case {"meta": {"key": "nfproto"}}:
                return ruleset.always if value == "ipv6" else ruleset.never
            case {"meta": {"key": "protocol"}} | {"payload": {"protocol": "ether", "field": "type"}}:
                return ruleset.always if value in ("ip6", 0x86DD) else ruleset.never
            case {"meta": {"key": "l4proto"}} | {"payload": {"protocol": "ip6", "field": "nexthdr"}}:
                return ruleset.always if value == "*" else ruleset.by_protocol(is_icmp=value in _ICMP6)
            case {"payload": {"protocol": "ip6", "field": "saddr" | "daddr" as field}}:
                return _addresses(field, value)
            case {"payload": {"protocol": "ip6", "field": "hoplimit"}} if isinstance(value, int):
                return ruleset.by_hop_limit(value, value)
            case {"payload": {"protocol": "icmpv6", "field": "type"}}:
                return _types(value)
            case {"payload": {"protocol": "icmpv6", "field": "code"}} if isinstance(value, int | str):
                return ruleset.by_icmp_code(0 if value == "no-route" else value)
            case {"fib": {"result": "oif" | "oifname" | "check", "flags": list(flags)}} if isinstance(value, bool):
                is_back = "saddr" in flags and {*flags} <= {"saddr", "iif", "mark"}
                return ruleset.by_way_back(exists=value) if is_back else ruleset.unknown
            case {"ct": {"key": "state"}}:
                return ruleset.by_state(str(value))
            case {"exthdr": _}:
                return ruleset.never  # packets have no extension headers, as a rule
        return ruleset.unknown


def _layer(left: Mapping[str, Any]) -> Test:
    """What a packet is to be for a rule to look there at all, with `!=` as well: nft(8) asks for that by itself."""
    match left:
        case {"concat": list(parts)}:
            return ruleset.all_of(tuple(map(_layer, parts)))
        case {"&": [dict(field), *_]}:
            return _layer(field)
        case {"payload": {"protocol": "ip" | "arp" | "icmp" | "igmp"}}:
            return ruleset.never
        case {"payload": {"protocol": "tcp" | "udp" | "th" | "sctp" | "dccp" | "udplite"}}:
            return ruleset.by_protocol(is_icmp=False)
        case {"payload": {"protocol": "icmpv6"}}:
            return ruleset.by_protocol(is_icmp=True)
    return ruleset.always


def _types(value: Any) -> Test:
    match value:
        case {"range": [first, last]}:
            return ruleset.by_icmp_type(ruleset.ICMP_TYPES.get(first, first), ruleset.ICMP_TYPES.get(last, last))
    return ruleset.by_icmp_type(int(ruleset.ICMP_TYPES.get(value, value)))


def _addresses(field: str, value: Any) -> Test:
    try:
        match value:
            case str():
                return ruleset.by_address(field, IPv6Address(value), IPv6Address(value))
            case {"prefix": {"addr": str(address), "len": int(length)}}:
                network = IPv6Network((address, length), strict=False)
                return ruleset.by_address(field, network[0], network[-1])
            case {"range": [str(first), str(last)]}:
                return ruleset.by_address(field, IPv6Address(first), IPv6Address(last))
    except ValueError:
        pass
    return ruleset.unknown
