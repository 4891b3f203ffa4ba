# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds where rules of an ndppd.conf overlap: it asks by all that hold the target, we by the longest prefix."""

from __future__ import annotations

from ipaddress import IPv6Network

from npd6_xdp.core.config_keys import MOST_VIAS
from npd6_xdp.tools.convert.common import Notes
from npd6_xdp.tools.convert.toml import Rule


def one_rule_a_prefix(rules: list[Rule], notes: Notes) -> list[Rule]:
    """Put into the rule of the longest prefix all that ndppd's rules do there."""
    kept: dict[IPv6Network, list[Rule]] = {}  # the first of a prefix is what becomes of all
    result: list[Rule] = []
    for rule in rules:
        if rule.method and rule.network in kept:
            kept[rule.network].append(rule)
            kept[rule.network][0].remarks += rule.remarks
        else:
            result.append(rule)
            if rule.method:
                kept[rule.network] = [rule]
    says = []
    for rule in result:
        if not rule.method:
            continue
        wider = _wider(rule, kept)
        if not notes.together(rule.line, len(kept[rule.network]) - 1 + len(wider), "too many rules"):
            return result
        says.append((rule, _together(rule, kept[rule.network][1:], wider, notes)))
    for rule, (method, via, host_routes) in says:  # afterwards: each looks at what the others say
        rule.method, rule.via, rule.host_routes = method, via, host_routes
    return result


def _wider(rule: Rule, kept: dict[IPv6Network, list[Rule]]) -> list[Rule]:
    """The rules of the prefixes that hold a rule's."""
    around = [rule.network.supernet(new_prefix=length) for length in range(rule.network.prefixlen)]
    return [other for network in around for other in kept.get(network, ())]


def _together(rule: Rule, same: list[Rule], wider: list[Rule], notes: Notes) -> tuple[str, list[str], bool]:
    """Method, via and host_routes of what holds for a rule's prefix, by the other rules there; what is lost is said."""

    def say(line: int, message: str) -> None:
        notes.say(line, f"rule {rule.prefix}: {message}", rule.remarks)

    holding = [rule, *same, *sorted(wider, key=lambda other: other.line)]
    for other in same:
        if (other.method, other.via) == (rule.method, rule.via):
            say(other.line, f"left out: the same as line {rule.line}")
        if other.router != rule.router:
            say(other.line, f"its router is left out: line {rule.line} is for the same prefix, the first counts")
    methods = {other.method for other in holding}
    lines = ", ".join(str(other.line) for other in holding[1:] if other.method != rule.method)
    if "static" in methods:
        if len(methods) > 1:
            say(rule.line, f"static, since what holds the target answers at once: see lines {rule.line}, {lines}")
        return "static", [], False
    if len(methods) > 1:
        say(rule.line, f"here it alone decides; ndppd asks by the rules of these lines too: {lines}")
    holding = [other for other in holding if other.method == rule.method]
    via = list(dict.fromkeys(name for other in holding for name in other.via))
    if rule.method == "route" and not all(other.via for other in holding):
        via = []  # one of them takes any interface
    if len(via) > MOST_VIAS:
        what = f"rule {rule.prefix}: {len(via):,} interfaces hold for it"
        notes.wrong(rule.line, f"{what}, and a rule of npd6-xdp has at most {MOST_VIAS:,}: leave some out")
    if set(via) - {name for other in (rule, *same) for name in other.via}:
        say(rule.line, "via has the interfaces of the wider rules too, which ndppd asks as well")
    return rule.method, via, any(other.host_routes for other in holding)
