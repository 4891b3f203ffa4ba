# SPDX-License-Identifier: GPL-2.0-or-later
"""A parser for each key: it turns a value of TOML into one of Config, or raises Wrong with a message for the user."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import NamedTuple

from npd6_xdp.core.config import Selection, Vlan, is_glob
from npd6_xdp.core.config_words import Float, Wrong, in_words, nearest, quoted
from npd6_xdp.core.macs import mac_of
from npd6_xdp.core.names import canonical, raw
from npd6_xdp.core.prefix import BITS, Prefix, of_range, read_plain
from npd6_xdp.core.roles import RoleAddress

Parser = Callable[[object], object]
PREFIX = "2001:db8:1::/64"
_RANGE = "2001:db8:1::10-2001:db8:1::1f"
_WEB_CONFIG = "/etc/npd6-xdp/web.yml"
_SOCKET = "/run/npd6-xdp/control.sock"
_MULTICAST = Prefix.of("ff00::/8")
_UNSPECIFIED_AND_LOOPBACK = Prefix.of("::/127")
LINK_LOCAL = IPv6Network("fe80::/10")
_LINK_LOCAL = Prefix.of(LINK_LOCAL)
_LONGEST = 4096  # characters of a string: no path has more (PATH_MAX), and spaces around a range's dash are allowed
_LONGEST_GLOB = 255  # characters; a name has 15
LINK_LOCAL_ALONE = "link-local targets need a rule each; write the address"


class Targets(NamedTuple):
    """What a rule's prefix means: `networks`, or those of the interface that it `follows`."""

    networks: tuple[Prefix, ...] = ()
    follows: str = ""
    narrows: bool = True  # an address or a range takes no include and exclude

    @property
    def names(self) -> tuple[Prefix | str, ...]:
        """What no other rule of the entry may say."""
        return self.networks or (f"interface:{self.follows}",)


def _string(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise Wrong(f'must be a string such as "{example}"')
    if len(value) > _LONGEST:  # whoever takes it in, shows it and logs it would have to do that in bits
        raise Wrong(f'must be a string of at most {_LONGEST:,} characters, such as "{example}"')
    return value


def boolean(value: object) -> bool:
    """A TOML boolean."""
    if not isinstance(value, bool):
        raise Wrong("must be true or false, without quotes")
    return value


@dataclass(frozen=True, slots=True)
class Whole:
    """The parser of a whole number, both bounds included."""

    low: int
    high: int

    def __call__(self, value: object) -> int:
        """The number, or Wrong."""
        if type(value) is not int or not self.low <= value <= self.high:  # and no bool
            raise Wrong(f"must be a whole number from {self.low} to {self.high}, without quotes")
        return value


class OneOf:
    """The parser of a string that is one of `choices`; it gives the choice itself, an enum's member too.

    `foreign` has words that another program has for some of them, each with that program's name.
    """

    def __init__(self, choices: Iterable[str], foreign: Mapping[str, tuple[str, str]] | None = None) -> None:
        self.choices = {str(choice): choice for choice in choices}
        self._foreign = foreign or {}

    def __call__(self, value: object) -> str:
        """The choice's value, or Wrong."""
        if isinstance(value, str) and value in self.choices:
            return self.choices[value]
        word = value if isinstance(value, str) else ""
        raise Wrong(f"must be {' or '.join(map(quoted, self.choices))}", lambda: self._hint(word))

    def _hint(self, word: str) -> str:
        if not word:
            return ""
        if word in self._foreign:
            theirs, ours = self._foreign[word]
            return f"; what {theirs} calls {quoted(word)} is {quoted(ours)} here"
        meant = nearest(word, self.choices)
        return f", probably {quoted(meant)}" if meant else ""


def _ip_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _port(text: str) -> int | None:
    number = int(text) if re.fullmatch("[0-9]{1,5}", text) else 0
    return number if 1 <= number <= 65535 else None


def listen(value: object) -> tuple[tuple[str, int], ...]:
    """Where the metrics endpoint listens, if that is at one address: as listen_address() has it; "" is none."""
    return () if value == "" else (listen_address(value),)


def listen_address(value: object) -> tuple[str, int]:
    """One of the addresses at which the metrics endpoint listens: "ADDRESS:PORT" as (address, port)."""
    text = _string(value, "[::1]:9846")
    if "%" in text:
        raise Wrong('takes no scope id (%); write an address without one, such as "[::1]:9846"')
    parts = re.fullmatch(r"(\[[^]]*\]|[^][:]*)(?::([^:]*))?", text)
    if parts is None:
        raise Wrong(f'must be ADDRESS:PORT, IPv6 in brackets; write "{_bracketed(text)}"')
    host, port = parts[1], parts[2] or ""
    address = _ip_address(host.strip("[]"))
    if address is None:
        raise Wrong('must be an IP address, not a name, and a port; write one such as "[::1]:9846"')
    if address.version == 4 and host.startswith("["):
        raise Wrong(f'an IPv4 address takes no brackets; write "{address}:{_port(port) or 9846}"')
    if not port:
        raise Wrong(f'the port is missing; write "{host}:9846"')
    if _port(port) is None:
        raise Wrong("the port must be a whole number from 1 to 65535")
    return str(address), int(port)


def heard_twice(addresses: Iterable[tuple[str, int]]) -> Iterator[tuple[int, int]]:
    """The indexes of those at which another listens, too, each with the other's: :: has all of IPv6 and of IPv4.

    The kernel refuses the second of two such sockets.
    """
    first: dict[tuple[str, int], int] = {}
    for index, address in enumerate(addresses):
        if (other := first.setdefault(address, index)) != index:
            yield index, other
    for (host, port), index in first.items():
        wider = ("::", *(() if ":" in host else ("0.0.0.0",)))  # noqa: S104
        found = next((first[each, port] for each in wider if each != host and (each, port) in first), None)
        if found is not None:
            yield index, found


def _bracketed(text: str) -> str:
    """What an address without brackets was probably meant to be."""
    host, _, port = text.rpartition(":")
    if _ip_address(host) and _port(port):
        return f"[{host}]:{port}"
    return f"[{text}]:9846" if _ip_address(text) else "[::1]:9846"


def control(value: object) -> str:
    """The path of the control socket; the kernel takes 107 bytes and a zero byte (unix(7), sun_path)."""
    path = _string(value, _SOCKET)
    if not path.startswith("/") or path.endswith("/"):
        raise Wrong(f'must be the absolute path of a socket, such as "{_SOCKET}"')
    if "\0" in path:
        raise Wrong("a path holds no zero byte")
    if len(path.encode()) > 107:
        raise Wrong("a socket's path has at most 107 bytes; write a shorter one")
    return path


def web_config(value: object) -> str:
    """The path of a web configuration file; "" is none."""
    path = _string(value, _WEB_CONFIG)
    if path and (not path.startswith("/") or path.endswith("/")):
        raise Wrong(f'must be the absolute path of a file, such as "{_WEB_CONFIG}"')
    if "\0" in path:
        raise Wrong("a path holds no zero byte")
    return path


def exact_name(value: object) -> str:
    """The name of one interface, whose prefixes are followed."""
    name = _string(value, "lan0")
    if ":" in name:
        raise Wrong('an interface\'s name holds no ":"; a VLAN device has a name such as "lan0.100"')
    if is_glob(name):
        raise Wrong('must be the exact name of one interface, such as "lan0"')
    return _linux_name(name, name)


def via_name(value: object) -> str:
    """The name of an interface that targets live behind, or a glob for several."""
    name = _string(value, "lan0")
    if ":" in name:
        raise Wrong('an interface\'s name holds no ":"; a VLAN device has a name such as "lan0.100"')
    return _linux_name(name, _shortest(name) if is_glob(name) else name)


def interface_name(value: object) -> str:
    """The name of an entry's port, or a glob for several."""
    name = _string(value, "wan0")
    if ":" in name:
        raise Wrong('an interface\'s name holds no ":"; a VLAN is a key of its own, vlan = 100')
    return _linux_name(name, _shortest(name) if is_glob(name) else name)


def active_with(value: object) -> str:
    """The address that an entry is active with, as RoleAddress spells it; "" is none."""
    text = _string(value, "2001:db8::1")
    if not text:
        return ""
    before, percent, name = text.partition("%")
    address = _ip_address(before)
    if address is None:
        raise Wrong('must be an IPv4 or IPv6 address without a prefix length, such as "2001:db8::1", or "" for always')
    if address.is_multicast or address.is_unspecified or address.is_loopback or address == _BROADCAST:
        raise Wrong("must be an address that one machine holds at a time, and another one may get")
    link_local = isinstance(address, IPv6Address) and address.is_link_local
    if link_local and not percent:
        raise Wrong(f'a link-local address needs its interface; write one such as "{address}%wan0"')
    if percent and not link_local:
        raise Wrong(f'only a link-local address takes an interface (%); write "{address}", which counts on any')
    return str(RoleAddress(address, exact_name(name) if percent else ""))


def link_address(value: object) -> str:
    """A MAC address that is advertised instead of the port's own; "" is none."""
    text = _string(value, "00:00:5e:00:02:33")
    if not text:
        return ""
    try:
        mac = mac_of(text)
    except ValueError:
        raise Wrong('must be a MAC address such as "00:00:5e:00:02:33", or "" for the port\'s own') from None
    if mac[0] & 1 or not any(mac):
        raise Wrong("must be one station's MAC address: the first byte is even, and not all are 0")
    return mac.hex(":")


_BROADCAST = IPv4Address("255.255.255.255")
_MOST_NAME, _MOST_ALTERNATIVE_NAME = 15, 127  # bytes


def _linux_name(name: str, shortest: str) -> str:
    """A name that Linux takes (dev_valid_name in net/core/dev.c, which counts bytes)."""
    if not name.isprintable() or set(name) & set(" /") or name in {".", ".."}:
        raise Wrong('an interface\'s name holds no "/" and no white space')
    if not name or len(raw(shortest)) > (_MOST_NAME if is_glob(name) else _MOST_ALTERNATIVE_NAME):
        raise Wrong("an interface's name has 1 to 15 characters, an alternative one up to 127")
    return canonical(name)


def _shortest(glob: str) -> str:
    """The shortest text that a glob stands for, with a "?" for each character that it leaves open."""
    if len(glob) > _LONGEST_GLOB:
        raise Wrong(f"a pattern for names has at most {_LONGEST_GLOB} characters")
    parts = r"\[!?+\]?+[^]]*\]"  # as fnmatch reads it: a "]" that comes first doesn't close
    for part in re.findall(parts, glob):
        if part.isascii() and not any(fnmatch.fnmatchcase(chr(code), part) for code in range(0x21, 0x7F)):
            raise Wrong(f'{quoted(part)} matches no character; write what it may be, such as "[0-9]"')
    shortest = re.sub(parts, "?", glob)
    if "[" in shortest:
        raise Wrong('a "[" is never closed; write "[[]" for the character itself')
    return shortest.replace("*", "")


def parse_vlan(text: str) -> Vlan:
    """Read a `vlan` value as the command line has it; ValueError says what is wrong with it."""
    try:
        return vlan(text)
    except Wrong as wrong:
        raise ValueError(f"{wrong}; found {in_words(text)}") from None


def vlan(value: object) -> Vlan:
    """untagged, any, or one or two VLAN ids: 100, "100", "100.7"."""
    if value in ("untagged", "any"):
        return Vlan(any=value == "any")
    text = value.text if isinstance(value, Float) else value if isinstance(value, str) else ""
    if type(value) is int and abs(value) < 10**9:  # and no bool
        text = str(value)
    if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise Wrong('must be "untagged", "any", a VLAN such as 100, or two such as "100.7"')
    tags = tuple(int(tag) for tag in text.split("."))
    if 0 in tags:
        raise Wrong('VLAN 0 is none: its tag carries a priority only (IEEE 802.1Q), and is "untagged" here')
    if 4095 in tags:
        raise Wrong("VLAN 4095 is reserved (IEEE 802.1Q); write 1 to 4094")
    if not all(1 <= tag <= 4094 for tag in tags):
        raise Wrong("a VLAN is 1 to 4094")
    if isinstance(value, Float):
        raise Wrong(f'two tags need quotes; write vlan = "{text}"')
    return Vlan(tags=tags)


def plain_target(text: str) -> Prefix | None:
    """What a rule's prefix means where it is one prefix or address written as usual; None: that targets() is to say."""
    plain = read_plain(text)
    return None if plain is None or _is_special(plain) else plain


def targets(value: object) -> Targets:
    """A rule's prefix: a prefix, an address, a range or "interface:NAME"."""
    text = _string(value, PREFIX)
    plain = plain_target(text)
    if plain is not None:
        return Targets((plain,), narrows=plain.length < BITS)
    kind, colon, name = text.partition(":")
    if colon and kind == "interface":
        return Targets(follows=exact_name(name))
    if "%" in text:
        raise Wrong("takes no scope id (%); the [[interface]] that the rule is part of names the link")
    if _is_range(text):
        first, last = _range(text)
        networks = tuple(of_range(first, last))
        if any(map(never_answered, networks)):
            raise Wrong("multicast addresses, :: and ::1 are never answered; leave them out")
        if first != last and any(map(link_local, networks)):
            raise Wrong(f"{LINK_LOCAL_ALONE} of each")
        return Targets(networks, narrows=False)
    address, written = _network(text, PREFIX)
    network = Prefix.of(written)
    if never_answered(network):
        raise Wrong("multicast addresses, :: and ::1 are never answered; leave the rule out")
    if link_local(network) and network.length < BITS:
        raise Wrong(f'{LINK_LOCAL_ALONE}, such as "{address}"')
    if int(address) != network.address:
        or_address = "" if never_answered(Prefix(int(address), BITS)) else f" or {address}"
        raise Wrong(f"{text} has host bits set; write {network}{or_address}")
    return Targets((network,), narrows=network.length < BITS)


def selection(value: object) -> Selection:
    """An entry of include or exclude: an address, a prefix or a range, in full or as a suffix."""
    text = _string(value, "::10-::1f")
    plain = read_plain(text)
    if plain is not None:
        return Selection(text, *plain.ends)
    if "%" in text:
        raise Wrong("takes no scope id (%); the [[interface]] that the rule is part of names the link")
    if _is_range(text):
        return Selection(text, *_range(text))
    address, network = _network(text, "::1:0/112")
    if address != network.network_address:
        raise Wrong(f"{text} has host bits set; write {network} or {address}")
    return Selection(text, int(network.network_address), int(network.broadcast_address))


def _network(text: str, example: str) -> tuple[IPv6Address, IPv6Network]:
    """A prefix and the address in front of its length; an address is a /128."""
    try:
        written = ipaddress.IPv6Interface(text)
    except ipaddress.NetmaskValueError:
        raise Wrong("the prefix length must be a whole number from 0 to 128") from None
    except ValueError:
        ipv4 = isinstance(_ip_address(text.partition("/")[0]), IPv4Address)
        kind = "an IPv6 prefix, and IPv6 only" if ipv4 else "an IPv6 prefix or address"
        raise Wrong(f'must be {kind}, such as "{example}"') from None
    return written.ip, written.network


def _is_range(text: str) -> bool:
    """Whether a range was meant, rather than a name with a dash in it."""
    return "-" in text and bool(set(text) & set(":."))


def _range(text: str) -> tuple[int, int]:
    """The ends of "A-B"."""
    ends = text.split("-")
    if len(ends) != 2:
        raise Wrong(f'a range has two ends, such as "{_RANGE}"')
    first, last = _ip_address(ends[0].rstrip(" ")), _ip_address(ends[1].lstrip(" "))
    if not isinstance(first, IPv6Address) or not isinstance(last, IPv6Address):
        raise Wrong(f'both ends of a range must be whole IPv6 addresses, such as "{_RANGE}"')
    if last < first:
        raise Wrong(f'the range ends before it begins; write "{last}-{first}"')
    return int(first), int(last)


def never_answered(network: Prefix) -> bool:
    """Multicast, :: and ::1 (docs/rules.md, A5 and C3)."""
    return _MULTICAST.covers(network) or _UNSPECIFIED_AND_LOOPBACK.covers(network)


def link_local(network: Prefix) -> bool:
    """Never answered either, unless a rule names exactly this address (docs/rules.md, C2)."""
    return _LINK_LOCAL.covers(network)


def _is_special(network: Prefix) -> bool:
    """A quick test that one of the two above may be true: the prefix lies below 2^118, or from fe80:: on."""
    return not 0 < network.address >> 118 < _LINK_LOCAL.address >> 118
