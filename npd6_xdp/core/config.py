# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration as it is once it is read, frozen: its interfaces, their rules, and what a name in it means."""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from npd6_xdp.core.macs import mac_of
from npd6_xdp.core.prefix import BITS, Prefix, of_range
from npd6_xdp.core.steps import Steps, finish, pieces, weighed
from npd6_xdp.core.verdict import Method
from npd6_xdp.core.web_config import NO_WEB_CONFIG, WebConfig

_MOST_FOUND = 16384  # names of interfaces
_OF_GLOBS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Vlan:
    """Which frames on a port an entry speaks for.

    `any` is all of them; else `tags` are the VLAN ids, outermost first: () untagged, (100,) or (100, 7).
    A tag with VID 0 carries a priority only and is no VLAN (IEEE 802.1Q), so it is never in `tags`.
    """

    any: bool = False
    tags: tuple[int, ...] = ()

    @property
    def has_tagged(self) -> bool:
        """Whether there are frames with a tag among them."""
        return self.any or bool(self.tags)

    def __str__(self) -> str:
        """As the configuration file spells it: "any", "untagged", "100", "100.7"."""
        if self.any:
            return "any"
        return ".".join(str(vid) for vid in self.tags) or "untagged"


UNTAGGED = Vlan()


class Selection(NamedTuple):
    """An entry of `include` or `exclude`: the addresses `first` to `last`, both included, as the file spells them.

    Under a prefix of length n it is a suffix, to be placed there, if the first n bits of both ends are zero;
    else it has to lie within the prefix as it is.
    """

    text: str
    first: int
    last: int

    def within(self, network: Prefix) -> tuple[Prefix, ...] | None:
        """The prefixes that it stands for under `network`; None if it doesn't lie there."""
        base, host_bits = network.address, BITS - network.length
        first, last = self.first, self.last
        if not (first | last) >> host_bits:
            first, last = first | base, last | base
        if first >> host_bits != base >> host_bits or last >> host_bits != base >> host_bits:
            return None
        return tuple(of_range(first, last))


def is_glob(name: str) -> bool:
    """Whether an interface's name is a pattern for several."""
    return not _OF_GLOBS.isdisjoint(name)


def matches(name: str, pattern: str) -> bool:
    """Whether an interface's name is the one that is meant, or one of those that a glob means."""
    return fnmatch.fnmatchcase(name, pattern) if is_glob(pattern) else name == pattern


class Attach(StrEnum):
    """Where the program sits: as XDP in the driver (native) or in the kernel's receive path (generic), or at tc."""

    AUTO = "auto"
    NATIVE = "native"
    TC = "tc"
    GENERIC = "generic"


class TcOrder(StrEnum):
    """Where it stands among the programs at an interface's tc ingress, when it is attached there."""

    FIRST = "first"
    LAST = "last"


class Wish(NamedTuple):
    """How the program of a port is to be attached. `tc_order` is FIRST where it says nothing."""

    attach: Attach
    tc_order: TcOrder = TcOrder.FIRST


class Datapath(StrEnum):
    """Who answers: XDP where it can and Python the rest, Python all, or nobody (count only)."""

    HYBRID = "hybrid"
    PYTHON = "python"
    MONITOR = "monitor"


class DadPolicy(StrEnum):
    """What a DAD probe (source ::) for a present target gets: nothing, or an answer (D1, D2 of docs/rules.md)."""

    IGNORE = "ignore"
    DEFEND = "defend"


class NaSource(StrEnum):
    """The advertisement's source: the target itself, or an address of the interface (B6 of docs/rules.md)."""

    TARGET = "target"
    INTERFACE = "interface"


class RuleConfig(NamedTuple):
    """One [[interface.rule]]: `prefix` as the file spells it, `networks` what it means.

    A range is several networks. `follows` names the interface whose global prefixes are meant instead
    ("interface:lan0"); `networks` is empty then. `via` has names and globs. What is None is as the [[interface]] says.
    """

    prefix: str
    networks: tuple[Prefix, ...]
    method: Method
    follows: str = ""
    via: tuple[str, ...] = ()
    include: tuple[Selection, ...] = ()
    exclude: tuple[Selection, ...] = ()
    router: bool | None = None
    dad: DadPolicy | None = None
    na_source: NaSource | None = None
    host_routes: bool = False


def some_rules(rules: Iterable[RuleConfig]) -> Iterator[list[RuleConfig]]:
    """So many rules at a time that it takes a millisecond or two to look at all names of their `via`."""
    return weighed(rules, _names_of)


def _names_of(rule: RuleConfig) -> int:
    return 1 + len(rule.via)


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """One [[interface]]: the frames of `vlan` on the port `name`, and the rules for their targets.

    `name` may be a glob ("wan*"). `events_per_source` None is the default of the datapath. `active_with` is the address
    that this machine has to hold for the entry to answer (core/roles.py); "" is none. `link_address` is a MAC address
    to advertise instead of the port's own, which "" is.
    """

    name: str
    rules: tuple[RuleConfig, ...]
    vlan: Vlan = UNTAGGED
    attach: Attach = Attach.AUTO
    tc_order: TcOrder = TcOrder.FIRST
    datapath: Datapath = Datapath.HYBRID
    router: bool = True
    dad: DadPolicy = DadPolicy.IGNORE
    na_source: NaSource = NaSource.TARGET
    events_per_source: int | None = None
    collect_targets: int = 0
    multicast_router: bool = False
    active_with: str = ""
    link_address: str = ""
    new_targets_per_second: int = 0

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

    @property
    def mac(self) -> bytes:
        """The MAC address of its `link_address`; b"" without one."""
        return mac_of(self.link_address) if self.link_address else b""

    def labelled(self, port: str) -> str:
        """The `interface` label of metrics and logs for a port: "wan0", or "wan0:100" for an entry with a VLAN."""
        return port if self.vlan == UNTAGGED else f"{port}:{self.vlan}"

    def matches(self, port: str) -> bool:
        """Whether the entry speaks for a port of that name."""
        return matches(port, self.name)


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits]: bounds of what load can make grow. Ages are seconds."""

    events_per_second: int = 150_000
    pending: int = 512
    neighbours: int = 65_536
    kernel_entries: int = 1024
    kernel_entry_age: int = 600
    host_route_keep: int = 120
    announcements_per_second: int = 1000
    remembered_targets: int = 65_536


class Remark(NamedTuple):
    """What is to be said of the file that a configuration was made of; `lost`: something of it is left out."""

    text: str
    lost: bool


class SearchedVia(NamedTuple):
    """A name or glob of `via`: the first rule that has it, and how many have."""

    first: str
    rules: int


@dataclass(frozen=True)
class Config:
    """A whole configuration file. `metrics_listen` has (address, port) of each; none switches it off.

    `web` is what the file that `metrics_web_config` names has said, where that was read, too. `remarks` are on a file
    of another format that it was made of.
    """

    interfaces: tuple[InterfaceConfig, ...]
    control: str = "/run/npd6-xdp/control.sock"
    log_level: str = "info"
    log_format: str = "text"
    metrics_listen: tuple[tuple[str, int], ...] = (("::1", 9846),)
    metrics_web_config: str = ""
    limits: Limits = Limits()
    web: WebConfig = NO_WEB_CONFIG
    remarks: tuple[Remark, ...] = ()

    def entries(self, port: str) -> tuple[InterfaceConfig, ...]:
        """The entries that speak for a port of that name, the one that wins first; each VLAN once.

        An exact name beats a glob, then a given VLAN beats "any"; among globs the first in the file.
        """
        if (known := self._found.get(port)) is not None:
            return known
        found = [*self._exact.get(port, ()), *(interface for interface in self._globs if interface.matches(port))]
        found.sort(key=lambda interface: (interface.is_glob, interface.vlan.any))
        winners: dict[Vlan, InterfaceConfig] = {}
        for interface in found:
            if interface.is_glob and any(vlan.any and not won.is_glob for vlan, won in winners.items()):
                break  # an exact name that takes any VLAN leaves nothing to a glob
            winners.setdefault(interface.vlan, interface)
        if len(self._found) >= _MOST_FOUND:  # names come and go
            self._found.clear()
        self._found[port] = tuple(winners.values())
        return self._found[port]

    @cached_property
    def _found(self) -> dict[str, tuple[InterfaceConfig, ...]]:
        """Earlier results of entries(), which is called for each link at each change of the machine."""
        return {}

    def knowing(self) -> Steps[None]:
        """Compute now what takes a while for a large file, and is asked for later when there is no time."""
        for name, finding in (
            ("via_names", self._finding_via_names),
            ("names", self._finding_names),
            ("searched", self._finding_searched),
        ):
            if name not in vars(self):
                vars(self)[name] = yield from finding()
        for name in ("role_addresses", "device_macs", "_exact", "_globs"):
            getattr(self, name)
            yield

    @cached_property
    def names(self) -> Set[str]:
        """All names and globs of interfaces that it has."""
        return finish(self._finding_names())

    def _finding_names(self) -> Steps[Set[str]]:
        found: set[str] = set()
        for interfaces in pieces(self.interfaces):
            found.update([interface.name for interface in interfaces])
            yield
        for rules in pieces(rule for interface in self.interfaces for rule in interface.rules):
            found.update([rule.follows for rule in rules if rule.follows])
            yield
        for names in pieces(self.via_names):
            found.update(names)
            yield
        return found

    @cached_property
    def role_addresses(self) -> frozenset[str]:
        """All that its `active_with` have."""
        return frozenset(interface.active_with for interface in self.interfaces if interface.active_with)

    @cached_property
    def device_macs(self) -> frozenset[bytes]:
        """All that its `link_address` have: a device is to take in what is sent there."""
        return frozenset(interface.mac for interface in self.interfaces if interface.mac)

    @cached_property
    def via_names(self) -> Set[str]:
        """All names and globs that `via` has."""
        return finish(self._finding_via_names())

    def _finding_via_names(self) -> Steps[Set[str]]:
        found: set[str] = set()
        for rules in some_rules(rule for interface in self.interfaces for rule in interface.rules):
            found.update(chain.from_iterable({rule.via for rule in rules}))
            yield
        return found

    @cached_property
    def searched(self) -> Mapping[str, SearchedVia]:
        """What rules of method neighbour name as `via`, in the order in which it occurs first."""
        return finish(self._finding_searched())

    def _finding_searched(self) -> Steps[Mapping[str, SearchedVia]]:
        found: dict[str, SearchedVia] = {}
        for interface in self.interfaces:
            counts: dict[tuple[str, ...], int] = {}
            first: dict[tuple[str, ...], str] = {}
            for rules in some_rules(interface.rules):  # there may be 100,000
                for rule in rules:
                    if rule.method is Method.NEIGHBOUR:
                        counts[rule.via] = counts.get(rule.via, 0) + 1
                        first.setdefault(rule.via, rule.prefix)
                yield
            for vias in weighed(counts, len):
                for via in vias:
                    here, count = f"{interface.label}: rule {first[via]}", counts[via]  # not once a name: it hashes all
                    for name in via:
                        where, before = found.get(name, (here, 0))
                        found[name] = SearchedVia(where, before + count)
                yield
        return found

    @cached_property
    def _exact(self) -> Mapping[str, Sequence[InterfaceConfig]]:
        """The entries by name. They are looked up for each link of the machine, and there may be hundreds."""
        found: defaultdict[str, list[InterfaceConfig]] = defaultdict(list)
        for interface in self.interfaces:
            if not interface.is_glob:
                found[interface.name].append(interface)
        return found

    @cached_property
    def _globs(self) -> Sequence[InterfaceConfig]:
        return [interface for interface in self.interfaces if interface.is_glob]

    def attach(self, port: str) -> Attach:
        """How the program of a port is attached. Its entries share the program: the first that doesn't say "auto"
        decides.
        """
        wishes = [interface.attach for interface in self.entries(port)]
        return next((wish for wish in wishes if wish is not Attach.AUTO), Attach.AUTO)

    def wish(self, port: str) -> Wish:
        """The same, and its place among tc programs, where it may be one: last if any of the port's entries says so."""
        attach = self.attach(port)
        may_be_tc = attach in (Attach.TC, Attach.AUTO)
        is_last = may_be_tc and any(each.tc_order is TcOrder.LAST for each in self.entries(port))
        return Wish(attach, TcOrder.LAST if is_last else TcOrder.FIRST)
