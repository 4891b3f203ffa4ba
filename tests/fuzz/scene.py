# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration as the reference sees it: the structs of reference.h and run.c, and what is in them.

It reads the configuration's text with tomllib and ipaddress alone, so that npd6_xdp's reading is compared as well.
"""

from __future__ import annotations

import ctypes as ct
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv6Address, IPv6Interface, IPv6Network, summarize_address_range
from typing import Any

from npd6_xdp.core.verdict import Limit, Outcome, Reason
from tests.fuzz.configurations import (
    ASKER_MACS,
    BRIDGE_MAC,
    FOREIGN_MAC,
    MACS,
    UNREACHABLE,
    VLAN_DEVICE,
    Configuration,
    Side,
)

NONE = -1
FRAME_SPACE, ANSWER_MAX, EVENT_SIZE = 8192, 96, 52
METHODS = ("static", "route", "neighbour", "kernel", "ignore")
DATAPATHS = ("hybrid", "python", "monitor")
OUTCOMES = len(Outcome)
REASONS = len(Reason)
LIMITS = len(Limit)

_I = ct.c_int32


class Address(ct.Structure):
    _fields_ = (("byte", ct.c_uint8 * 16),)


class Mac(ct.Structure):
    _fields_ = (("byte", ct.c_uint8 * 6),)


class Span(ct.Structure):
    _fields_ = (("first", Address), ("last", Address))


class Rule(ct.Structure):
    _fields_ = (
        ("network", Address),
        *((name, _I) for name in ("length", "number", "method", "router", "defend", "by_interface", "hosts")),
        *((name, _I) for name in ("vias", "includes", "excludes")),
        ("via", ct.POINTER(_I)),
        ("include", ct.POINTER(Span)),
        ("exclude", ct.POINTER(Span)),
    )


class Entry(ct.Structure):
    _fields_ = (
        *((name, _I) for name in ("number", "port", "outer", "inner", "l3", "datapath", "shared", "hears", "guarded")),
        *((name, _I) for name in ("silent", "standby", "budgeted")),
        ("mac", Mac),
        ("port_mac", Mac),
        *((name, _I) for name in ("rules", "owns", "next_hops", "sources")),
        ("rule", ct.POINTER(Rule)),
        *((name, ct.POINTER(Address)) for name in ("own", "next_hop", "source")),
    )


class Host(ct.Structure):
    _fields_ = (("set", _I), ("is_stale", _I), ("was_stale", _I), ("address", Address))


class Route(ct.Structure):
    _fields_ = (("network", Address), ("length", _I), ("out", _I))


class Kept(ct.Structure):
    _fields_ = (("entry", _I), ("is_there", _I), ("target", Address))


class Heard(ct.Structure):
    _fields_ = (("entry", _I), ("address", Address), ("mac", Mac))


class Answered(ct.Structure):
    _fields_ = (("entry", _I), ("target", Address))


class RefusedAsker(ct.Structure):
    _fields_ = (("entry", _I), ("mac", Mac))


class Tags(ct.Structure):
    _fields_ = (("length", _I), ("byte", ct.c_uint8 * 12))


_LISTS: tuple[tuple[str, str, Any], ...] = (
    ("entries", "entry", Entry),
    ("elsewheres", "elsewhere", Address),
    ("hosts", "host", Host),
    ("routes", "route", Route),
    ("kepts", "kept", Kept),
    ("answereds", "answered", Answered),
    ("refused_askers", "refused_asker", RefusedAsker),
    ("heards", "heard", Heard),
)
_POOLS: tuple[tuple[str, str, Any], ...] = (
    ("ports", "port", _I),
    ("targets", "target", Address),
    ("askers", "asker", Address),
    ("own_macs", "own_mac", Mac),
    ("macs", "some_mac", Mac),
    ("tag_kinds", "tags", Tags),
)


class Scene(ct.Structure):
    _fields_ = (
        ("is_read", _I),
        ("asks_kernel", _I),
        *((count, _I) for count, _, _ in _LISTS),
        *((pointer, ct.POINTER(kind)) for _, pointer, kind in _LISTS),
        *((count, _I) for count, _, _ in _POOLS),
        *((pointer, ct.POINTER(kind)) for _, pointer, kind in _POOLS),
    )


class Verdict(ct.Structure):
    _fields_ = (
        *((name, _I) for name in ("action", "outcome", "reason", "limit", "entry", "rule", "goes_up", "answer_length")),
        ("event", ct.c_uint8 * EVENT_SIZE),
        ("answer", ct.c_uint8 * ANSWER_MAX),
    )


class Report(ct.Structure):
    _fields_ = (
        ("frames", ct.c_int64),
        *((name, _I) for name in ("events", "port", "length", "action", "out_length")),
        ("verdict", Verdict),
        ("frame", ct.c_uint8 * FRAME_SPACE),
        ("out", ct.c_uint8 * FRAME_SPACE),
        ("difference", ct.c_char * 512),
        ("outcomes", ct.c_uint64 * OUTCOMES),
        ("reasons", ct.c_uint64 * REASONS),
        ("limits", ct.c_uint64 * LIMITS),
        ("answered", ct.c_uint64),
        ("handed_up", ct.c_uint64),
    )


class Told(ct.Structure):
    _fields_ = (
        ("frame", ct.c_int64),
        ("answer_length", _I),
        ("event", ct.c_uint8 * EVENT_SIZE),
        ("answer", ct.c_uint8 * ANSWER_MAX),
    )


class Program(ct.Structure):
    _fields_ = (
        *(
            (name, _I)
            for name in (
                *("fd", "pusher_fd", "entry_counters_fd", "rule_counters_fd", "heard_fd"),
                *("cpus", "entries", "rules"),
            )
        ),
        *((n, ct.POINTER(ct.c_uint64)) for n in ("entry_base", "rule_base", "entry_wanted", "rule_wanted", "values")),
    )


MIRRORED = (Scene, Report, Told, Program)
"""In the order of size_of() in run.c."""


def address(value: int | str) -> Address:
    """An address as the reference has it."""
    return Address((ct.c_uint8 * 16)(*IPv6Address(value).packed))


def _mac(value: bytes) -> Mac:
    return Mac((ct.c_uint8 * 6)(*value))


def fill(struct: Any, count: str, pointer: str, kind: Any, values: Iterable[Any]) -> None:
    """Have a struct point to a list, and say how long it is. (ctypes keeps alive what a pointer was made of.)"""
    listed = list(values)
    setattr(struct, count, len(listed))
    array = (kind * max(len(listed), 1))(*listed)
    setattr(struct, pointer, ct.cast(array, ct.POINTER(kind)))


def vlan_of(entry: Mapping[str, Any]) -> tuple[int, int]:
    """An [[interface]]'s VLAN ids, the outer one first."""
    vlan = entry.get("vlan", "untagged")
    if vlan == "any":
        return NONE, NONE
    if vlan == "untagged":
        return 0, 0
    outer, _, inner = str(vlan).partition(".")
    return int(outer), int(inner or 0)


def _ends(text: str) -> tuple[int, int]:
    """The first and last address of an address, a prefix or a range."""
    if "-" in text:
        first, last = text.split("-")
        return int(IPv6Address(first)), int(IPv6Address(last))
    network = IPv6Network(text)
    return int(network[0]), int(network[-1])


def spans(selections: Iterable[str], network: IPv6Network) -> list[tuple[int, int]]:
    """What include or exclude means under a prefix: a suffix is placed there, anything else stands as it is."""
    found = []
    for text in selections:
        first, last = _ends(text)
        if last < network.num_addresses:
            first, last = first + int(network[0]), last + int(network[0])
        found.append((first, last))
    return found


def networks_of(prefix: str) -> Iterator[IPv6Network]:
    """The prefixes that a rule's `prefix` means."""
    if "-" in prefix:
        first, last = map(IPv6Address, prefix.split("-"))
        yield from summarize_address_range(first, last)
    else:
        yield IPv6Network(prefix)


def _held(own: Iterable[str]) -> Iterator[int]:
    """Addresses that the kernel answers for: with each, its subnet's router anycast address (RFC 4291 §2.6.1)."""
    for text in own:
        held = IPv6Interface(text)
        yield int(held.ip)
        if held.network.prefixlen < 127 and not held.ip.is_link_local:
            yield int(held.network[0])


def _speaking(configuration: Configuration, interfaces: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The [[interface]]s. One for any VLAN is several: where the machine has an interface for some frames, that has
    other addresses, and they are counted by themselves.
    """
    spoken_for = {vlan_of(each) for each in interfaces}
    for interface in interfaces:
        yield interface
        for tags in configuration.sides if interface.get("vlan") == "any" else ():
            vlan = ".".join(map(str, tags)) or "untagged"
            if vlan_of({"vlan": vlan}) not in spoken_for:
                yield {**interface, "vlan": vlan}


class Drawn:
    """A configuration drawn for the reference.

    `entry_number(port, outer, inner)` and `rule_number(port, outer, inner, prefix)` say by which numbers the program
    counts; `chunk` is how many frames it is for at the most.
    """

    def __init__(
        self,
        configuration: Configuration,
        indexes: Mapping[str, int],
        entry_number: Callable[[str, int, int], int | None],
        rule_number: Callable[[str, int, int, str], int],
        chunk: int,
    ) -> None:
        self.scene = Scene()
        self._configuration, self._indexes = configuration, indexes
        self._entry_number, self._rule_number = entry_number, rule_number
        self._sets: dict[object, int] = {}
        self._interesting: set[int] = set()
        self.host_sets: dict[int, list[str]] = {}
        """Of each set of hosts, the prefixes of those rules that ask it."""
        document = tomllib.loads(configuration.toml)
        scene = self.scene
        scene.is_read, scene.asks_kernel = configuration.is_read, bool(configuration.kept)
        entries = [self._entry(each) for each in _speaking(configuration, document["interface"])]
        for port in configuration.ports:
            number = entry_number(port, NONE, NONE)
            if not any(e.port == indexes[port] and e.outer == NONE for e in entries) and number is not None:
                entries.append(self._nobodys(port, number))
        fill(scene, "entries", "entry", Entry, entries)
        own = [text for side in configuration.sides.values() for text in side.own]
        elsewhere = sorted({*_held(own), *_held(configuration.lan)})
        self._interesting.update(elsewhere)
        fill(scene, "elsewheres", "elsewhere", Address, map(address, elsewhere))
        fill(scene, "hosts", "host", Host, self._hosts())
        fill(scene, "routes", "route", Route, self._routes())
        kept = configuration.kept.items()
        here = entry_number("wan0", 0, 0) or 0
        fill(scene, "kepts", "kept", Kept, (Kept(here, there, address(target)) for target, there in kept))
        self._interesting.update(int(IPv6Address(target)) for target, _ in kept)
        answered = configuration.answered
        fill(scene, "answereds", "answered", Answered, (Answered(here, address(target)) for target in answered))
        self._interesting.update(int(IPv6Address(target)) for target in answered)
        refused_askers = (RefusedAsker(here, _mac(mac or bytes(6))) for mac in configuration.refused_askers)
        fill(scene, "refused_askers", "refused_asker", RefusedAsker, refused_askers)
        fill(scene, "heards", "heard", Heard, (Heard() for _ in range(chunk)))
        scene.heards = 0
        self._pools(document)

    def _side(self, port: str, outer: int, inner: int) -> Side:
        if port != "wan0":
            return Side(self._configuration.lan)
        tags = tuple(vlan for vlan in (outer, inner) if vlan > 0)
        sides = self._configuration.sides
        return sides.get(tags, sides[()])

    def _entry(self, raw: Mapping[str, Any]) -> Entry:
        configuration, indexes = self._configuration, self._indexes
        port, (outer, inner) = raw["name"], vlan_of(raw)
        number = self._entry_number(port, outer, inner)
        assert number is not None
        entry = Entry(number, indexes[port], outer, inner, indexes[port])
        if configuration.has_vlan_device and (outer, inner) == (*VLAN_DEVICE, 0):
            entry.l3 = indexes["wan0.100"]
        entry.datapath = DATAPATHS.index(raw.get("datapath", "hybrid"))
        entry.guarded, entry.silent = configuration.is_guarded, configuration.is_silent
        entry.standby = raw.get("active_with", "") not in ("", *configuration.held)
        entry.budgeted = raw.get("new_targets_per_second", 0) > 0
        entry.shared = configuration.is_bridge_port and port == "wan0"
        entry.port_mac = _mac(MACS[port])
        entry.mac = _mac(BRIDGE_MAC) if entry.shared else entry.port_mac
        document = tomllib.loads(configuration.toml)
        entry.hears = any(
            port in rule.get("via", ())
            for other in document["interface"]
            for rule in other["rule"]
            if rule["method"] == "neighbour"
        )
        side = self._side(port, outer, inner)
        own, hops = sorted(set(_held(side.own))), [int(IPv6Address(hop)) for hop in side.next_hops]
        self._interesting.update(own, hops)
        fill(entry, "owns", "own", Address, map(address, own))
        fill(entry, "next_hops", "next_hop", Address, map(address, hops))
        fill(entry, "sources", "source", Address, (address(text.split("/")[0]) for text in side.own))
        # the kernel's proxy answers only where the kernel has an interface for the frames
        is_proxied = outer == 0 or entry.l3 != entry.port
        rules = [each for rule in raw["rule"] for each in self._rules(raw, rule, number, is_proxied=is_proxied)]
        fill(entry, "rules", "rule", Rule, rules)
        return entry

    def _nobodys(self, port: str, number: int) -> Entry:
        """What stands for frames that no [[interface]] entry matches: they are counted, and that is all."""
        entry = Entry(number, self._indexes[port], NONE, NONE, self._indexes[port], DATAPATHS.index("monitor"))
        entry.port_mac = _mac(MACS[port])
        entry.mac = _mac(BRIDGE_MAC) if self._configuration.is_bridge_port and port == "wan0" else entry.port_mac
        return entry

    def _rules(
        self, entry: Mapping[str, Any], raw: Mapping[str, Any], number: int, *, is_proxied: bool
    ) -> Iterator[Rule]:
        for network in networks_of(raw["prefix"]):
            rule = Rule(address(int(network[0])), network.prefixlen)
            rule.number = self._rule_number(entry["name"], *vlan_of(entry), raw["prefix"])
            method = raw["method"]
            rule.method = METHODS.index("static" if method == "kernel" and not is_proxied else method)
            said = {**entry, **raw}
            rule.router = said.get("router", True)
            rule.defend = said.get("dad", "ignore") == "defend"
            rule.by_interface = said.get("na_source", "target") == "interface"
            asked = ("kernel", number) if method == "kernel" else (method, *sorted(raw.get("via", ())))
            rule.hosts = self._sets.setdefault(asked, len(self._sets))
            self.host_sets.setdefault(rule.hosts, []).append(raw["prefix"])
            fill(rule, "vias", "via", _I, (self._indexes[name] for name in raw.get("via", ())))
            for key in ("include", "exclude"):
                found = spans(raw.get(key, ()), network)
                self._interesting.update(end + off for ends in found for end in ends for off in (-1, 0, 1))
                fill(rule, f"{key}s", key, Span, (Span(address(first), address(last)) for first, last in found))
            first, last = int(network[0]), int(network[-1])
            self._interesting.update((first - 1, first, first + 1, first + 5, last, last + 1))
            yield rule

    def _hosts(self) -> Iterator[Host]:
        seen = set()
        for prefix, hosts in self._configuration.known.items():
            for asked, prefixes in self.host_sets.items():
                for text in hosts if prefix in prefixes else ():
                    host = text.rstrip("?")
                    self._interesting.add(int(IPv6Address(host)))
                    if (asked, host) not in seen:
                        seen.add((asked, host))
                        yield Host(asked, text != host, text != host, address(host))

    def _routes(self) -> Iterator[Route]:
        for prefix, out in self._configuration.routes.items():
            network = IPv6Network(prefix)
            self._interesting.update(int(network[0]) + off for off in (-1, 0, 1))
            index = 0 if out in UNREACHABLE else self._indexes[out]
            yield Route(address(int(network[0])), network.prefixlen, index)

    def _pools(self, document: Mapping[str, Any]) -> None:
        """What the generator takes from: what the configuration speaks of, and what lies beside that."""
        scene = self.scene
        known = [int(IPv6Address(h.rstrip("?"))) for hosts in self._configuration.known.values() for h in hosts]
        reserved = [  # what the program treats otherwise than the rest: unspecified, multicast, link-local
            int(IPv6Address(text)) for text in ("::", "::1", "::2", "ff02::1", "fe80::42", "fe80::43", "fec0::1")
        ]
        targets = [a for a in sorted(self._interesting) if 0 <= a < 1 << 128] * 2 + reserved + known * 4
        fill(scene, "targets", "target", Address, map(address, targets))
        askers = ("fe80::2", "fe80::3", "2001:db8:ffff::2", "2001:db8:1::7", "2001:db8:ee::7", "2001:db8:64::7", "::2")
        fill(scene, "askers", "asker", Address, map(address, askers))
        ports = self._configuration.ports
        fill(scene, "ports", "port", _I, (self._indexes[port] for port in ports))
        ours = [MACS[port] for port in ports] + ([BRIDGE_MAC] if self._configuration.is_bridge_port else [])
        fill(scene, "own_macs", "own_mac", Mac, map(_mac, ours))
        others = (FOREIGN_MAC, BRIDGE_MAC, bytes.fromhex("333300000001"), b"\xff" * 6, bytes(6), bytes(5) + b"\x01")
        fill(scene, "macs", "some_mac", Mac, map(_mac, (*12 * ASKER_MACS, *others)))
        vlans = sorted({vlan_of(entry) for entry in document["interface"]} - {(NONE, NONE)} | {(100, 0), (300, 0)})
        menu = [[], [0], [0, 0], [0, 100], [100, 0], [100, 100, 100]]
        menu += [[vlan for vlan in pair if vlan] for pair in vlans] * 3 + [[7, 100]]
        kinds = []
        for number, vids in enumerate(menu):
            for tpid in (0x8100, 0x88A8):
                tags = b"".join(
                    (tpid if place == 0 or number % 2 else 0x8100).to_bytes(2) + vid.to_bytes(2)
                    for place, vid in enumerate(vids)
                )
                kinds.append(Tags(len(tags), (ct.c_uint8 * 12)(*tags)))
        kinds += [Tags()] * len(kinds) * (1 if len(document["interface"]) > 2 else 3)
        fill(scene, "tag_kinds", "tags", Tags, kinds)
