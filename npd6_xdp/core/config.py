# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration: TOML text in, a frozen Config out, or a ConfigError with every mistake's place."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any

from npd6_xdp.core.errors import ConfigError, Mistake
from npd6_xdp.core.verdict import Method


class Attach(StrEnum):
    """Where the XDP program sits: in the driver (native) or in the kernel's receive path (generic)."""

    AUTO = "auto"
    NATIVE = "native"
    GENERIC = "generic"


class Datapath(StrEnum):
    """Who answers: XDP where it can and Python the rest, Python all, or nobody (count only)."""

    HYBRID = "hybrid"
    PYTHON = "python"
    MONITOR = "monitor"


class DadPolicy(StrEnum):
    """What a DAD probe (source ::) for a present target gets: nothing, or an answer (RFC 4862 §5.4)."""

    IGNORE = "ignore"
    DEFEND = "defend"


class NaSource(StrEnum):
    """The advertisement's source: the target itself, or an address of the interface (RFC 4861 §7.2.4)."""

    TARGET = "target"
    INTERFACE = "interface"


@dataclass(frozen=True, slots=True)
class Vlan:
    """Which frames on a port an entry speaks for.

    `any` is all of them; else `tags` are the VLAN ids, outermost first: () untagged, (100,) or (100, 7).
    A tag with VID 0 carries a priority only and is no VLAN (IEEE 802.1Q), so it is never in `tags`.
    """

    any: bool = False
    tags: tuple[int, ...] = ()

    def __str__(self) -> str:
        """As the configuration file spells it: "any", "untagged", "100", "100.7"."""
        if self.any:
            return "any"
        return ".".join(str(vid) for vid in self.tags) or "untagged"


@dataclass(frozen=True, slots=True)
class RuleConfig:
    """One [[interface.rule]]: `prefix` as the file spells it, `network` what it means."""

    prefix: str
    network: IPv6Network
    method: Method


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """One [[interface]]: the frames of `vlan` on the port `name`, and the rules for their targets."""

    name: str
    rules: tuple[RuleConfig, ...]
    vlan: Vlan = Vlan()
    attach: Attach = Attach.AUTO
    datapath: Datapath = Datapath.HYBRID
    router: bool = True
    dad: DadPolicy = DadPolicy.IGNORE
    na_source: NaSource = NaSource.TARGET

    @property
    def label(self) -> str:
        """The `interface` label of metrics and logs: "wan0", or "wan0:100" for an entry with a VLAN."""
        return self.name if self.vlan == Vlan() else f"{self.name}:{self.vlan}"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration file. `metrics_listen` is (address, port); None switches it off."""

    interfaces: tuple[InterfaceConfig, ...]
    log_level: str = "info"
    log_format: str = "text"
    metrics_listen: tuple[str, int] | None = ("::1", 9846)

    def attach(self, name: str) -> Attach:
        """How the one program of an interface is attached: as those of its entries say that say anything."""
        wishes = [interface.attach for interface in self.interfaces if interface.name == name]
        return next((wish for wish in wishes if wish is not Attach.AUTO), Attach.AUTO)


def parse(text: str, source: str) -> Config:
    """Read a configuration file's text; `source` is the file's name, for the errors.

    Raises ConfigError with every mistake found, in the file's order, each with its place. Keys, values and
    defaults are DESIGN.md's, 'Configuration'; what of them this version lacks stands in _NOT_YET.
    """
    try:
        document = tomllib.loads(text, parse_float=_Float)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source, [_syntax_mistake(str(error))]) from None
    except (RecursionError, ValueError):  # tomllib lets both out; int() takes only so many digits
        raise ConfigError(source, [Mistake("", "a number is too long, or arrays nest too deeply")]) from None
    reader = _Reader()
    config = reader.config(document)
    if reader.mistakes:
        raise ConfigError(source, reader.mistakes)
    return config


def parse_vlan(text: str) -> Vlan:
    """Read a `vlan` value as the command line has it; ValueError says what is wrong with it."""
    try:
        return _vlan(text)
    except _Wrong as wrong:
        raise ValueError(f"{wrong}; found {_found(text)}") from None


# --- Words for the user ---


@dataclass(frozen=True, slots=True)
class _Float:
    """A TOML float as the file spells it: VLANs 100.1 and 100.10 are two."""

    text: str


def _quoted(text: str) -> str:
    """Text in double quotes, short and on one line, whatever it holds."""
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return json.dumps(short, ensure_ascii=not short.isprintable())


def _found(value: object) -> str:
    """What stands in the file, in TOML's words."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"the string {_quoted(value)}"
        case int():  # str() refuses integers of thousands of digits
            return f"the whole number {value}" if abs(value) < 10**18 else "a huge whole number"
        case _Float():
            return f"the number {value.text[:20]}"
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _nearest(text: str, choices: Iterable[str]) -> str | None:
    """What was probably meant."""
    return next(iter(difflib.get_close_matches(text.lower(), choices, n=1)), None)


def _inside(place: str, key: str) -> str:
    """The place of a key: interface[0].name, or interface[0]."odd key"."""
    name = key if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key) else _quoted(key)
    return f"{place}.{name}" if place else name


def _syntax_mistake(error: str) -> Mistake:
    """What tomllib says, "Invalid value (at line 3, column 7)", as a Mistake."""
    message, _, place = error.removesuffix(")").rpartition(" (at ")
    quotes = "; text needs quotes; true, false and numbers need none"
    hints = {
        "Invalid value": quotes,
        "Expected newline or end of document after a statement": quotes,  # info: the number inf, and an o
        "Cannot overwrite a value": "; a key or table is there twice, or both as [table] and as [[table]]",
    }
    hint = hints.get(message, "")
    message = re.sub(r"\('(.*?)',?\)", lambda key: key[1].replace("', '", "."), message)  # ('a', 'b') is a.b
    return Mistake(place, f"not valid TOML: {message}{hint}")


# --- Values: what TOML holds in, what Config holds out ---

_Parser = Callable[[object], object]
_PREFIX = "2001:db8:1::/64"


class _Wrong(Exception):
    """A parser can't use a value; the text says what would be right. Who catches it adds what was found."""


def _string(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(f'must be a string such as "{example}"')
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("must be true or false, without quotes")
    return value


def _one_of(choices: Iterable[str]) -> _Parser:
    """The parser of a string that is one of `choices`; it gives the choice itself, an enum's member too."""
    by_text = {str(choice): choice for choice in choices}

    def parser(value: object) -> str:
        if isinstance(value, str) and value in by_text:
            return by_text[value]
        meant = _nearest(value, by_text) if isinstance(value, str) else None
        hint = f", probably {_quoted(meant)}" if meant else ""
        raise _Wrong(f"must be {' or '.join(map(_quoted, by_text))}{hint}")

    return parser


def _ip_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _port(text: str) -> int | None:
    number = int(text) if re.fullmatch("[0-9]{1,5}", text) else 0
    return number if 1 <= number <= 65535 else None


def _listen(value: object) -> tuple[str, int] | None:
    """Where the metrics endpoint listens: "ADDRESS:PORT" as (address, port), "" as None."""
    text = _string(value, "[::1]:9846")
    if not text:
        return None
    if "%" in text:
        raise _Wrong('takes no scope id (%); write an address without one, such as "[::1]:9846"')
    parts = re.fullmatch(r"(\[[^]]*\]|[^][:]*)(?::([^:]*))?", text)
    if parts is None:
        raise _Wrong(f'must be ADDRESS:PORT, IPv6 in brackets; write "{_bracketed(text)}"')
    host, port = parts[1], parts[2] or ""
    address = _ip_address(host.strip("[]"))
    if address is None:
        raise _Wrong('must be an IP address, not a name, and a port; write one such as "[::1]:9846"')
    if address.version == 4 and host.startswith("["):
        raise _Wrong(f'an IPv4 address takes no brackets; write "{address}:{_port(port) or 9846}"')
    if not port:
        raise _Wrong(f'the port is missing; write "{host}:9846"')
    if _port(port) is None:
        raise _Wrong("the port must be a whole number from 1 to 65535")
    return str(address), int(port)


def _bracketed(text: str) -> str:
    """What colons without brackets were probably meant to say."""
    host, _, port = text.rpartition(":")
    if _ip_address(host) and _port(port):
        return f"[{host}]:{port}"
    return f"[{text}]:9846" if _ip_address(text) else "[::1]:9846"


def _interface_name(value: object) -> str:
    """A name that Linux takes (dev_valid_name in net/core/dev.c, which counts bytes)."""
    name = _string(value, "wan0")
    if ":" in name:
        raise _Wrong('an interface\'s name holds no ":"; a VLAN is a key of its own, vlan = 100')
    if not name.isprintable() or set(name) & set(" /") or name in {".", ".."}:
        raise _Wrong('an interface\'s name holds no "/" and no white space')
    if not 1 <= len(name.encode()) <= 15:
        raise _Wrong("an interface's name has 1 to 15 characters")
    return name


def _vlan(value: object) -> Vlan:
    """untagged, any, or one or two VLAN ids: 100, "100", "100.7"."""
    if value in ("untagged", "any"):
        return Vlan(any=value == "any")
    text = value.text if isinstance(value, _Float) else value if isinstance(value, str) else ""
    if type(value) is int and abs(value) < 10**9:  # and no bool
        text = str(value)
    if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise _Wrong('must be "untagged", "any", a VLAN such as 100, or two such as "100.7"')
    tags = tuple(int(tag) for tag in text.split("."))
    if 0 in tags:
        raise _Wrong('VLAN 0 is none: its tag carries a priority only (IEEE 802.1Q), and is "untagged" here')
    if 4095 in tags:
        raise _Wrong("VLAN 4095 is reserved (IEEE 802.1Q); write 1 to 4094")
    if not all(1 <= tag <= 4094 for tag in tags):
        raise _Wrong("a VLAN is 1 to 4094")
    if isinstance(value, _Float):
        raise _Wrong(f'two tags need quotes; write vlan = "{text}"')
    return Vlan(tags=tags)


def _network(value: object) -> IPv6Network:
    """A rule's prefix; an address is a /128."""
    text = _string(value, _PREFIX)
    if "%" in text:
        raise _Wrong("takes no scope id (%); the [[interface]] that the rule is part of names the link")
    try:
        written = ipaddress.IPv6Interface(text)
    except ipaddress.NetmaskValueError:
        raise _Wrong("the prefix length must be a whole number from 0 to 128") from None
    except ValueError:
        ipv4 = isinstance(_ip_address(text.partition("/")[0]), IPv4Address)
        kind = "an IPv6 prefix, and IPv6 only" if ipv4 else "an IPv6 prefix or address"
        raise _Wrong(f'must be {kind}, such as "{_PREFIX}"') from None
    address, network = written.ip, written.network
    if _never_answered(network):
        raise _Wrong("multicast addresses, :: and ::1 are never answered; leave the rule out")
    if network.subnet_of(IPv6Network("fe80::/10")) and network.prefixlen < 128:  # RFC.md C
        raise _Wrong(f'link-local targets need a rule each; write the address, such as "{address}"')
    if address != network.network_address:
        or_address = "" if _never_answered(IPv6Network(address)) else f" or {address}"
        raise _Wrong(f"{text} has host bits set; write {network}{or_address}")
    return network


def _never_answered(network: IPv6Network) -> bool:
    """Multicast, :: and ::1 (RFC.md C)."""
    return network.subnet_of(IPv6Network("ff00::/8")) or network.subnet_of(IPv6Network("::/127"))


# --- Keys: those of DESIGN.md's contract, by table; the defaults stand in the dataclasses above ---


@dataclass(frozen=True, slots=True)
class _Later:
    """A key that this version doesn't implement, or only those of its values that match."""

    table: str
    key: str
    values: str = ""  # a regular expression for the whole string
    instead: str = "leave it out"


_NOT_YET = (  # whoever implements a row deletes it
    _Later("daemon", "control"),
    _Later("limits", "events_per_second"),
    _Later("limits", "pending"),
    _Later("limits", "neighbours"),
    _Later("limits", "kernel_entries"),
    _Later("limits", "kernel_entry_age"),
    _Later("interface", "name", r"[^*?[]*[*?[].*", "write one [[interface]] for each exact name"),
    _Later("interface", "events_per_source"),
    _Later("interface", "collect_targets"),
    _Later("interface.rule", "prefix", r"interface:.*", "write its prefixes, one rule for each"),
    _Later("interface.rule", "prefix", r"[0-9A-Fa-f]*:[^-]*-.*", "write prefixes, one rule for each"),
    _Later("interface.rule", "method", Method.ROUTE, f'write "{Method.STATIC}"'),
    _Later("interface.rule", "method", Method.NEIGHBOUR, f'write "{Method.STATIC}"'),
    _Later("interface.rule", "method", Method.KERNEL, f'write "{Method.STATIC}"'),
    _Later("interface.rule", "via"),
    _Later("interface.rule", "include"),
    _Later("interface.rule", "exclude"),
    _Later("interface.rule", "router"),
    _Later("interface.rule", "dad"),
    _Later("interface.rule", "na_source"),
    _Later("interface.rule", "host_routes"),
)


def _not_yet(table: str, key: str, value: object) -> str:
    """The message for what this version doesn't implement; "" for all else."""
    for row in _NOT_YET:
        if (row.table, row.key) != (table, key):
            continue
        if not row.values:
            return f"this version does not implement this key yet; {row.instead}"
        if isinstance(value, str) and re.fullmatch(row.values, value, re.DOTALL):
            return f"this version does not implement {_quoted(value)} here yet; {row.instead}"
    return ""


_METHODS = [method for method in Method if not _not_yet("interface.rule", "method", method)]
_KEYS: dict[str, dict[str, _Parser]] = {
    "daemon": {
        "log_level": _one_of(("debug", "info", "warning", "error")),
        "log_format": _one_of(("text", "json")),
    },
    "metrics": {"listen": _listen},
    "limits": {},
    "interface": {
        "name": _interface_name,
        "vlan": _vlan,
        "attach": _one_of(Attach),
        "datapath": _one_of(Datapath),
        "router": _boolean,
        "dad": _one_of(DadPolicy),
        "na_source": _one_of(NaSource),
    },
    "interface.rule": {"prefix": _network, "method": _one_of(_METHODS)},
}
_REQUIRED = {
    "interface": {"name": 'name = "wan0"'},
    "interface.rule": {"prefix": f'prefix = "{_PREFIX}"', "method": f'method = "{Method.STATIC}"'},
}
_TABLES = {"": {"daemon", "metrics", "limits", "interface"}, "interface": {"rule"}}


def _header(table: str) -> str:
    """A table's header as the file has it."""
    return f"[[{table}]]" if table.startswith("interface") else f"[{table}]"


def _known(table: str) -> set[str]:
    """The contract's keys of a table ("" is the file), those that this version lacks and tables included."""
    later = {row.key for row in _NOT_YET if row.table == table}
    return later | set(_KEYS.get(table, ())) | _TABLES.get(table, set())


def _unknown(table: str, key: str) -> str:
    """The message for a key that isn't the table's: where it belongs, or what is like it."""
    homes = [_header(other) for other in _KEYS if key in _known(other)]
    if homes:
        return f"{_quoted(key)} does not belong here; write it under {' or '.join(homes)}"
    meant = _nearest(key, sorted(_known(table)))
    return f"unknown key {_quoted(key)}; " + (f"did you mean {_quoted(meant)}?" if meant else "leave it out")


# --- Tables: walked in the file's order ---


class _Reader:
    """Turns raw tables into values, and keeps every mistake that it meets."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def wrong(self, place: str, message: str) -> None:
        self.mistakes.append(Mistake(place, message))

    def config(self, document: dict[str, object]) -> Config:
        """The whole file."""
        values: dict[str, Any] = {}
        interfaces: tuple[InterfaceConfig, ...] = ()
        for table, raw in document.items():
            if table not in _TABLES[""]:
                self.wrong(_inside("", table), _unknown("", table))
            elif table == "interface":
                interfaces = self.interfaces(raw)
            elif not isinstance(raw, dict):
                self.wrong(table, f"must be one table; write {_header(table)}; found {_found(raw)}")
            else:
                prefix = "metrics_" if table == "metrics" else ""
                values |= {prefix + key: value for key, value in self.values(table, table, raw).items()}
        if document.get("interface", []) == []:
            self.wrong("", "no interface; write [[interface]] and its name, and [[interface.rule]] below it")
        return Config(interfaces, **values)

    def interfaces(self, raw: object) -> tuple[InterfaceConfig, ...]:
        """Every [[interface]]; one name and vlan may stand there once."""
        interfaces: list[InterfaceConfig] = []
        places: dict[tuple[str, Vlan], str] = {}
        attached: dict[str, tuple[str, Attach]] = {}
        for place, entry in self.entries("interface", "interface", raw):
            values = self.values("interface", place, entry)
            rules = self.rules(f"{place}.rule", entry.get("rule", []))
            if entry.get("rule", []) == []:
                self.wrong(place, "no rule; write [[interface.rule]], its prefix and its method below it")
            if "name" not in values or ("vlan" in entry and "vlan" not in values):
                continue
            interface = InterfaceConfig(rules=rules, **values)
            first = places.setdefault((interface.name, interface.vlan), place)
            if first != place:
                self.wrong(place, f"the same name and vlan as {first}; put all rules into one of the two")
            if "attach" in entry:
                other, attach = attached.setdefault(interface.name, (place, interface.attach))
                if attach is not interface.attach:
                    self.wrong(
                        _inside(place, "attach"),
                        f"{_quoted(interface.attach)}, but {other} says {_quoted(attach)}; the entries of one"
                        " interface share one XDP program, so write it once, or the same for all",
                    )
            interfaces.append(interface)
        return tuple(interfaces)

    def rules(self, place: str, raw: object) -> tuple[RuleConfig, ...]:
        """Every [[interface.rule]] of one entry; a prefix may stand there once, however it is spelled."""
        rules: list[RuleConfig] = []
        places: dict[IPv6Network, str] = {}
        for here, entry in self.entries("interface.rule", place, raw):
            values = self.values("interface.rule", here, entry)
            if "prefix" in values:
                first = places.setdefault(values["prefix"], here)
                if first != here:
                    self.wrong(f"{here}.prefix", f"the same prefix as {first}.prefix; leave one of them out")
            if {"prefix", "method"} <= values.keys():
                rules.append(RuleConfig(str(entry["prefix"]), values["prefix"], values["method"]))
        return tuple(rules)

    def entries(self, table: str, place: str, raw: object) -> Iterator[tuple[str, dict[str, object]]]:
        """The tables of an array of tables, each with its place."""
        if isinstance(raw, dict):
            self.wrong(place, f"must be written {_header(table)}, in double brackets, since there may be several")
            yield place, raw
            return
        for index, entry in enumerate(raw if isinstance(raw, list) else [raw]):
            here = f"{place}[{index}]" if isinstance(raw, list) else place
            if isinstance(entry, dict):
                yield here, entry
            else:
                self.wrong(here, f"must be a table; write {_header(table)}; found {_found(entry)}")

    def values(self, table: str, place: str, raw: dict[str, object]) -> dict[str, Any]:
        """What the keys of one table say, without those that are wrong."""
        values: dict[str, Any] = {}
        for key, value in raw.items():
            here = _inside(place, key)
            if key not in _known(table):
                self.wrong(here, _unknown(table, key))
            elif problem := _not_yet(table, key, value):
                self.wrong(here, problem)
            elif key in _KEYS[table]:
                try:
                    values[key] = _KEYS[table][key](value)
                except _Wrong as wrong:
                    self.wrong(here, f"{wrong}; found {_found(value)}")
        for key, example in _REQUIRED.get(table, {}).items():
            if key not in raw:
                self.wrong(_inside(place, key), f"missing; write one such as {example}")
        return values
