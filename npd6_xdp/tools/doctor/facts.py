# SPDX-License-Identifier: GPL-2.0-or-later
"""All that the checks of `doctor` look at, as values: read once (reading.py), so that a check only judges.

What couldn't be looked at is said by a word of its own, never by an empty value: to have no firewall and not to be
allowed to see one are different things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

from npd6_xdp.core.config import Config
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbour_messages import NeighbourEntry
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.route_messages import TABLE_MAIN, RouteReply
from npd6_xdp.core.survey import Way
from npd6_xdp.core.table import Table
from npd6_xdp.core.vlan_filter import KeptBack
from npd6_xdp.core.warnings import DefaultRoute, Receiver
from npd6_xdp.tools.doctor.ruleset import Chain


class Service(NamedTuple):
    """What systemd gives the daemon by its unit, which isn't what this process has: its user, its capabilities of
    system/privileges.py's NUMBERS (a bit each), and RLIMIT_MEMLOCK in bytes (-1: no limit).
    """

    user: str
    capabilities: int
    locked_memory: int


class MachineFacts(NamedTuple):
    """The machine itself: `bcc` is its version, or "" and `no_bcc` says why. `missing` are capabilities that this
    process lacks. `program` says why the program doesn't load: "" is that it does, None that it wasn't tried. `pages`
    are those of a ring to Python that the kernel grants, of `pages_wanted`; `no_ring` says why it grants none. Both are
    0 and "" where it wasn't asked.
    """

    kernel: str
    bcc: str
    no_bcc: str
    missing: tuple[str, ...]
    program: str | None
    pages: int
    pages_wanted: int
    no_ring: str
    paranoid: str
    """The sysctl kernel.perf_event_paranoid; "" where it can't be read."""
    locked_memory: int
    """RLIMIT_MEMLOCK of this process in bytes; -1: no limit."""
    memory_wanted: int
    """What the rings take (bytes), twice: while a reload replaces a program."""
    time: float
    """Seconds since the epoch."""
    synchronised: bool | None
    """Whether something keeps the clock right; None: the kernel doesn't say."""
    distribution: str = ""
    """Its name and version as os-release(5) has them, "debian 12"; "" where it doesn't say."""
    service: Service | None = None
    """As which the rings were asked for, where systemd is to run the daemon; None: as this process."""


class Program(NamedTuple):
    """A program on an interface: its id and mode ("xdp", "xdpgeneric", "xdpoffload", as `ip link set` has them; "tc").

    `name` is "" where this process may not see it; `holders` are those that hold the link by which it is attached.
    """

    id: int
    mode: str
    name: str = ""
    holders: tuple[tuple[str, int], ...] = ()


class Port(NamedTuple):
    """An interface of the configuration, beside its LinkFacts: `features` are the kernel's NETDEV_XDP_ACT_* of its
    driver, None where the kernel doesn't tell; `driver` is the driver's name, "" where nobody says.
    """

    entry: LinkEntry
    driver: str
    features: int | None
    programs: tuple[Program, ...]
    rxvlan: bool
    tried: str | None = None
    """What was said to the program in native mode, or at tc where it is to sit: "" took it; None: it wasn't tried."""
    at_tc: tuple[Program, ...] = ()
    """Those at its tc ingress, in their order."""
    kept_back: KeptBack | None = None
    """What its card may keep back of the frames that there are entries for."""


class Bridge(NamedTuple):
    """A bridge: whether it snoops MLD, whether there is a querier, and its multicast_router (2: it is one)."""

    snooping: bool
    querier: bool
    router: int


class Sample(NamedTuple):
    """Where the kernel sends a packet for a target of a rule (its id) that comes in by an interface; None: it doesn't
    say. `found`: it is a host that is there.
    """

    rule: int
    interface: int
    target: IPv6Address
    found: bool
    reply: RouteReply | None


class Firewall(NamedTuple):
    """Base chains that see packets, from nftables and ip6tables; `unread` says what couldn't be looked at, and why.

    `bridged` names the chains that see what passes between a bridge's ports, and may drop it.
    """

    chains: tuple[Chain, ...] = ()
    unread: tuple[str, ...] = ()
    bridged: tuple[str, ...] = ()


class Unit(NamedTuple):
    """The systemd unit, by its properties; None of them where there is no systemd. `unread`: it couldn't be asked."""

    properties: Mapping[str, str] | None = None
    unread: str = ""


class Answerer(NamedTuple):
    """A process that answers for addresses, too; `unit` is systemd's that it is of, "" where it is of none."""

    name: str
    pid: int
    unit: str = ""


class NetworkdLine(NamedTuple):
    """A line of one of systemd-networkd's files that has it proxy: what it says, and as it is written."""

    file: Path
    key: str
    value: str
    written: str


_UNICAST = (Prefix(0x2000 << 112, 3), Prefix(0xFC00 << 112, 7))  # global (RFC 4291 §2.4), and unique local (RFC 4193)
_NO_FIREWALL, _NO_UNIT = Firewall(), Unit()


def is_unicast(prefix: Prefix) -> bool:
    """Whether hosts may have addresses of a prefix that are known beyond their link."""
    return any(each.covers(prefix) for each in _UNICAST)


class Echo(NamedTuple):
    """What a host behind `interface` makes of echo requests: whether it answers `near`, on its own link, and `far`,
    which is off it, and which it needs a default route for. `asked` are those for whom it asked instead of that.
    """

    host: IPv6Address
    interface: str
    near: IPv6Address
    far: IPv6Address
    from_near: bool
    from_far: bool
    asked: frozenset[IPv6Address] = frozenset()


class WebFacts(NamedTuple):
    """What is wrong with the web configuration, and what is unwise: a line each."""

    refused: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()


_NO_WEB = WebFacts()


@dataclass(frozen=True)
class Facts:
    """Everything. `config` has this machine's names of interfaces, and `path` is its file. `status` is the daemon's
    (None: none answers at `control`, for the reason `no_daemon`). `sysctls` has what was read below net.ipv6.
    """

    config: Config
    path: Path
    text: str
    modified: float
    control: Path
    links: Mapping[str, LinkFacts]
    table: Table
    machine: MachineFacts
    ports: Mapping[str, Port] = field(default_factory=dict)
    bridges: Mapping[str, Bridge] = field(default_factory=dict)
    status: Mapping[str, Any] | None = None
    no_daemon: str = ""
    is_silent: bool = False
    """One is there, and says nothing."""
    forwards: Mapping[int, bool] = field(default_factory=dict)
    receivers: Sequence[Receiver] = ()
    default: DefaultRoute | None = None
    default_expires: float | None = None
    """Seconds until the advertised default route goes."""
    routers: Sequence[tuple[str, IPv6Address]] = ()
    """Neighbours that have said of themselves that they are routers, with the interface."""
    can_ask_routers: bool = True
    """By rdisc6(8), which may be missing."""
    sysctls: Mapping[str, str | None] = field(default_factory=dict)
    routes: Sequence[Way] = ()
    refusing: Sequence[Prefix] = ()
    """The destinations of routes that say no, where the kernel says that a sample has come to one."""
    samples: Sequence[Sample] = ()
    neighbours: Sequence[NeighbourEntry] = ()
    table_size: tuple[int, tuple[int, int, int]] | None = None
    proxies: Sequence[tuple[str, IPv6Address]] = ()
    """The kernel's proxy entries that aren't ours."""
    daemons: Sequence[Answerer] = ()
    """Other answerers that run here."""
    networkd: Sequence[NetworkdLine] = ()
    firewall: Firewall = _NO_FIREWALL
    unit: Unit = _NO_UNIT
    web: WebFacts = _NO_WEB
    echoes: Sequence[Echo] = ()

    @cached_property
    def prefixes(self) -> Sequence[Prefix]:
        """The routes' destinations, in their order: of hundreds of thousands, made once."""
        return [route.destination for route in self.routes]

    @cached_property
    def direct(self) -> Mapping[Prefix, Sequence[Way]]:
        """The routes of the table main that need no gateway, by destination: those of unicast that isn't link-local."""
        found: dict[Prefix, list[Way]] = {}
        for prefix, route in zip(self.prefixes, self.routes, strict=True):
            by_gateway = any(gateway for _, gateway in route.hops)
            if not by_gateway and route.table == TABLE_MAIN and is_unicast(prefix):
                found.setdefault(prefix, []).append(route)
        return found

    @cached_property
    def names(self) -> Mapping[int, str]:
        """The names of interfaces by their indexes."""
        return {link.ifindex: link.name for link in self.links.values()}

    def name(self, ifindex: int) -> str:
        """That of one; its index where it is gone."""
        return self.names.get(ifindex, f"interface {ifindex}")
