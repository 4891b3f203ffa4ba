# SPDX-License-Identifier: GPL-2.0-or-later
"""`ip6tables-save` as chains: ip6tables(8), ip6tables-extensions(8)."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator
from ipaddress import IPv6Network

from npd6_xdp.tools.doctor import ruleset
from npd6_xdp.tools.doctor.ruleset import Chain, Rule, Test

_HOOKS = {name.upper(): name for name in ("prerouting", "input", "forward", "output", "postrouting")}
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
_GO_ON = frozenset({"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "TRACE", "AUDIT", "CLASSIFY", "HL"})
_ICMP6 = ("ipv6-icmp", "icmpv6", "58")
_STATES = ("--ctstate", "--state")
_SAID_BY_OPTIONS = frozenset(
    {
        "comment",
        "conntrack",
        "state",
        "icmp6",
        "hl",
        "tcp",
        "udp",
        "udplite",
        "sctp",
        "dccp",
        "limit",
        "mark",
        "multiport",
    }
)
"""Matches that ask for nothing but what their options, or -p, say; others ask for something without any (rpfilter)."""
_HOP_LIMITS = {
    "--hl-eq": lambda limit: ruleset.by_hop_limit(limit, limit),
    "--hl-lt": lambda limit: ruleset.by_hop_limit(0, limit - 1),
    "--hl-gt": lambda limit: ruleset.by_hop_limit(limit + 1, 255),
}


def chains(text: str, command: str) -> tuple[Chain, ...]:
    """The chains of all tables that drop packets; `command` is the ip6tables that they are changed by."""
    found: list[Chain] = []
    table, policies = "", dict[str, str]()
    rules: defaultdict[str, list[Rule]] = defaultdict(list)
    for line in text.splitlines():
        if line.startswith("*"):
            table, policies, rules = line[1:].strip(), {}, defaultdict(list)
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            policies[name] = policy
        elif line.startswith("-A "):
            chain, rule = _rule(line)
            rules[chain].append(rule)
        elif line.strip() == "COMMIT" and table != "nat":
            others = {name: tuple(some) for name, some in rules.items()}
            found += [
                Chain(
                    f"{command}: {table} {name}",
                    "ip6tables",
                    f"{command} -t {table} -I {name}" if table != "filter" else f"{command} -I {name}",
                    _HOOKS[name],
                    policy == "DROP",
                    others.get(name, ()),
                    others,
                )
                for name, policy in policies.items()
                if name in _HOOKS
            ]
    return tuple(found)


def _rule(line: str) -> tuple[str, Rule]:
    words = shlex.split(line)
    chain, rest = words[1], words[2:]
    tests: list[Test] = []
    verdict = target = ""
    for option, values, is_negated in _options(rest):
        if option in ("-j", "-g"):
            target = values[0]
            verdict = _VERDICTS.get(target, "" if target in _GO_ON else "jump" if option == "-j" else "goto")
            break  # what follows are the target's own words
        test = _test(option, values)
        if test is not None:
            tests.append(ruleset.negated(test) if is_negated else test)
    return chain, Rule(f'"{line}"', tuple(tests), verdict, target)


def _options(words: list[str]) -> Iterator[tuple[str, list[str], bool]]:
    """The options of a rule with their values, and whether a "!" stands before them."""
    at = 0
    while at < len(words):
        is_negated = words[at] == "!"
        at += is_negated
        option, values = words[at] if at < len(words) else "", []
        at += 1
        while at < len(words) and words[at] != "!" and not words[at].startswith("-"):
            values.append(words[at])
            at += 1
        if option:
            yield option, values or [""], is_negated


def _test(option: str, values: list[str]) -> Test | None:
    value = values[0]
    if option == "-m":
        return None if value in _SAID_BY_OPTIONS else ruleset.unknown
    if option == "--comment":
        return None
    if option in ("-i", "-o"):
        pattern = f"{value[:-1]}*" if value.endswith("+") else value
        return ruleset.by_interface("iif" if option == "-i" else "oif", pattern)
    if option in ("-s", "-d"):
        try:
            network = IPv6Network(value, strict=False)
        except ValueError:
            return ruleset.unknown
        return ruleset.by_address("saddr" if option == "-s" else "daddr", network[0], network[-1])
    if option == "-p":
        return ruleset.always if value == "all" else ruleset.by_protocol(is_icmp=value in _ICMP6)
    if option == "--icmpv6-type":
        number = ruleset.ICMP_TYPES.get(value, int(value) if value.isdigit() else None)
        return ruleset.unknown if number is None else ruleset.by_icmp_type(number)
    if option in _HOP_LIMITS and value.isdigit():
        return _HOP_LIMITS[option](int(value))
    if option == "--rt-type":
        return ruleset.never  # packets have no routing header, as a rule
    if option in _STATES:
        return ruleset.any_of(tuple(ruleset.by_state(state.lower()) for state in value.split(",")))
    return ruleset.unknown
