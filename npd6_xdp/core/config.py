# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration: TOML text in, a frozen Config out, or a ConfigError with every mistake's place."""

from __future__ import annotations

import difflib
import fnmatch
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
class Selection:
    """An entry of `include` or `exclude`: the addresses `first` to `last`, both included, as the file spells them.

    Under a prefix of length n it is a suffix, to be placed there, if the first n bits of both ends are zero;
    else it has to lie within the prefix as it is.
    """

    text: str
    first: IPv6Address
    last: IPv6Address

    def within(self, network: IPv6Network) -> tuple[IPv6Network, ...] | None:
        """The prefixes that it stands for under `network`; None if it doesn't lie there."""
        base, host_bits = int(network.network_address), 128 - network.prefixlen
        first, last = int(self.first), int(self.last)
        if not (first | last) >> host_bits:
            first, last = first | base, last | base
        if first >> host_bits != base >> host_bits or last >> host_bits != base >> host_bits:
            return None
        return tuple(ipaddress.summarize_address_range(IPv6Address(first), IPv6Address(last)))


@dataclass(frozen=True, slots=True)
class RuleConfig:
    """One [[interface.rule]]: `prefix` as the file spells it, `networks` what it means.

    A range is several networks. `follows` names the interface whose global prefixes are meant instead
    ("interface:lan0"); `networks` is empty then. What is None is as the [[interface]] says.
    """

    prefix: str
    networks: tuple[IPv6Network, ...]
    method: Method
    follows: str = ""
    via: tuple[str, ...] = ()
    include: tuple[Selection, ...] = ()
    exclude: tuple[Selection, ...] = ()
    router: bool | None = None
    dad: DadPolicy | None = None
    na_source: NaSource | None = None
    host_routes: bool = False


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """One [[interface]]: the frames of `vlan` on the port `name`, and the rules for their targets.

    `name` may be a glob ("wan*"). `events_per_source` None is the default of the datapath.
    """

    name: str
    rules: tuple[RuleConfig, ...]
    vlan: Vlan = Vlan()
    attach: Attach = Attach.AUTO
    datapath: Datapath = Datapath.HYBRID
    router: bool = True
    dad: DadPolicy = DadPolicy.IGNORE
    na_source: NaSource = NaSource.TARGET
    events_per_source: int | None = None
    collect_targets: int = 0

    @property
    def is_glob(self) -> bool:
        """Whether `name` stands for all interfaces that it matches."""
        return is_glob(self.name)

    @property
    def label(self) -> str:
        """As labelled(), of the name in the file."""
        return self.labelled(self.name)

    @property
    def source_limit(self) -> int:
        """NS/s that one source MAC may send up to Python; 0 is no limit."""
        if self.events_per_source is not None:
            return self.events_per_source
        return 0 if self.datapath is Datapath.PYTHON else 1000

    def labelled(self, port: str) -> str:
        """The `interface` label of metrics and logs for a port: "wan0", or "wan0:100" for an entry with a VLAN."""
        return port if self.vlan == Vlan() else f"{port}:{self.vlan}"

    def matches(self, port: str) -> bool:
        """Whether the entry speaks for a port of that name."""
        return fnmatch.fnmatchcase(port, self.name) if self.is_glob else port == self.name


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits]: bounds of what load can make grow. Ages are seconds."""

    events_per_second: int = 150_000
    pending: int = 512
    neighbours: int = 65_536
    kernel_entries: int = 1024
    kernel_entry_age: int = 600


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration file. `metrics_listen` is (address, port); None switches it off."""

    interfaces: tuple[InterfaceConfig, ...]
    control: str = "/run/npd6-xdp/control.sock"
    log_level: str = "info"
    log_format: str = "text"
    metrics_listen: tuple[str, int] | None = ("::1", 9846)
    limits: Limits = Limits()

    def entries(self, port: str) -> tuple[InterfaceConfig, ...]:
        """The entries that speak for a port of that name, the one that wins first; each VLAN once.

        An exact name beats a glob, then a given VLAN beats "any"; among globs the first in the file.
        """
        found = [interface for interface in self.interfaces if interface.matches(port)]
        found.sort(key=lambda interface: (interface.is_glob, interface.vlan.any))
        winners: dict[Vlan, InterfaceConfig] = {}
        for interface in found:
            if interface.is_glob and any(vlan.any and not won.is_glob for vlan, won in winners.items()):
                break  # an exact name that takes any VLAN leaves nothing to a glob
            winners.setdefault(interface.vlan, interface)
        return tuple(winners.values())

    def attach(self, port: str) -> Attach:
        """How the one program of a port is attached: as those of its entries say that say anything."""
        wishes = [interface.attach for interface in self.entries(port)]
        return next((wish for wish in wishes if wish is not Attach.AUTO), Attach.AUTO)


def is_glob(name: str) -> bool:
    """Whether an interface's name is a pattern for several."""
    return any(character in name for character in "*?[")


def parse(text: str, source: str) -> Config:
    """Read a configuration file's text; `source` is the file's name, for the errors.

    Raises ConfigError with every mistake found, in the file's order, each with its place. Keys, values and
    defaults are DESIGN.md's, 'Configuration'.
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
            return "an array" if value else "an empty array"
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
_RANGE = "2001:db8:1::10-2001:db8:1::1f"
_SOCKET = "/run/npd6-xdp/control.sock"
_MULTICAST = IPv6Network("ff00::/8")
_UNSPECIFIED_AND_LOOPBACK = IPv6Network("::/127")
_LINK_LOCAL = IPv6Network("fe80::/10")
_LINK_LOCAL_ALONE = "link-local targets need a rule each; write the address"


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


def _whole(low: int, high: int) -> _Parser:
    """The parser of a whole number, both bounds included."""

    def parser(value: object) -> int:
        if type(value) is not int or not low <= value <= high:  # and no bool
            raise _Wrong(f"must be a whole number from {low} to {high}, without quotes")
        return value

    return parser


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


def _control(value: object) -> str:
    """The path of the control socket; the kernel takes 107 bytes and a zero byte (unix(7), sun_path)."""
    path = _string(value, _SOCKET)
    if not path.startswith("/") or path.endswith("/"):
        raise _Wrong(f'must be the absolute path of a socket, such as "{_SOCKET}"')
    if "\0" in path:
        raise _Wrong("a path holds no zero byte")
    if len(path.encode()) > 107:
        raise _Wrong("a socket's path has at most 107 bytes; write a shorter one")
    return path


def _exact_name(value: object) -> str:
    """The name of one interface that targets live behind."""
    name = _string(value, "lan0")
    if ":" in name:
        raise _Wrong('an interface\'s name holds no ":"; a VLAN device has a name such as "lan0.100"')
    if is_glob(name):
        raise _Wrong('must be the exact name of one interface, such as "lan0"')
    return _linux_name(name, name)


def _interface_name(value: object) -> str:
    """The name of an entry's port, or a glob for several."""
    name = _string(value, "wan0")
    if ":" in name:
        raise _Wrong('an interface\'s name holds no ":"; a VLAN is a key of its own, vlan = 100')
    return _linux_name(name, _shortest(name) if is_glob(name) else name)


def _linux_name(name: str, shortest: str) -> str:
    """A name that Linux takes (dev_valid_name in net/core/dev.c, which counts bytes)."""
    if not name.isprintable() or set(name) & set(" /") or name in {".", ".."}:
        raise _Wrong('an interface\'s name holds no "/" and no white space')
    if not name or len(shortest.encode()) > 15:
        raise _Wrong("an interface's name has 1 to 15 characters")
    return name


def _shortest(glob: str) -> str:
    """The shortest text that a glob stands for, with a "?" for each character that it leaves open."""
    parts = r"\[!?+\]?+[^]]*\]"  # as fnmatch reads it: a "]" that comes first doesn't close
    for part in re.findall(parts, glob):
        if part.isascii() and not any(fnmatch.fnmatchcase(chr(code), part) for code in range(0x21, 0x7F)):
            raise _Wrong(f'{_quoted(part)} matches no character; write what it may be, such as "[0-9]"')
    shortest = re.sub(parts, "?", glob)
    if "[" in shortest:
        raise _Wrong('a "[" is never closed; write "[[]" for the character itself')
    return shortest.replace("*", "")


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


@dataclass(frozen=True, slots=True)
class _Targets:
    """What a rule's prefix means: `networks`, or those of the interface that it `follows`."""

    networks: tuple[IPv6Network, ...] = ()
    follows: str = ""
    narrows: bool = True  # an address or a range takes no include and exclude

    @property
    def names(self) -> tuple[IPv6Network | str, ...]:
        """What no other rule of the entry may say."""
        return self.networks or (f"interface:{self.follows}",)


def _targets(value: object) -> _Targets:
    """A rule's prefix: a prefix, an address, a range or "interface:NAME"."""
    text = _string(value, _PREFIX)
    kind, colon, name = text.partition(":")
    if colon and kind == "interface":
        return _Targets(follows=_exact_name(name))
    if "%" in text:
        raise _Wrong("takes no scope id (%); the [[interface]] that the rule is part of names the link")
    if _is_range(text):
        first, last = _range(text)
        networks = tuple(ipaddress.summarize_address_range(first, last))
        if any(map(_never_answered, networks)):
            raise _Wrong("multicast addresses, :: and ::1 are never answered; leave them out")
        if first != last and any(map(_link_local, networks)):
            raise _Wrong(f"{_LINK_LOCAL_ALONE} of each")
        return _Targets(networks, narrows=False)
    address, network = _network(text, _PREFIX)
    if _never_answered(network):
        raise _Wrong("multicast addresses, :: and ::1 are never answered; leave the rule out")
    if _link_local(network) and network.prefixlen < 128:
        raise _Wrong(f'{_LINK_LOCAL_ALONE}, such as "{address}"')
    if address != network.network_address:
        or_address = "" if _never_answered(IPv6Network(address)) else f" or {address}"
        raise _Wrong(f"{text} has host bits set; write {network}{or_address}")
    return _Targets((network,), narrows=network.prefixlen < 128)


def _selection(value: object) -> Selection:
    """An entry of include or exclude: an address, a prefix or a range, in full or as a suffix."""
    text = _string(value, "::10-::1f")
    if "%" in text:
        raise _Wrong("takes no scope id (%); the [[interface]] that the rule is part of names the link")
    if _is_range(text):
        return Selection(text, *_range(text))
    address, network = _network(text, "::1:0/112")
    if address != network.network_address:
        raise _Wrong(f"{text} has host bits set; write {network} or {address}")
    return Selection(text, network.network_address, network.broadcast_address)


def _network(text: str, example: str) -> tuple[IPv6Address, IPv6Network]:
    """A prefix and the address in front of its length; an address is a /128."""
    try:
        written = ipaddress.IPv6Interface(text)
    except ipaddress.NetmaskValueError:
        raise _Wrong("the prefix length must be a whole number from 0 to 128") from None
    except ValueError:
        ipv4 = isinstance(_ip_address(text.partition("/")[0]), IPv4Address)
        kind = "an IPv6 prefix, and IPv6 only" if ipv4 else "an IPv6 prefix or address"
        raise _Wrong(f'must be {kind}, such as "{example}"') from None
    return written.ip, written.network


def _is_range(text: str) -> bool:
    """Whether a range was meant, rather than a name with a dash in it."""
    return "-" in text and bool(set(text) & set(":."))


def _range(text: str) -> tuple[IPv6Address, IPv6Address]:
    """The ends of "A-B"."""
    ends = text.split("-")
    if len(ends) != 2:
        raise _Wrong(f'a range has two ends, such as "{_RANGE}"')
    first, last = _ip_address(ends[0].rstrip(" ")), _ip_address(ends[1].lstrip(" "))
    if not isinstance(first, IPv6Address) or not isinstance(last, IPv6Address):
        raise _Wrong(f'both ends of a range must be whole IPv6 addresses, such as "{_RANGE}"')
    if last < first:
        raise _Wrong(f'the range ends before it begins; write "{last}-{first}"')
    return first, last


def _never_answered(network: IPv6Network) -> bool:
    """Multicast, :: and ::1 (RFC.md C)."""
    return network.subnet_of(_MULTICAST) or network.subnet_of(_UNSPECIFIED_AND_LOOPBACK)


def _link_local(network: IPv6Network) -> bool:
    """Never answered either, but where a rule names the one address (RFC.md C)."""
    return network.subnet_of(_LINK_LOCAL)


# --- Keys: those of DESIGN.md's contract, by table; the defaults stand in the dataclasses above ---


@dataclass(frozen=True, slots=True)
class _ListOf:
    """An array of at least one value, each as its parser has it."""

    parser: _Parser
    example: str


_KEYS: dict[str, dict[str, _Parser | _ListOf]] = {
    "daemon": {
        "control": _control,
        "log_level": _one_of(("debug", "info", "warning", "error")),
        "log_format": _one_of(("text", "json")),
    },
    "metrics": {"listen": _listen},
    "limits": {
        "events_per_second": _whole(1, 10_000_000),
        "pending": _whole(1, 65_536),
        "neighbours": _whole(1, 1_000_000),
        "kernel_entries": _whole(1, 65_536),
        "kernel_entry_age": _whole(1, 1_000_000),
    },
    "interface": {
        "name": _interface_name,
        "vlan": _vlan,
        "attach": _one_of(Attach),
        "datapath": _one_of(Datapath),
        "router": _boolean,
        "dad": _one_of(DadPolicy),
        "na_source": _one_of(NaSource),
        "events_per_source": _whole(0, 10_000_000),
        "collect_targets": _whole(0, 1_000_000),
    },
    "interface.rule": {
        "prefix": _targets,
        "method": _one_of(Method),
        "via": _ListOf(_exact_name, '["lan0"]'),
        "include": _ListOf(_selection, '["::10-::1f", "::1:0/112"]'),
        "exclude": _ListOf(_selection, '["::1"]'),
        "router": _boolean,
        "dad": _one_of(DadPolicy),
        "na_source": _one_of(NaSource),
        "host_routes": _boolean,
    },
}
_REQUIRED = {
    "interface": {"name": 'name = "wan0"'},
    "interface.rule": {"prefix": f'prefix = "{_PREFIX}"', "method": f'method = "{Method.STATIC}"'},
}
_TABLES = {"": {"daemon", "metrics", "limits", "interface"}, "interface": {"rule"}}
_KNOWN = {table: _TABLES.get(table, set()) | set(_KEYS.get(table, ())) for table in ("", *_KEYS)}


def _header(table: str) -> str:
    """A table's header as the file has it."""
    return f"[[{table}]]" if table.startswith("interface") else f"[{table}]"


def _unknown(table: str, key: str) -> str:
    """The message for a key that isn't the table's: where it belongs, or what is like it."""
    homes = [_header(other) for other in _KEYS if key in _KNOWN[other]]
    if homes:
        return f"{_quoted(key)} does not belong here; write it under {' or '.join(homes)}"
    meant = _nearest(key, sorted(_KNOWN[table]))
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
            elif table == "limits":
                values["limits"] = Limits(**self.values(table, table, raw))
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
            rules = self.rules(f"{place}.rule", entry.get("rule", []), values.get("name"))
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

    def rules(self, place: str, raw: object, port: str | None) -> tuple[RuleConfig, ...]:
        """Every [[interface.rule]] of one entry; a prefix may belong to one of them, however it is spelled."""
        rules: list[RuleConfig] = []
        places: dict[IPv6Network | str, str] = {}
        for here, entry in self.entries("interface.rule", place, raw):
            values = self.values("interface.rule", here, entry)
            self.ways(here, entry, values, port)
            mine: dict[IPv6Network | str, str] = {}  # within one rule they may overlap as they like
            for network, part in self.flattened(here, values):
                mine.setdefault(network, part)
            said: set[str] = set()
            for network, part in mine.items():
                first = places.setdefault(network, part)
                if first != part and part not in said:
                    said.add(part)  # two ranges may have hundreds in common
                    message = f"the same prefix as {first}, {network}; leave it out of one of the two"
                    self.wrong(part, message)
            if {"prefix", "method"} <= values.keys():
                targets = values.pop("prefix")
                rules.append(RuleConfig(str(entry["prefix"]), targets.networks, follows=targets.follows, **values))
        return tuple(rules)

    def ways(self, here: str, entry: dict[str, object], values: dict[str, Any], port: str | None) -> None:
        """The keys of a rule that only some methods take."""
        method = values.get("method")
        if method is Method.NEIGHBOUR and "via" not in entry:
            self.wrong(
                f"{here}.via",
                f'missing; method "{method}" needs the interfaces behind which targets live, such as via = ["lan0"]',
            )
        if "via" in entry and method not in {None, Method.ROUTE, Method.NEIGHBOUR}:
            self.wrong(
                f"{here}.via",
                f'method "{method}" takes no via; leave it out, or write method = "{Method.ROUTE}" or'
                f' "{Method.NEIGHBOUR}"',
            )
        if "host_routes" in entry and method not in {None, Method.NEIGHBOUR}:
            self.wrong(
                f"{here}.host_routes",
                f'method "{method}" takes no host_routes; leave it out, or write method = "{Method.NEIGHBOUR}"',
            )
        places: dict[str, str] = {}
        for index, name in enumerate(values.get("via", ())):
            part = f"{here}.via[{index}]"
            first = places.setdefault(name, part)
            if first != part:
                self.wrong(part, f"the same interface as {first}; leave one of them out")
            elif name == port:
                self.wrong(part, f"{_quoted(name)} is where the question comes from; name the other side's interface")

    def flattened(self, here: str, values: dict[str, Any]) -> Iterator[tuple[IPv6Network | str, str]]:
        """What of the flat table a rule takes up, each with its place; what it can't is a mistake."""
        targets: _Targets | None = values.get("prefix")
        if targets is None:
            return
        for name in targets.names:
            yield name, f"{here}.prefix"
        for key in ("include", "exclude"):
            if key in values and not targets.narrows:
                self.wrong(f"{here}.{key}", f"an address or a range as prefix takes no {key}; leave it out")
            if targets.follows or not targets.narrows:
                continue  # what lies in the prefixes of an interface shows when they are known
            (network,) = targets.networks
            for index, selection in enumerate(values.get(key, ())):
                part = f"{here}.{key}[{index}]"
                networks = selection.within(network)
                if networks is None:
                    self.wrong(
                        part,
                        f'does not lie in {network}; write a suffix such as "::1", or an address, prefix or range'
                        f" in it; found {_found(selection.text)}",
                    )
                elif key == "include" and selection.first != selection.last and any(map(_link_local, networks)):
                    self.wrong(part, f"{_LINK_LOCAL_ALONE} of each; found {_found(selection.text)}")
                else:
                    for one in networks:
                        yield one, part

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
            if key not in _KNOWN[table]:
                self.wrong(here, _unknown(table, key))
            elif key in _KEYS[table]:
                for read in self.read(here, _KEYS[table][key], value):
                    values[key] = read
        for key, example in _REQUIRED.get(table, {}).items():
            if key not in raw:
                self.wrong(_inside(place, key), f"missing; write one such as {example}")
        return values

    def read(self, place: str, parser: _Parser | _ListOf, value: object) -> tuple[Any, ...]:
        """What a value says, alone in a tuple; () if it is wrong."""
        if not isinstance(parser, _ListOf):
            try:
                return (parser(value),)
            except _Wrong as wrong:
                self.wrong(place, f"{wrong}; found {_found(value)}")
                return ()
        if not isinstance(value, list) or not value:
            self.wrong(place, f"must be an array of strings, such as {parser.example}; found {_found(value)}")
            return ()
        items = [self.read(f"{place}[{index}]", parser.parser, item) for index, item in enumerate(value)]
        return (tuple(item for (item,) in items),) if all(items) else ()
