# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp convert`: npd6.conf or ndppd.conf in, our TOML out; what has no equal is said, never dropped.

Both grammars are read as npd6 1.1.0 (config.c, exparser.c) and ndppd 0.2.5 (conf.cc, proxy.cc) read them; where those
pass over what they can't use, it is a remark here, and where they would refuse or misread the file, a mistake.
"""

from __future__ import annotations

import json
import operator
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from npd6_xdp.core.errors import ConfigError, Mistake

_LINK_LOCAL = IPv6Network("fe80::/10")
_NEVER_ANSWERED = (IPv6Network("ff00::/8"), IPv6Network("::/127"))
_SPACE = " \t\n\v\f\r"  # isspace() in the C locale: what both programs skip
_ALL_ONES = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted file: `toml` is the text of ours, `remarks` what it can't say, as "FILE:LINE: what and why".

    Each remark stands in `toml` too, as a comment at its place. `kind` is what was read: "npd6.conf" or "ndppd.conf".
    """

    toml: str
    remarks: tuple[str, ...]
    kind: str


def convert(text: str, source: str) -> Converted:
    """Convert the text of an npd6.conf or ndppd.conf, told apart by content; `source` is the file's name.

    Raises ConfigError with every mistake, each at its line, for a file that is neither, or malformed.
    """
    text = text.removeprefix("\ufeff")
    notes = _Notes(source)
    kind = _kind(text, notes)
    reader = {"npd6.conf": _read_npd6, "ndppd.conf": _read_ndppd}.get(kind)
    interfaces = reader(text, notes) if reader else []
    if not notes.mistakes and not any(interface.converted for interface in interfaces):
        notes.wrong(0, "no rule is left that npd6-xdp could have")
        notes.mistakes += notes.said
    if notes.mistakes:
        raise notes.error()
    return Converted(_document(kind, notes, interfaces), notes.remarks(), kind)


def run(path: Path) -> int:
    """Convert a file: TOML on stdout, the remarks on stderr; returns 0. Raises ConfigError if it can't be."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), [Mistake("", f"can't read it: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [Mistake("", f"not UTF-8 text: byte {error.start} can't be decoded")]) from error
    converted = convert(text, str(path))
    print(f"npd6-xdp: {_plain(str(path))}: read as {converted.kind}", file=sys.stderr)
    for remark in converted.remarks:
        print(f"npd6-xdp: {remark}", file=sys.stderr)
    print(converted.toml, end="", flush=True)
    return 0


def _kind(text: str, notes: _Notes) -> str:
    """Which of the two a file is; the first line that only one of them would have decides."""
    bare = re.sub(rf"(?m)^[{_SPACE}]*(#|//).*$", "", text)
    bare = re.sub(r"(?s)/\*.*?\*/", "", bare)
    for line in bare.split("\n"):
        if line.startswith("[[interface"):
            notes.wrong(0, "this is npd6-xdp's own format already; see `npd6-xdp check --config`")
            return ""
        if re.match(rf"[{_SPACE}]*(proxy|route-ttl|address-ttl)([{_SPACE}={{]|$)", line):
            return "ndppd.conf"
        key, equals, _ = _without_space(line).partition("=")
        if equals and key.lower() in {known.lower() for known in _NPD6_KEYS}:
            return "npd6.conf"
    notes.wrong(0, "neither an npd6.conf (prefix = ..., interface = ...) nor an ndppd.conf (proxy IFACE { ... })")
    return ""


# --- What is said on the way ---


class _Notes:
    """The mistakes of a file, and the remarks on it."""

    def __init__(self, source: str) -> None:
        self.source = _plain(source)
        self.mistakes: list[tuple[int, str]] = []
        self.said: list[tuple[int, str]] = []
        self._top: list[tuple[int, str]] = []

    def wrong(self, line: int, message: str) -> None:
        """Note a mistake; line 0 is the whole file."""
        self.mistakes.append((line, message))

    def say(self, line: int, message: str, at: list[str] | None = None) -> None:
        """Note what has no equal: among the remarks, and among the comments at its place in the output, or on top."""
        self.said.append((line, message))
        if at is None:
            self._top.append((line, message))
        else:
            at.append(self._remark(line, message))

    def remarks(self) -> tuple[str, ...]:
        """All remarks."""
        return tuple(self._remark(line, message) for line, message in _in_order(self.said))

    def top(self) -> list[str]:
        """The remarks that belong to no interface."""
        return [self._remark(line, message) for line, message in _in_order(self._top)]

    def error(self) -> ConfigError:
        """All mistakes."""
        mistakes = [Mistake(f"line {line}" if line else "", message) for line, message in _in_order(self.mistakes)]
        return ConfigError(self.source, mistakes)

    def _remark(self, line: int, message: str) -> str:
        return f"{self.source}:{line}: {message}"


def _in_order(said: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """In the file's order."""
    return sorted(said, key=lambda entry: entry[0])


def _plain(text: str) -> str:
    """Text that may stand in a comment, on one line, whatever it holds."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _quoted(text: str) -> str:
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return f'"{_plain(short)}"'


def _without_space(text: str) -> str:
    return text.translate({ord(character): None for character in _SPACE})


# --- What is written ---


@dataclass(slots=True)
class _Rule:
    """An [[interface.rule]] to be; without a method only its remarks are written."""

    line: int
    network: IPv6Network
    method: str
    via: list[str] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    host_routes: bool = False
    router: bool = True
    remarks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Interface:
    """An [[interface]] to be."""

    line: int
    name: str
    rules: list[_Rule] = field(default_factory=list)
    router: bool = True
    collect_targets: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def converted(self) -> list[_Rule]:
        """The rules that have an equal."""
        return [rule for rule in self.rules if rule.method]


def _document(kind: str, notes: _Notes, interfaces: Iterable[_Interface]) -> str:
    """The whole TOML text: only keys that say something, each remark above what it is about."""
    top = notes.top()
    lines = [
        f"# Made by `npd6-xdp convert` from {notes.source}, an {kind}.",
        "# `npd6-xdp check --config FILE` validates what stands here and prints the table that results.",
        *(["#", "# What follows of that file has no equal:", *_comments(top)] if top else []),
    ]
    for interface in interfaces:
        rules = interface.converted
        lines += ["", *_comments(interface.remarks)]
        if not rules:
            lines += _comments([remark for rule in interface.rules for remark in rule.remarks])
            continue
        lines += ["[[interface]]", f"name = {_string(interface.name)}"]
        lines += [] if interface.router else ["router = false"]
        lines += [f"collect_targets = {interface.collect_targets}"] if interface.collect_targets else []
        for rule in interface.rules:
            lines += ["", *_comments(rule.remarks)]
            if rule.method:
                lines += _rule_lines(rule, interface.router)
    return "\n".join(lines) + "\n"


def _rule_lines(rule: _Rule, router: bool) -> list[str]:
    return [
        "[[interface.rule]]",
        f"prefix = {_string(_text(rule.network))}",
        f"method = {_string(rule.method)}",
        *(
            f"{key} = {_array(values)}"
            for key, values in (("via", rule.via), ("include", rule.include), ("exclude", rule.exclude))
            if values
        ),
        *([f"router = {str(rule.router).lower()}"] if rule.router != router else []),
        *(["host_routes = true"] if rule.host_routes else []),
    ]


def _comments(remarks: Iterable[str]) -> list[str]:
    return [f"# {remark}" for remark in remarks]


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # for printable text a TOML string, too


def _array(values: list[str]) -> str:
    strings = [_string(value) for value in values]
    line = f"[{', '.join(strings)}]"
    return line if len(line) <= 100 else "\n".join(["[", *(f"    {string}," for string in strings), "]"])


# --- What both have: addresses, names, prefixes ---


def _address(text: str) -> IPv6Address | None:
    """An address without a scope id."""
    try:
        return None if "%" in text else IPv6Address(text)
    except ValueError:
        return None


def _name_problem(name: str) -> str:
    """What is wrong with an interface's name (dev_valid_name in net/core/dev.c, which counts bytes); "" if nothing."""
    if not name or len(name.encode()) > 15:
        return f"an interface's name has 1 to 15 characters; found {_quoted(name)}"
    if ":" in name:
        return f'an interface\'s name holds no ":"; write the interface that {_quoted(name)} is an alias of'
    if not name.isprintable() or set(name) & set(" /\"';#{}") or name in {".", ".."}:
        return f"not an interface's name: {_quoted(name)}"
    if set(name) & set("*?["):
        return f"{_quoted(name)} would be a pattern for several interfaces in npd6-xdp; write the name of one"
    return ""


def _unanswerable(network: IPv6Network) -> str:
    """Why no rule can be made for a prefix; "" if one can."""
    if any(network.subnet_of(never) for never in _NEVER_ANSWERED):
        return "multicast addresses, :: and ::1 are never answered"
    if network.subnet_of(_LINK_LOCAL) and network.prefixlen < 128:
        return "link-local targets are answered only where a rule names the one address"
    return ""


def _network(address: IPv6Address, length: int, spelled: str, line: int, rule: _Rule, notes: _Notes) -> None:
    """Give a rule its prefix: masked, and without a method if it can't be had; each is said."""
    network = rule.network = IPv6Network((address, length), strict=False)
    if network.network_address != address:
        notes.say(line, f"{_quoted(spelled)} has host bits set; they don't count, it is {network}", rule.remarks)
    if reason := _unanswerable(network):
        notes.say(line, f"{_quoted(spelled)}: left out: {reason}", rule.remarks)
        rule.method = ""
    elif network.supernet_of(_LINK_LOCAL):
        notes.say(line, f"{_quoted(spelled)}: link-local and multicast targets in it are never answered", rule.remarks)


def _text(network: IPv6Network) -> str:
    """A prefix as a rule has it; a /128 is an address."""
    return str(network.network_address if network.prefixlen == 128 else network)


# --- Sets of addresses: ascending (first, last) pairs of integers that don't overlap ---

_Set = tuple[tuple[int, int], ...]


def _span(network: IPv6Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _union(pairs: Iterable[tuple[int, int]]) -> _Set:
    """Pairs in order, with those joined that overlap."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _minus(these: _Set, those: _Set) -> _Set:
    left: list[tuple[int, int]] = []
    at = 0
    for first, last in these:
        while at < len(those) and those[at][0] <= last:
            low, high = those[at]
            if first < low:
                left.append((first, low - 1))
            first = max(first, high + 1)
            if high > last:
                break  # it may reach into the next
            at += 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def _both(these: _Set, those: _Set) -> _Set:
    return _minus(these, _minus(these, those))


# --- npd6.conf ---

_NPD6_KEYS = {
    "prefix": "",
    "interface": "",
    "listtype": "",
    "addrlist": "",
    "exprlist": "",
    "collectTargets": "",
    "routerNA": "",
    "linkOption": "not needed: the target link-layer address option is always sent",
    "ignoreLocal": "not needed: the kernel always answers for the interface's own addresses, npd6-xdp never does",
    "maxHops": "not needed: the hop limit is always 255, receivers must drop any other (RFC 4861, 7.1.1)",
    "pollErrorLimit": "not needed: an interface may go, and come again later",
    "listlogging": 'no equal: the metrics count what a list keeps out, by outcome "ignored"',
    "ralogging": "no equal: Router Advertisements are not read",
}
_NPD6_VALUES = {
    "listtype": "none|black|white",
    "routerNA": "true|false",
    "linkOption": "true|false",
    "ignoreLocal": "true|false",
    "listlogging": "on|off",
    "ralogging": "on|off",
}
_NPD6_WHOLE = {"collectTargets": 1_000_000, "maxHops": 255, "pollErrorLimit": 2**31 - 1}
_NPD6_LINE = 127
"""Bytes of a line that npd6 reads at once, its end included; it takes the rest for a line of its own."""
_NPD6_EXPRESSIONS = 64


@dataclass(slots=True)
class _Npd6:
    """What stands in an npd6.conf. Of what may stand there once, the last counts."""

    prefixes: list[_Rule] = field(default_factory=list)
    names: list[tuple[int, str]] = field(default_factory=list)
    addresses: list[tuple[int, IPv6Address]] = field(default_factory=list)
    expressions: list[tuple[int, str]] = field(default_factory=list)
    values: dict[str, tuple[int, str]] = field(default_factory=dict)

    def value(self, key: str, default: str) -> str:
        return self.values.get(key, (0, default))[1]


def _read_npd6(text: str, notes: _Notes) -> list[_Interface]:
    found = _Npd6()
    names: dict[str, _Value] = {}
    for line, key, value in _npd6_lines(text, notes):
        if key == "prefix":
            _npd6_prefix(line, value, found, notes)
        elif key == "interface":
            if problem := _name_problem(value):
                notes.wrong(line, f"interface: {problem}{_comment_hint(value)}")
            found.names.append((line, value))
        elif key == "addrlist":
            if address := _address(value):
                found.addresses.append((line, address))
            else:
                notes.wrong(line, f"addrlist: must be one whole IPv6 address; found {_quoted(value)}")
        elif key == "exprlist":
            try:
                _Expression(value, names, IPv6Network("::/0")).value()
                found.expressions.append((line, value))
            except _Wrong as wrong:
                notes.wrong(line, f"exprlist: {wrong}; found {_quoted(value)}")
        else:
            _npd6_value(line, key, value, found, notes)
    if len(found.prefixes) != len(found.names):
        count = f"{len(found.prefixes)} prefixes and {len(found.names)} interfaces"
        notes.wrong(0, f"{count}; npd6 pairs them up in order, so write an interface for each prefix")
    elif not found.names:
        notes.wrong(0, "no prefix and no interface; write one of each")
    if notes.mistakes:
        return []
    interfaces = _npd6_pairs(found, notes)
    _npd6_lists(found, interfaces, notes)
    return interfaces


def _npd6_lines(text: str, notes: _Notes) -> Iterator[tuple[int, str, str]]:
    """The lines that say something, each as its number, key and value."""
    for number, raw in enumerate(text.split("\n"), 1):
        line = _without_space(raw)
        if not line or line.startswith(("#", "//")):
            continue
        key, equals, value = line.partition("=")
        meant = next((known for known in _NPD6_KEYS if known.lower() == key.lower()), None)
        if key not in _NPD6_KEYS:
            hint = f"; keys are case-sensitive, {meant} was probably meant" if meant and equals else ""
            notes.say(number, f"{_quoted(line)}: left out: npd6 doesn't know it either, and passes over it{hint}")
        elif not value.strip("="):
            notes.say(number, f"{_quoted(line)}: left out: it has no value, and npd6 passes over it")
        elif "=" in value and key != "exprlist":
            notes.wrong(number, f'{key}: one "=" and one value; found {_quoted(line)}')
        elif len(raw.encode()) >= _NPD6_LINE and key == "exprlist":
            notes.wrong(number, f"{key}: npd6 takes {_NPD6_LINE - 1} characters a line; write a shorter one")
        else:
            if len(raw.encode()) >= _NPD6_LINE:
                notes.say(number, f"{key}: npd6 takes {_NPD6_LINE - 1} characters a line; this one is read whole")
            yield number, key, value


def _comment_hint(value: str) -> str:
    return "; npd6 takes comments on lines of their own only" if "//" in value or "#" in value else ""


def _npd6_prefix(line: int, value: str, found: _Npd6, notes: _Notes) -> None:
    """`prefix`: groups with a colon after the last, "2001:db8:1:2:", or with a mask, "2001:db8:1:2::/56"."""
    rule = _Rule(line, IPv6Network("::/0"), "static")
    found.prefixes.append(rule)
    text, slash, mask = value.partition("/")
    groups = re.fullmatch(r"((?:[0-9A-Fa-f]{1,4}:){1,7}):?", text)
    length = 16 * groups[1].count(":") if groups else 128  # as many bits as groups are written
    address = _address((groups[1] + ("0" if length == 112 else ":")) if groups else text)
    if address is None or not (groups or slash or "::" not in text):
        hint = _comment_hint(value) or '; write its groups and a colon, such as "2001:db8:1:2:", or a mask'
        notes.wrong(line, f"prefix: not a prefix: {_quoted(value)}{hint}")
    elif slash and not (re.fullmatch("[0-9]{1,3}", mask) and int(mask) <= 128):
        hint = _comment_hint(value[len(text) :])
        notes.wrong(line, f"prefix: a mask is a whole number from 0 to 128; found {_quoted(value)}{hint}")
    else:
        _network(address, int(mask) if slash else length, value, line, rule, notes)


def _npd6_value(line: int, key: str, value: str, found: _Npd6, notes: _Notes) -> None:
    """A key that may stand there once."""
    choices = _NPD6_VALUES.get(key, "").split("|")
    if key in _NPD6_VALUES and value not in choices:
        notes.wrong(line, f"{key}: must be {' or '.join(choices)}; found {_quoted(value)}{_comment_hint(value)}")
    elif (high := _NPD6_WHOLE.get(key)) is not None and not (re.fullmatch("[0-9]{1,10}", value) and int(value) <= high):
        message = f"must be a whole number from 0 to {high}; found {_quoted(value)}{_comment_hint(value)}"
        notes.wrong(line, f"{key}: {message}")
    elif reason := _NPD6_KEYS[key]:
        notes.say(line, f"{key} = {value}: {reason}")
    else:
        if key in found.values:
            earlier, instead = found.values[key]
            notes.say(earlier, f"{key} = {instead}: left out: line {line} says {key} again, and the last counts")
        found.values[key] = line, value


def _npd6_pairs(found: _Npd6, notes: _Notes) -> list[_Interface]:
    """The first prefix with the first interface, and so on; what one interface has, together."""
    interfaces: dict[str, _Interface] = {}
    for (line, name), rule in zip(found.names, found.prefixes, strict=True):
        interface = interfaces.setdefault(name, _Interface(line, name))
        same = [other for other in interface.rules if other.network == rule.network and other.method]
        if same and rule.method:
            notes.say(rule.line, f"{_text(rule.network)} on {name}: left out: the same as line {same[0].line}")
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
        notes.say(line, f"collectTargets = {targets}: npd6 keeps as many in all, npd6-xdp for each interface")
    return list(interfaces.values())


def _npd6_lists(found: _Npd6, interfaces: list[_Interface], notes: _Notes) -> None:
    """listtype, addrlist and exprlist: they hold for all prefixes, so each rule gets what of them lies in it."""
    kind = found.value("listtype", "none")
    if kind == "none":
        entries = [(line, f"addrlist = {address}") for line, address in found.addresses]
        entries += [(line, f"exprlist = {_plain(text)}") for line, text in found.expressions]
        for line, entry in entries:
            notes.say(line, f"{entry}: left out: npd6 uses lists only with listtype black or white")
        return
    if not found.addresses and not found.expressions:
        notes.say(found.values["listtype"][0], f"listtype = {kind}: no addrlist and no exprlist follows")
    for line, text in found.expressions[_NPD6_EXPRESSIONS:]:
        notes.say(line, f"exprlist = {_plain(text)}: left out: npd6 takes {_NPD6_EXPRESSIONS}, and passes over more")
    del found.expressions[_NPD6_EXPRESSIONS:]
    used: set[int] = set()
    for interface in interfaces:
        for rule in interface.converted:
            nested = [other.network for other in interface.converted if other.network != rule.network]
            nested = [network for network in nested if network.subnet_of(rule.network)]
            # what a longer prefix holds is that rule's own to say
            area = _minus((_span(rule.network),), _union(_span(network) for network in nested))
            here: list[tuple[int, int]] = []
            for line, these in _npd6_listed(kind, found, rule, notes):
                listed = _both(these or (), area)
                here += listed
                if listed or these is None:
                    used.add(line)
            _apply(kind, rule, area, _union(here), notes)
    for line, address in found.addresses:
        if line not in used:
            notes.say(line, f"addrlist = {address}: left out: it lies in none of the prefixes")
    for line, text in found.expressions:
        if line not in used:
            notes.say(line, f"exprlist = {_plain(text)}: left out: it lists no address of any prefix")


def _npd6_listed(kind: str, found: _Npd6, rule: _Rule, notes: _Notes) -> Iterator[tuple[int, _Set | None]]:
    """What each entry lists, expressions under a rule's prefix; None if that is no range there, which is said."""
    for line, address in found.addresses:
        yield line, ((int(address), int(address)),)
    names: dict[str, _Value] = {}  # an expression sees what those above it assigned
    for line, text in found.expressions:
        expression = _Expression(text, names, rule.network)
        these = expression.truth(expression.value())
        about = f"exprlist = {_plain(text)}"
        if these is None:
            effect = "is answered" if kind == "black" else "is not answered"
            about += f": left out: no plain range or mask under {_text(rule.network)}; what it lists {effect}"
            notes.say(line, about, rule.remarks)
        elif not _minus((_span(rule.network),), these):
            about += f": it lists all of {_text(rule.network)}; npd6 takes operators left to right"
            notes.say(line, about, rule.remarks)
        yield line, these


def _apply(kind: str, rule: _Rule, area: _Set, listed: _Set, notes: _Notes) -> None:
    """Let a rule answer only what its list leaves of it."""
    answered = listed if kind == "white" else _minus(area, listed)
    if area and not answered:
        rule.method = "ignore"
        if not listed:
            text = f"{_text(rule.network)}: no whitelist entry lies in it, so nothing is answered"
            notes.say(rule.line, text, rule.remarks)
    elif not _minus(area, answered):
        return
    elif kind == "black":
        rule.exclude = [_range(first, last) for first, last in listed]
    else:
        single = tuple((first, last) for first, last in listed if first == last)
        answerable = _union((*single, *_minus(listed, (_span(_LINK_LOCAL),))))
        if answerable != listed:
            text = f"{_text(rule.network)}: link-local targets of its whitelist are left out: never answered"
            notes.say(rule.line, text, rule.remarks)
        rule.include = [_range(first, last) for first, last in answerable]
        if not answerable:
            rule.method = "ignore"


def _range(first: int, last: int) -> str:
    """An entry of include or exclude: an address, a prefix or a range."""
    size = last - first + 1
    if size & (size - 1) == 0 and first % size == 0:
        return _text(IPv6Network((first, 129 - size.bit_length())))
    return f"{IPv6Address(first)}-{IPv6Address(last)}"


# --- npd6's expressions: 64-bit C, but with only two levels of precedence (+ and - bind least) ---


@dataclass(frozen=True, slots=True)
class _Bits:
    """A part of the target: the address's bits of `mask`, moved to the right by `shift`."""

    mask: int
    shift: int


_Value = int | _Bits | _Set | None
"""A number; a part of the target; the addresses for which it is 1, not 0; or what none of these can say."""
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_TERM = {"*", "/", "%", "&", "|", "^", "<<", ">>", "&&", "||", *_COMPARISONS}
_TOKEN = re.compile(r"0[xX][0-9A-Fa-f]+|[0-9]+|[A-Za-z$.][A-Za-z0-9$.]*|&&|\|\||[!=<>]=|<<|>>|[-+*/%^~,()&|!=<>;]|.")


class _Wrong(Exception):
    """An expression can't be read; the text says why."""


class _Expression:
    """One exprlist, evaluated for all addresses of a prefix at once; `names` are its variables, and are added to."""

    def __init__(self, text: str, names: dict[str, _Value], network: IPv6Network) -> None:
        self._tokens = [*_TOKEN.findall(text), ""]
        self._names = names
        names.setdefault("PREFIX", _Bits(_ALL_ONES << 64, 64))
        names.setdefault("HOST", _Bits(_ALL_ONES, 0))
        self._all: _Set = (_span(network),)

    def value(self) -> _Value:
        """What its last statement says."""
        value: _Value = 0
        while self._tokens != [""]:
            if not self._take(";"):
                value = self._sum()
                if self._tokens[0] not in {"", ";"}:
                    raise _Wrong(f"unexpected {_quoted(self._tokens[0])}")
        return value

    def truth(self, value: _Value) -> _Set | None:
        """The addresses for which a value isn't 0."""
        if isinstance(value, _Bits):
            return self._compare(value, "!=", 0)
        return (self._all if value else ()) if isinstance(value, int) else value

    def _take(self, token: str) -> bool:
        if self._tokens[0] != token:
            return False
        self._tokens.pop(0)
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise _Wrong(f'"{token}" is missing before {_quoted(self._tokens[0]) if self._tokens[0] else "the end"}')

    def _sum(self) -> _Value:
        left = self._term()
        while (sign := self._tokens[0]) in {"+", "-"}:
            self._tokens.pop(0)
            left = self._apply(left, sign, self._term())
        return left

    def _term(self) -> _Value:
        left = self._primary()
        while (sign := self._tokens[0]) in _TERM:
            self._tokens.pop(0)
            left = self._apply(left, sign, self._primary())
        return left

    def _primary(self) -> _Value:
        word = self._tokens.pop(0) if self._tokens[0] else ""
        if word == "(":
            value = self._sum()
            self._expect(")")
            return value
        if word in {"+", "-", "~", "!"}:
            return self._sign(word, self._primary())
        if re.match("[0-9]", word):
            return min(_number(word), _ALL_ONES)  # as strtoull() has it
        if re.match("[A-Za-z$.]", word):
            if word.lower() in {"abs", "mask"}:
                return self._function(word.lower())
            if self._take("="):
                self._names[word] = self._sum()
            return self._names.get(word, 0)
        raise _Wrong(f"a value is missing before {_quoted(word) if word else 'the end'}")

    def _sign(self, sign: str, value: _Value) -> _Value:
        if sign == "!":
            true = self.truth(value)
            return None if true is None else _minus(self._all, true)
        if sign == "+":
            return value
        if not isinstance(value, int):
            return None
        return (-value if sign == "-" else ~value) & _ALL_ONES

    def _function(self, name: str) -> _Value:
        """abs(x), and mask(a, b): the bits from a to b."""
        self._expect("(")
        first = self._sum()
        second: _Value = 0
        if name == "mask":
            self._expect(",")
            second = self._sum()
        self._expect(")")
        if not isinstance(first, int) or not isinstance(second, int):
            return None
        if name == "abs":
            return -first & _ALL_ONES if first >> 63 else first
        low, high = sorted((min(first, 63), min(second, 63)))
        return ((1 << (high + 1)) - 1) & ~((1 << low) - 1)

    def _apply(self, left: _Value, sign: str, right: _Value) -> _Value:
        if sign in {"/", "%"} and right == 0 and isinstance(right, int):
            raise _Wrong("it divides by 0")
        if left is None or right is None:
            return None
        if sign in {"&&", "||"} or (sign in {"&", "|"} and isinstance(left, tuple) and isinstance(right, tuple)):
            these, those = self.truth(left), self.truth(right)
            if these is None or those is None:
                return None
            return _both(these, those) if sign in {"&", "&&"} else _union((*these, *those))
        if isinstance(left, int) and isinstance(right, int):
            return _calculate(left, sign, right)
        if sign in _COMPARISONS and isinstance(right, int):
            return self._compare(left, sign, right)
        if sign in _COMPARISONS and isinstance(left, int):
            return self._compare(right, _MIRRORED[sign], left)
        if sign == "&" and isinstance(left, int):
            left, right = right, left
        if isinstance(left, _Bits) and isinstance(right, int):
            if sign == "&":
                return _Bits(left.mask & (right << left.shift), left.shift)
            if sign == ">>" and right < 64:
                return _Bits(left.mask >> (left.shift + right) << (left.shift + right), left.shift + right)
        return None

    def _compare(self, left: _Value, sign: str, number: int) -> _Set | None:
        """The addresses for which the comparison holds; None if they are no range, or unknown."""
        compare = _COMPARISONS[sign]
        if isinstance(left, tuple):
            true = left if compare(1, number) else ()
            return _union((*true, *(_minus(self._all, left) if compare(0, number) else ())))
        if not isinstance(left, _Bits):
            return None
        ((first, last),) = self._all
        open_bits = first ^ last  # ones, to the right
        mask = left.mask & open_bits
        step = (mask & -mask) or open_bits + 1
        if mask and mask + step != open_bits + 1:
            return None  # a bit above the mask is open: the range would come again and again

        def below(bound: int) -> int:
            """The first address whose part is `bound` or more; the part grows with the address."""
            low, high = 0, (last - first + 1) // step
            while low < high:
                middle = (low + high) // 2
                if ((first + middle * step) & left.mask) >> left.shift < bound:
                    low = middle + 1
                else:
                    high = middle
            return first + low * step

        less, not_more = below(number), below(number + 1)
        parts = (("<", first, less - 1), ("==", less, not_more - 1), (">", not_more, last))
        holds = {"<": compare(0, 1), "==": compare(0, 0), ">": compare(1, 0)}
        joined: list[tuple[int, int]] = []
        for which, low, high in parts:
            if holds[which] and low <= high:
                adjoins = joined and joined[-1][1] == low - 1
                joined = [*joined[:-1], (joined[-1][0], high)] if adjoins else [*joined, (low, high)]
        return tuple(joined)


def _number(token: str) -> int:
    if token[:2] in {"0x", "0X"}:
        return int(token, 16)
    if token.startswith("0") and not re.fullmatch("[0-7]+", token):
        raise _Wrong(f"{_quoted(token)} is no octal number")
    return int(token, 8 if token.startswith("0") else 10)


def _calculate(left: int, sign: str, right: int) -> int | None:
    """Two numbers, as C has it for unsigned 64 bits."""
    if sign in _COMPARISONS:
        return int(_COMPARISONS[sign](left, right))
    if sign in {"<<", ">>"} and right > 63:
        return None  # C leaves it undefined
    operators: dict[str, Callable[[int, int], int]] = {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": operator.floordiv,
        "%": operator.mod,
        "&": operator.and_,
        "|": operator.or_,
        "^": operator.xor,
        "<<": operator.lshift,
        ">>": operator.rshift,
    }
    return operators[sign](left, right) & _ALL_ONES


# --- ndppd.conf: its blocks ---


@dataclass(slots=True)
class _Item:
    """`key value { items }`; without braces `items` is None."""

    line: int
    key: str
    value: str
    items: list[_Item] | None = None


class _Blocks:
    """Reads ndppd's blocks. A value, and the brace after it, stand on the line of their key."""

    DEPTH = 16

    def __init__(self, text: str, notes: _Notes) -> None:
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
                self._wrong('this "}" closes nothing')
        return items

    @property
    def _line(self) -> int:
        return bisect_right(self._ends, self._at - 1) + 1

    def _wrong(self, message: str) -> None:
        self._notes.wrong(self._line, message)

    def _match(self, pattern: str) -> str:
        match = re.compile(pattern, re.DOTALL).match(self._text, self._at)
        if not match:
            return ""
        self._at = match.end()
        return match[0]

    def _skip(self, space: str) -> None:
        """White space and comments: # and // to the line's end, /* */ over lines too."""
        while self._match(rf"[{space}]+|(#|//)[^\n]*|/\*/|/\*.*?(\*/|\Z)"):
            pass

    def _block(self, depth: int) -> list[_Item]:
        """Items up to a closing brace or the end."""
        items: list[_Item] = []
        while True:
            self._skip(_SPACE)
            if self._at >= len(self._text) or self._text[self._at] == "}":
                return items
            line = self._line
            key = self._match("[A-Za-z0-9_-]+")
            if not key:
                self._stray()
                if not self._text.startswith("{", self._at):
                    continue
            self._skip(_SPACE.replace("\n", ""))
            if key and self._match("="):
                self._skip(_SPACE.replace("\n", ""))
            item = _Item(line, key, self._value() if key else "")
            self._skip(_SPACE.replace("\n", ""))
            if self._match(r"\{"):
                item.items = self._braces(item, depth)
            if key:
                items.append(item)

    def _stray(self) -> None:
        if self._text.startswith("{", self._at):
            self._wrong('this "{" belongs on the line of what it opens; ndppd looks for it nowhere else')
        else:
            stray = self._match(r"[^ \t\n\v\f\r{}]+")
            self._wrong(f"unexpected {_quoted(stray)}")

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


# --- ndppd.conf: what it says ---

_KERNEL_TIMERS = "no equal: the kernel's neighbour table has timers of its own (net.ipv6.neigh.IFACE)"
_NDPPD_TOP = {
    "route-ttl": "not needed: the kernel looks each target up in its routing table",
    "address-ttl": "not needed: npd6-xdp follows addresses as they change",
}
_NDPPD_PROXY = {
    "ttl": _KERNEL_TIMERS,
    "deadtime": _KERNEL_TIMERS,
    "timeout": _KERNEL_TIMERS,
    "retries": f"{_KERNEL_TIMERS}: mcast_solicit",
    "keepalive": "not needed: the kernel probes the hosts of its neighbour table",
    "promiscuous": "not needed: npd6-xdp has the interface receive all multicast",
}
_NDPPD_RULE = {"autovia": "no equal: host_routes lead straight to the via interface, gateways are the routing table's"}
_METHODS = {"static": "static", "auto": "route", "iface": "neighbour"}


@dataclass(slots=True)
class _Section:
    """What of a `proxy` section holds for its rules."""

    router: bool
    autowire: bool


def _read_ndppd(text: str, notes: _Notes) -> list[_Interface]:
    interfaces: dict[str, _Interface] = {}
    for item in _Blocks(text, notes).read():
        if item.key == "proxy":
            _proxy(item, interfaces, notes)
        else:
            _left_out(item, _NDPPD_TOP, notes, None)
    if not interfaces and not notes.mistakes:
        notes.wrong(0, "no proxy section")
    if notes.mistakes:
        return []
    for interface in interfaces.values():
        interface.rules = _one_rule_a_prefix(interface.rules, notes)
        if not interface.converted:
            notes.say(interface.line, f"proxy {interface.name}: left out: no rule is left", interface.remarks)
    routes = [rule for interface in interfaces.values() for rule in interface.converted if rule.method == "route"]
    if routes:
        text = "auto: ndppd asks for the host where its route leads, method route answers by the route alone"
        notes.say(routes[0].line, f'{text}; to ask for it, write method = "neighbour" and via', routes[0].remarks)
    return list(interfaces.values())


def _left_out(item: _Item, known: dict[str, str], notes: _Notes, at: list[str] | None) -> None:
    reason = known.get(item.key, "left out: ndppd doesn't know it here either, and passes over it")
    block = " { ... }" if item.items is not None else ""
    notes.say(item.line, f"{item.key} {_plain(item.value)}".rstrip() + f"{block}: {reason}", at)


def _firsts(items: list[_Item], keys: set[str], notes: _Notes, at: list[str]) -> dict[str, _Item]:
    """Of what may stand there once, the first, as ndppd takes it."""
    firsts: dict[str, _Item] = {}
    for item in items:
        if item.key in keys and (first := firsts.setdefault(item.key, item)) is not item:
            text = f"{item.key} {_plain(item.value)}".rstrip()
            notes.say(item.line, f"{text}: left out: line {first.line} says {item.key}, and the first counts", at)
    return firsts


def _yes(item: _Item | None, default: bool, notes: _Notes, at: list[str]) -> bool:
    if item is None:
        return default
    if item.value.lower() not in {"yes", "true", "no", "false"}:
        notes.say(item.line, f"{item.key} {_quoted(item.value)}: ndppd takes all but yes and true for no", at)
    return item.value.lower() in {"yes", "true"}


def _proxy(item: _Item, interfaces: dict[str, _Interface], notes: _Notes) -> None:
    """A `proxy` section: its rules, raw, go to its interface's."""
    if problem := _name_problem(item.value):
        notes.wrong(item.line, f"proxy: {problem}")
    again = item.value in interfaces
    interface = interfaces.setdefault(item.value, _Interface(item.line, item.value))
    at: list[str] = []
    options = _firsts(item.items or [], {"router", "autowire"}, notes, at)
    section = _Section(_yes(options.get("router"), True, notes, at), _yes(options.get("autowire"), False, notes, at))
    if again:
        text = f"proxy {_plain(item.value)}: merged with line {interface.line}"
        notes.say(item.line, f"{text}; ndppd itself listens only by the last of an interface's sections", at)
    else:
        interface.router = section.router
    methods = []
    for inner in item.items or []:
        if inner.key == "rule":
            methods += [rule.method for rule in _ndppd_rule(inner, item.value, section, interface, notes)]
        elif inner.key not in options:
            _left_out(inner, _NDPPD_PROXY, notes, at)
    if section.autowire and "neighbour" not in methods:
        notes.say(options["autowire"].line, "autowire: it adds routes by iface rules, and here is none", at)
    interface.remarks += at


def _ndppd_rule(item: _Item, port: str, section: _Section, interface: _Interface, notes: _Notes) -> Iterator[_Rule]:
    """A `rule` of a section; none if it is a mistake."""
    rule = _Rule(item.line, IPv6Network("::/0"), "", router=section.router)
    written = re.fullmatch(rf"[{_SPACE}]*([0-9A-Fa-f:]+)[{_SPACE}]*(?:/[{_SPACE}]*([0-9]{{1,3}}))?", item.value)
    address, length = (_address(written[1]), int(written[2] or 128)) if written else (None, 0)
    if address is None or length > 128:
        message = f"rule: must be an IPv6 address or prefix, in hex and colons; found {_quoted(item.value)}"
        notes.wrong(item.line, message)
        return
    options = _firsts(item.items or [], {*_METHODS}, notes, rule.remarks)
    for inner in item.items or []:
        if inner.key not in _METHODS:
            _left_out(inner, _NDPPD_RULE, notes, rule.remarks)
    if len(options) > 1:
        lines = " and ".join(f"{key} (line {option.line})" for key, option in options.items())
        notes.wrong(item.line, f"rule: {lines}; only one of static, auto and iface is possible")
        return
    if not options:
        text = "rule without static, auto or iface: static, as ndppd's manual has it; 0.2.5 itself refuses it"
        notes.say(item.line, text, rule.remarks)
    for key, option in options.items():
        if key != "iface" and option.value:
            notes.say(option.line, f"{key} {_plain(option.value)}: {key} takes no value, it is {key}", rule.remarks)
    rule.method = next((_METHODS[key] for key in options), "static")
    if "iface" in options and not _ndppd_iface(options["iface"], port, rule, notes):
        return
    rule.host_routes = section.autowire and rule.method == "neighbour"
    _network(address, length, item.value, item.line, rule, notes)
    interface.rules.append(rule)
    yield rule


def _ndppd_iface(option: _Item, port: str, rule: _Rule, notes: _Notes) -> bool:
    """`iface`: the interface that the rule asks on; whether it can be one."""
    if problem := _name_problem(option.value):
        notes.wrong(option.line, f"iface: {problem}")
        return False
    if option.value == port:
        notes.wrong(option.line, f"iface {port}: the question comes from there; name the other side's interface")
        return False
    rule.via = [option.value]
    return True


def _one_rule_a_prefix(rules: list[_Rule], notes: _Notes) -> list[_Rule]:
    """ndppd asks by all rules that hold the target, we by the longest prefix alone: let that one say it all."""
    kept: dict[IPv6Network, list[_Rule]] = {}  # the first of a prefix is what becomes of all
    result: list[_Rule] = []
    for rule in rules:
        if rule.method and rule.network in kept:
            kept[rule.network].append(rule)
            kept[rule.network][0].remarks += rule.remarks
        else:
            result.append(rule)
            if rule.method:
                kept[rule.network] = [rule]
    says = [(rule, _together(rule, kept, notes)) for rule in result if rule.method]
    for rule, (method, via, host_routes) in says:  # afterwards: each looks at what the others say
        rule.method, rule.via, rule.host_routes = method, via, host_routes
    return result


def _together(rule: _Rule, kept: dict[IPv6Network, list[_Rule]], notes: _Notes) -> tuple[str, list[str], bool]:
    """Method, via and host_routes of what holds for a rule's prefix, by all rules there; what is lost is said."""
    same = kept[rule.network][1:]
    around = [rule.network.supernet(new_prefix=length) for length in range(rule.network.prefixlen)]
    wider = [other for network in around for other in kept.get(network, ())]
    holding = [rule, *same, *sorted(wider, key=lambda other: other.line)]
    where = _text(rule.network)
    for other in same:
        if (other.method, other.via) == (rule.method, rule.via):
            notes.say(other.line, f"rule {where}: left out: the same as line {rule.line}", rule.remarks)
        if other.router != rule.router:
            text = f"rule {where}: its router is left out: line {rule.line} is for the same prefix, the first counts"
            notes.say(other.line, text, rule.remarks)
    methods = {other.method for other in holding}
    lines = ", ".join(str(other.line) for other in holding[1:] if other.method != rule.method)
    if "static" in methods:
        if len(methods) > 1:
            text = f"rule {where}: static, since what holds the target answers at once: see lines {rule.line}, {lines}"
            notes.say(rule.line, text, rule.remarks)
        return "static", [], False
    if len(methods) > 1:
        text = f"rule {where}: here it alone decides; ndppd asks by the rules of these lines too: {lines}"
        notes.say(rule.line, text, rule.remarks)
    holding = [other for other in holding if other.method == rule.method]
    via = list(dict.fromkeys(name for other in holding for name in other.via))
    if set(via) - {name for other in (rule, *same) for name in other.via}:
        text = f"rule {where}: via has the interfaces of the wider rules too, which ndppd asks as well"
        notes.say(rule.line, text, rule.remarks)
    return rule.method, via, any(other.host_routes for other in holding)
