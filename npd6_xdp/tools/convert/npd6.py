# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads an npd6.conf, and turns its pairs of prefix and interface, and its lists, into rules."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from itertools import takewhile

from npd6_xdp.core.config_parsers import LINK_LOCAL
from npd6_xdp.core.config_words import Wrong
from npd6_xdp.tools.convert.common import Notes, address_of, name_problem, plain, quoted, without_space
from npd6_xdp.tools.convert.expression import Expression, Set, Value, both, minus, span, union
from npd6_xdp.tools.convert.machine import NOTHING_KNOWN, Facts
from npd6_xdp.tools.convert.toml import Interface, Rule, spelled

_KEYS: dict[str, tuple[str | int, str]] = {
    # key: (its values or the highest, why it is left out)
    "prefix": ("", ""),
    "interface": ("", ""),
    "listtype": ("none|black|white", ""),
    "addrlist": ("", ""),
    "exprlist": ("", ""),
    "collectTargets": (1_000_000, ""),
    "routerNA": ("true|false", ""),
    "linkOption": ("true|false", "not needed: the target link-layer address option is always sent"),
    "ignoreLocal": (
        "true|false",
        "not needed: the kernel always answers for the interface's own addresses, npd6-xdp never does",
    ),
    "maxHops": (255, "not needed: the hop limit is always 255, receivers must drop any other (RFC 4861, 7.1.1)"),
    "pollErrorLimit": (2**31 - 1, "not needed: an interface may go, and come again later"),
    "listlogging": ("on|off", 'no equal: the metrics count what a list keeps out, by outcome "ignored"'),
    "ralogging": ("on|off", "no equal: Router Advertisements are not read"),
}
_LINE = 126
"""Bytes of a line that npd6 reads at once; it takes the rest for a line of its own."""
_EXPRESSIONS = 64


@dataclass(frozen=True, slots=True)
class _Entry:
    """An addrlist or exprlist."""

    line: int
    key: str
    value: str

    def __str__(self) -> str:
        """As a remark names it."""
        return f"{self.key} = {plain(self.value)}"


@dataclass(slots=True)
class _File:
    """What stands in the file. Of what may stand there once, the last counts."""

    prefixes: list[Rule] = field(default_factory=list)
    names: list[tuple[int, str]] = field(default_factory=list)
    lists: list[_Entry] = field(default_factory=list)
    values: dict[str, tuple[int, str]] = field(default_factory=dict)

    def value(self, key: str, default: str) -> str:
        return self.values.get(key, (0, default))[1]


def meant(key: str) -> str | None:
    """The key of npd6 that was probably meant, which would be spelled in its own case."""
    return next((known for known in _KEYS if known.lower() == key.lower()), None)


def read(text: str, notes: Notes, _: Facts = NOTHING_KNOWN) -> list[Interface]:
    """The interfaces of the file; nothing if a mistake was noted."""
    found = _File()
    variables: dict[str, Value] = {}
    for line, key, value in _lines(text, notes):
        if key == "prefix":
            _prefix(line, value, found, notes)
        elif key == "interface":
            if problem := name_problem(value):
                notes.wrong(line, f"interface: {problem}{_comment_hint(value)}")
            found.names.append((line, value))
        elif key == "addrlist":
            if address := address_of(value):
                found.lists.append(_Entry(line, key, str(address)))
            else:
                notes.wrong(line, f"addrlist: must be one whole IPv6 address; found {quoted(value)}")
        elif key == "exprlist":
            try:
                Expression(value, variables, IPv6Network("::/0")).listed()
                found.lists.append(_Entry(line, key, value))
            except Wrong as wrong:
                notes.wrong(line, f"exprlist: {wrong}; found {quoted(value)}")
        else:
            _value(line, key, value, found, notes)
    if len(found.prefixes) != len(found.names):
        count = f"{len(found.prefixes)} prefixes and {len(found.names)} interfaces"
        notes.wrong(0, f"{count}; npd6 pairs them up in order, so write an interface for each prefix")
    elif not found.names:
        notes.wrong(0, "no prefix and no interface; write one of each")
    if notes.mistakes:
        return []
    interfaces = _pairs(found, notes)
    _lists(found, interfaces, notes)
    return interfaces


# --- What stands in the file ---


def _lines(text: str, notes: Notes) -> Iterator[tuple[int, str, str]]:
    """The lines that say something, each as its number, key and value."""
    for number, raw in enumerate(text.split("\n"), 1):
        line = without_space(raw)
        if not line or line.startswith(("#", "//")):
            continue
        key, equals, value = line.partition("=")
        long = len(raw.encode()) > _LINE
        if key not in _KEYS:
            known = meant(key) if equals else None
            hint = f"; keys are case-sensitive, {known} was probably meant" if known else ""
            notes.say(number, f"{quoted(line)}: left out: npd6 doesn't know it either, and passes over it{hint}")
        elif not value.strip("="):
            notes.say(number, f"{quoted(line)}: left out: it has no value, and npd6 passes over it")
        elif "=" in value and key != "exprlist":
            notes.wrong(number, f'{key}: one "=" and one value; found {quoted(line)}')
        elif long and key == "exprlist":
            notes.wrong(number, f"{key}: npd6 takes {_LINE} characters a line; write a shorter one")
        else:
            if long:
                notes.say(number, f"{key}: npd6 takes {_LINE} characters a line; this one is read whole", equal=True)
            yield number, key, value


def _comment_hint(value: str) -> str:
    return "; npd6 takes comments on lines of their own only" if "//" in value or "#" in value else ""


def _prefix(line: int, value: str, found: _File, notes: Notes) -> None:
    """`prefix`: groups with a colon after the last, "2001:db8:1:2:", or with a mask, "2001:db8:1:2::/56"."""
    rule = Rule(line, "static")
    found.prefixes.append(rule)
    text, slash, mask = value.partition("/")
    groups = re.fullmatch(r"((?:[0-9A-Fa-f]{1,4}:){1,7}):?", text)
    length = 16 * groups[1].count(":") if groups else 128  # as many bits as groups are written
    address = address_of((groups[1] + ("0" if length == 112 else ":")) if groups else text)
    if address is None or not (groups or slash or "::" not in text):
        hint = _comment_hint(value) or '; write its groups and a colon, such as "2001:db8:1:2:", or a mask'
        notes.wrong(line, f"prefix: not a prefix: {quoted(value)}{hint}")
    elif slash and not (re.fullmatch("[0-9]{1,3}", mask) and int(mask) <= 128):
        hint = _comment_hint(slash + mask)
        notes.wrong(line, f"prefix: a mask is a whole number from 0 to 128; found {quoted(value)}{hint}")
    else:
        rule.take(address, int(mask) if slash else length, value, notes)


def _value(line: int, key: str, value: str, found: _File, notes: Notes) -> None:
    """A key that may stand there once."""
    allowed, reason = _KEYS[key]
    if isinstance(allowed, int):
        right = re.fullmatch("[0-9]{1,10}", value) and int(value) <= allowed
        must = f"a whole number from 0 to {allowed}"
    else:
        right = value in allowed.split("|")
        must = allowed.replace("|", " or ")
    if not right:
        notes.wrong(line, f"{key}: must be {must}; found {quoted(value)}{_comment_hint(value)}")
    elif reason:
        notes.say(line, f"{key} = {value}: {reason}", equal=reason.startswith("not needed"))
    else:
        if key in found.values:
            earlier, instead = found.values[key]
            again = f"{key} = {instead}: left out: line {line} says {key} again, and the last counts"
            notes.say(earlier, again, equal=True)
        found.values[key] = line, value


# --- What becomes of it ---


def _pairs(found: _File, notes: Notes) -> list[Interface]:
    """The first prefix with the first interface, and so on; what one interface has, together."""
    interfaces: dict[str, Interface] = {}
    firsts: dict[tuple[str, IPv6Network], int] = {}
    for (line, name), rule in zip(found.names, found.prefixes, strict=True):
        interface = interfaces.setdefault(name, Interface(line, name))
        if rule.method and (first := firsts.setdefault((name, rule.network), rule.line)) != rule.line:
            text = f"{rule.prefix} on {name}: left out: the same as line {first}"
            notes.say(rule.line, text, equal=True)
            interface.remarks += rule.remarks
        else:
            interface.rules.append(rule)
    targets = int(found.value("collectTargets", "0"))
    for interface in interfaces.values():
        interface.router = found.value("routerNA", "true") == "true"
        interface.collect_targets = targets
        for rule in interface.rules:
            rule.router = interface.router
        if not interface.converted:
            notes.say(interface.line, f"interface {interface.name}: left out: no rule is left", interface.remarks)
    if targets and len(interfaces) > 1:
        line, _ = found.values["collectTargets"]
        text = f"collectTargets = {targets}: npd6 keeps as many in all, npd6-xdp for each interface"
        notes.say(line, text, equal=True)
    return list(interfaces.values())


def _lists(found: _File, interfaces: list[Interface], notes: Notes) -> None:
    """listtype, addrlist and exprlist: they hold for all prefixes, so each rule gets what of them lies in it."""
    kind = found.value("listtype", "none")
    if kind == "none":
        for entry in found.lists:
            text = f"{entry}: left out: npd6 uses lists only with listtype black or white"
            notes.say(entry.line, text, equal=True)
        return
    if not found.lists:
        notes.say(found.values["listtype"][0], f"listtype = {kind}: no addrlist and no exprlist follows", equal=True)
    for entry in [entry for entry in found.lists if entry.key == "exprlist"][_EXPRESSIONS:]:
        notes.say(entry.line, f"{entry}: left out: npd6 takes {_EXPRESSIONS}, and passes over more")
        found.lists.remove(entry)
    used: set[_Entry] = set()
    rules, entries = sum(len(interface.converted) for interface in interfaces), len(found.lists)
    if not notes.together(0, rules * entries, f"{rules} prefixes and {entries} entries of lists are too many"):
        return
    for interface in interfaces:
        networks = sorted(rule.network for rule in interface.converted)  # by address, the wider one first
        for rule in interface.converted:
            behind = map(networks.__getitem__, range(bisect_right(networks, rule.network), len(networks)))
            nested = list(takewhile(rule.network.supernet_of, behind))
            # what a longer prefix holds is that rule's own to say
            area = minus(span(rule.network), union(pair for network in nested for pair in span(network)))
            here: list[tuple[int, int]] = []
            for entry, these in _listed(kind, found.lists, rule, notes):
                listed = both(these or (), area)
                here += listed
                if listed or these is None:
                    used.add(entry)
            _apply(kind, rule, area, union(here), notes)
    for entry in found.lists:
        if entry not in used:
            reason = "lies in none of the prefixes" if entry.key == "addrlist" else "lists no address of any prefix"
            notes.say(entry.line, f"{entry}: left out: it {reason}")


def _listed(kind: str, entries: list[_Entry], rule: Rule, notes: Notes) -> Iterator[tuple[_Entry, Set | None]]:
    """What each entry lists, expressions under a rule's prefix; None if that is no range there, which is said."""
    variables: dict[str, Value] = {}  # an expression sees what those above it assigned
    for entry in entries:
        if entry.key == "addrlist":
            yield entry, span(IPv6Network(entry.value))
            continue
        these = Expression(entry.value, variables, rule.network).listed()
        if these is None:
            effect = "is answered" if kind == "black" else "is not answered"
            text = f"{entry}: left out: no plain range or mask under {rule.prefix}; what it lists {effect}"
            notes.say(entry.line, text, rule.remarks)
        elif not minus(span(rule.network), these):
            text = f"{entry}: it lists all of {rule.prefix}; npd6 takes operators left to right"
            notes.say(entry.line, text, rule.remarks)
        yield entry, these


def _apply(kind: str, rule: Rule, area: Set, listed: Set, notes: Notes) -> None:
    """Let a rule answer only what its list leaves of it."""
    answered = listed if kind == "white" else minus(area, listed)
    if area and not answered:
        rule.method = "ignore"
        if not listed:
            text = f"{rule.prefix}: no whitelist entry lies in it, so nothing is answered"
            notes.say(rule.line, text, rule.remarks)
    elif not minus(area, answered):
        return
    elif kind == "black":
        rule.exclude = [_selection(first, last) for first, last in listed]
    else:
        single = tuple((first, last) for first, last in listed if first == last)
        answerable = union((*single, *minus(listed, span(LINK_LOCAL))))
        if answerable != listed:
            text = f"{rule.prefix}: link-local targets of its whitelist are left out: never answered"
            notes.say(rule.line, text, rule.remarks)
        rule.include = [_selection(first, last) for first, last in answerable]
        if not answerable:
            rule.method = "ignore"


def _selection(first: int, last: int) -> str:
    """An entry of include or exclude: an address, a prefix or a range."""
    size = last - first + 1
    if size & (size - 1) == 0 and first % size == 0:
        return spelled(IPv6Network((first, 129 - size.bit_length())))
    return f"{IPv6Address(first)}-{IPv6Address(last)}"
