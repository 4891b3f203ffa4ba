# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads an ndppd.conf, its blocks first, and turns its `proxy` sections into interfaces and rules."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from npd6_xdp.tools.convert.common import SPACE, Notes, address_of, name_problem, plain, quoted
from npd6_xdp.tools.convert.machine import NOTHING_KNOWN, Facts
from npd6_xdp.tools.convert.overlaps import one_rule_a_prefix
from npd6_xdp.tools.convert.toml import Interface, Rule

# --- Its blocks ---

_INLINE = SPACE.replace("\n", "")


@dataclass(slots=True)
class _Item:
    """`key value { items }`; without braces `items` is None."""

    line: int
    key: str
    value: str
    items: list[_Item] | None = None

    def __str__(self) -> str:
        """As a remark names it."""
        return f"{self.key} {plain(self.value)}".rstrip()


class _Blocks:
    """Reads ndppd's blocks. A value, and the brace after it, stand on the line of their key."""

    DEPTH = 16

    def __init__(self, text: str, notes: Notes) -> None:
        self._text = text
        self._notes = notes
        self._at = 0
        self._ends = [match.start() for match in re.finditer("\n", text)]

    def read(self) -> list[_Item]:
        """The items of the whole file."""
        items: list[_Item] = []
        while self._at < len(self._text):
            items += self._block(0)
            if self._match(r"\}"):
                self._without('this "}" closes nothing')
                if self._notes.goes_on:
                    break  # ndppd reads no further
        return items

    @property
    def _line(self) -> int:
        return bisect_right(self._ends, self._at - 1) + 1

    def _wrong(self, message: str) -> None:
        self._notes.wrong(self._line, message)

    def _without(self, message: str) -> None:
        self._notes.without(self._line, message)

    def _match(self, pattern: str) -> str:
        match = re.compile(pattern, re.DOTALL).match(self._text, self._at)
        if not match:
            return ""
        self._at = match.end()
        return match[0]

    def _skip(self, space: str = _INLINE) -> None:
        """White space and comments: # and // to the line's end, /* */ over lines too."""
        while self._match(rf"[{space}]+|(#|//)[^\n]*|/\*/|/\*.*?(\*/|\Z)"):
            pass

    def _block(self, depth: int) -> list[_Item]:
        """Items up to a closing brace or the end."""
        items: list[_Item] = []
        while True:
            self._skip(SPACE)
            if self._at >= len(self._text) or self._text[self._at] == "}":
                return items
            line = self._line
            key = self._match("[A-Za-z0-9_-]+")
            if not key:
                self._stray()
                if not self._text.startswith("{", self._at):
                    continue
            self._skip()
            if key and self._match("="):
                self._skip()
            item = _Item(line, key, self._value() if key else "")
            self._skip()
            if self._match(r"\{"):
                item.items = self._braces(item, depth)
            if key:
                items.append(item)

    def _stray(self) -> None:
        if self._text.startswith("{", self._at):
            self._wrong('this "{" belongs on the line of what it opens; ndppd looks for it nowhere else')
        else:
            stray = self._match(rf"[^{SPACE}{{}}]+")
            self._without(f"unexpected {quoted(stray)}")

    def _value(self) -> str:
        quote = self._match("[\"']")
        if not quote:
            return self._match(r"[!-z|~]+")  # isgraph(), but no brace
        value = self._match(rf"[^{quote}\n]*")
        if not self._match(quote):
            self._wrong(f"the quote {quote} is never closed")
        return value

    def _braces(self, item: _Item, depth: int) -> list[_Item]:
        if depth >= self.DEPTH:
            self._wrong("braces nest too deeply")
            self._at = len(self._text)
            return []
        items = self._block(depth + 1)
        if not self._match(r"\}"):
            self._notes.wrong(item.line, f"{item.key or 'this'}: its block is never closed")
        return items


# --- What it says ---

_KERNEL_TIMERS = "no equal: the kernel's neighbour table has timers of its own (net.ipv6.neigh.IFACE)"
_DEVEL = "a key of ndppd 1.0-devel"
_FORK = "a key of a fork of ndppd"
_PROBED = "not needed: the kernel probes the hosts of its neighbour table"
_OWN_MAC = "no equal: what is advertised is the MAC address of the interface itself"
_TOP = {
    "route-ttl": "not needed: the kernel looks each target up in its routing table",
    "address-ttl": "not needed: npd6-xdp follows addresses as they change",
    "valid-ttl": f"{_DEVEL}: {_KERNEL_TIMERS}",
    "invalid-ttl": f"{_DEVEL}: {_KERNEL_TIMERS}",
    "stale-ttl": f"{_DEVEL}: {_KERNEL_TIMERS}",
    "renew": f"{_DEVEL}: {_KERNEL_TIMERS}",
    "retrans-limit": f"{_DEVEL}: {_KERNEL_TIMERS}: mcast_solicit",
    "retrans-time": f"{_DEVEL}: {_KERNEL_TIMERS}: retrans_time_ms",
    "keepalive": f"{_DEVEL} here: {_PROBED}",
}
_PROXY = {
    "ttl": _KERNEL_TIMERS,
    "deadtime": _KERNEL_TIMERS,
    "timeout": _KERNEL_TIMERS,
    "retries": f"{_KERNEL_TIMERS}: mcast_solicit",
    "keepalive": _PROBED,
    "promiscuous": "not needed: npd6-xdp has the interface receive all multicast",
    "promisc": f"{_DEVEL}: not needed: npd6-xdp has the interface receive all multicast",
    "target": f"{_DEVEL}: {_OWN_MAC}",
    "outgoing": f"{_FORK}: no equal: what this machine itself asks for is not looked for on another interface",
}
_PROMISCUOUS = (
    "differs: npd6-xdp has the interface receive all multicast, not all frames: a unicast solicitation to another MAC"
    " address than the interface's is not answered"
)
_RULE = {
    "autovia": "no equal: host_routes lead straight to the via interface, gateways are the routing table's",
    "table": (
        f"{_DEVEL}: no equal: method route asks as the kernel would (ip -6 rule), and host routes are in the main"
        " table, or that of the via interface's VRF"
    ),
    "target": f"{_DEVEL}: {_OWN_MAC}",
    "rewrite": f"{_DEVEL}: no equal: a target is looked for by the address that was asked for",
}
_TUNNEL = re.compile(
    r"(tun|wg|ppp|pppoe|sit|gre|ip6gre|ip6tnl|tunl|ipip|vti|ip6_vti|xfrm|ipsec|tailscale|he-ipv6)([-_.0-9].*)?"
)
"""Names that interfaces without an Ethernet header usually have; a tap or gretap has one."""
_METHODS = {"static": "static", "auto": "route", "iface": "neighbour"}


def read(text: str, notes: Notes, machine: Facts = NOTHING_KNOWN) -> list[Interface]:
    """The interfaces of the file; nothing if a mistake was noted."""
    interfaces: dict[str, Interface] = {}
    for item in _Blocks(text, notes).read():
        if item.key == "proxy":
            _proxy(item, interfaces, notes, machine)
        else:
            _left_out(item, _TOP, notes, None)
    if not interfaces and not notes.mistakes and not notes.goes_on:
        notes.wrong(0, "no proxy section")
    if notes.mistakes:
        return []
    for interface in interfaces.values():
        interface.rules = one_rule_a_prefix(interface.rules, notes)
        if notes.mistakes:
            return []
        if not interface.converted:
            notes.say(interface.line, f"proxy {interface.name}: left out: no rule is left", interface.remarks)
    _routed(interfaces.values(), notes, machine)
    return list(interfaces.values())


def _routed(interfaces: Iterable[Interface], notes: Notes, machine: Facts) -> None:
    """Remark on how `auto` differs: once in general, and for each rule whose targets are on-link on the port."""
    routes = [(each, rule) for each in interfaces for rule in each.converted if rule.method == "route" and not rule.via]
    unknown = [each.name for each, rule in routes if rule.network.prefixlen < 128 and each.name not in machine.ethernet]
    if routes:
        text = "auto: ndppd asks for the host where its route leads, method route answers by the route alone"
        if unknown:
            text += f"; where the prefix is on-link on {unknown[0]} itself (one /64 on both sides), it finds nothing"
        rule = routes[0][1]
        notes.say(rule.line, f'{text}; to ask for the host, write method = "neighbour" and via', rule.remarks)
    for interface, rule in routes:
        if any(rule.network.subnet_of(network) for network in machine.on_link.get(interface.name, ())):
            text = f"rule {rule.prefix}: it is on-link on {interface.name} here, so method route finds there only what"
            text += ' longer routes lead to; for hosts of the same /64, write method = "neighbour", via and host_routes'
            notes.say(rule.line, text, rule.remarks)


def _without_nd(name: str, machine: Facts) -> str:
    """Why an interface has no Neighbor Discovery: by what it is here, or else by its name; "" if it has."""
    if name in machine.ethernet:
        return "" if machine.ethernet[name] else "it is no Ethernet interface"
    return "by its name a tunnel" if _TUNNEL.fullmatch(name) else ""


def _left_out(item: _Item, known: dict[str, str], notes: Notes, at: list[str] | None) -> None:
    reason = known.get(item.key, "left out: ndppd doesn't know it here either, and passes over it")
    text = f"{item}{' { ... }' if item.items is not None else ''}: {reason}"
    notes.say(item.line, text, at, equal="not needed: " in reason)


def _firsts(items: list[_Item], keys: set[str], notes: Notes, at: list[str]) -> dict[str, _Item]:
    """The first of several for a key that may stand there once, as ndppd takes it."""
    firsts: dict[str, _Item] = {}
    for item in items:
        if item.key in keys and (first := firsts.setdefault(item.key, item)) is not item:
            notes.say(item.line, f"{item}: left out: line {first.line} says {item.key}, and the first counts", at)
    return firsts


def _yes(item: _Item | None, default: bool, notes: Notes, at: list[str]) -> bool:
    if item is None:
        return default
    if item.value.lower() not in {"yes", "true", "no", "false"}:
        why = '; the ";" belongs to the value there' if item.value.endswith(";") else ""
        notes.say(item.line, f"{item.key} {quoted(item.value)}: ndppd takes all but yes and true for no{why}", at)
    return item.value.lower() in {"yes", "true"}


def _proxy(item: _Item, interfaces: dict[str, Interface], notes: Notes, machine: Facts) -> None:
    """A `proxy` section: its rules, raw, go to its interface's."""
    if problem := name_problem(item.value):
        notes.wrong(item.line, f"proxy: {problem}")
    again = item.value in interfaces
    interface = interfaces.setdefault(item.value, Interface(item.line, item.value))
    at: list[str] = []
    options = _firsts(item.items or [], {"router", "autowire"}, notes, at)
    if not again and (why := _without_nd(item.value, machine)):
        text = f"proxy {item.value}: {why}: there is no Neighbor Discovery, so nothing is asked there"
        notes.say(item.line, text, at)
    router = _yes(options.get("router"), True, notes, at)
    autowire = _yes(options.get("autowire"), False, notes, at)
    if again:
        text = f"{item}: merged with line {interface.line}"
        notes.say(item.line, f"{text}; ndppd itself listens only by the last of an interface's sections", at)
    else:
        interface.router = router
    rules: list[Rule] = []
    for inner in item.items or []:
        if inner.key == "rule":
            if rule := _rule(inner, item.value, notes, machine):
                rule.router = router
                rule.host_routes = (autowire or rule.host_routes) and rule.method == "neighbour"
                rules.append(rule)
        elif inner.key in {"promiscuous", "promisc"} and inner.value.lower() in {"yes", "true"}:
            of = f"{_DEVEL}: " if inner.key == "promisc" else ""
            notes.say(inner.line, f"{inner}: {of}{_PROMISCUOUS}", at)
        elif inner.key not in options:
            _left_out(inner, _PROXY, notes, at)
    if autowire and not any(rule.host_routes for rule in rules):
        text = "it adds routes by iface rules, and here is none"
        if any(rule.method == "route" and rule.via for rule in rules):
            text = "method route adds no routes, it goes by those that are there; see to it that one leads to each host"
        notes.say(options["autowire"].line, f"autowire: {text}", at)
    interface.rules += rules
    interface.remarks += at


def _rule(item: _Item, port: str, notes: Notes, machine: Facts) -> Rule | None:
    """A `rule` of a section; None if it is a mistake."""
    rule = Rule(item.line)
    written = re.fullmatch(rf"[{SPACE}]*([0-9A-Fa-f:]+)[{SPACE}]*(?:/[{SPACE}]*([0-9]{{1,3}}))?", item.value)
    address, length = (address_of(written[1]), int(written[2] or 128)) if written else (None, 0)
    if address is None or length > 128:
        message = f"rule: must be an IPv6 address or prefix, in hex and colons; found {quoted(item.value)}"
        (notes.without if item.value else notes.wrong)(item.line, message)
        return None
    options = _firsts(item.items or [], {*_METHODS, "autowire"}, notes, rule.remarks)
    for inner in item.items or []:
        if inner.key not in {*_METHODS, "autowire"}:
            _left_out(inner, _RULE, notes, rule.remarks)
    wired = options.pop("autowire", None)
    if len(options) > 1:
        lines = " and ".join(f"{key} (line {option.line})" for key, option in options.items())
        notes.wrong(item.line, f"rule: {lines}; only one of static, auto and iface is possible")
        return None
    if not options:
        text = "rule without static, auto or iface: static, as ndppd's manual has it; 0.2.5 itself refuses it"
        notes.say(item.line, text, rule.remarks)
    rule.method = "static"
    for key, option in options.items():
        rule.method = _METHODS[key]
        if key == "iface":
            if problem := _iface_problem(option.value, port):
                (notes.without if option.value else notes.wrong)(option.line, problem)
                return None
            rule.via = [option.value]
            if why := _without_nd(option.value, machine):
                rule.method = "route"
                text = f"{option}: {why}: no Neighbor Discovery there, so method route: what the routing table leads to"
                notes.say(option.line, f"{text} by {option.value} is there", rule.remarks)
        elif option.value:
            notes.say(option.line, f"{option}: {key} takes no value, it is {key}", rule.remarks)
    if wired is not None:
        _wire(wired, rule, notes)
    rule.take(address, length, item.value, notes)
    return rule


def _wire(item: _Item, rule: Rule, notes: Notes) -> None:
    """`autowire` inside a rule: a flag there, so that without a value it means yes."""
    rule.host_routes = _yes(item, True, notes, rule.remarks) if item.value else True
    of = f"{item}: {_DEVEL} here (0.2.5 has it in the proxy section)"
    if not rule.host_routes:
        notes.say(item.line, f"{of}: as without it", rule.remarks)
    elif rule.method == "neighbour":
        notes.say(item.line, f"{of}: host_routes", rule.remarks)
    else:
        rule.host_routes = False
        notes.say(item.line, f"{of}: it adds routes by iface, and method {rule.method} adds none", rule.remarks)


def _iface_problem(name: str, port: str) -> str:
    """What is wrong with the interface that a rule asks on; "" if nothing."""
    if problem := name_problem(name):
        return f"iface: {problem}"
    if name == port:
        return f"iface {port}: the question comes from there; name the other side's interface"
    return ""
