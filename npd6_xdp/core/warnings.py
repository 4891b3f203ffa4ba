# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a table, or the machine as it is now, doesn't do what the writer of the configuration may expect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from npd6_xdp.core.entries import Entry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.names import word
from npd6_xdp.core.prefix import BITS, MASKS, Prefix
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.table import NOTHING_DECIDED, Decision, Decisions, Match, Table

MOST_SAID = 20
"""Warnings that are said at once, a line each: as many as of a file's mistakes."""

ALL_INTERFACES = -1
"""The index by which the kernel says whether it forwards as a whole (NETCONFA_IFINDEX_ALL)."""

_RDISC6 = "ndisc6"  # the package that has rdisc6(8)
_MOST_NAMED = 4  # interfaces in one command
_ALWAYS_THERE = (Decision.STATIC, Decision.KERNEL)
_LOOKED_AT = 32  # that are only looked at, 512 times so many at once: see pieces()
_WITHOUT_FORWARDING = {
    Decision.ROUTE: "method route finds no target there",
    Decision.KERNEL: "method kernel answers nothing there",
    Decision.NEIGHBOUR: "hosts are answered for and what is sent to them gets no further",
}


class WarningKind(StrEnum):
    """What a warning is about: the label `kind` of npd6_warnings."""

    RULE = "rule"
    INTERFACE = "interface"
    VIA = "via"
    FORWARDING = "forwarding"
    NEIGHBOUR_TABLE = "neighbour_table"
    TAGS = "tags"
    ROUTER_ADVERTISEMENTS = "router_advertisements"
    CERTIFICATE = "certificate"


Warnings = Mapping[WarningKind, Sequence[str]]


def offload_warning(name: str) -> str:
    """A port with VLANs whose card takes the tags out of the frames before XDP sees them."""
    return f"{name}: receive VLAN offload is on, which can hide VLAN tags from XDP: ethtool -K {word(name)} rxvlan off"


class Receiver(NamedTuple):
    """An interface that router advertisements may come in by: its sysctls, and what there is of these.

    `advertised` says that it has an address, or the default route, that the kernel made by one, `heard` that some have
    come in.
    """

    name: str
    forwarding: bool
    accept_ra: int
    advertised: bool
    heard: bool

    @property
    def ignores_ra(self) -> bool:
        """Whether the kernel ignores router advertisements there, for forwarding's sake."""
        return self.forwarding and self.accept_ra == 1


class DefaultRoute(NamedTuple):
    """Where this host sends what no other route is for; `advertised` by a router."""

    interface: str
    advertised: bool


def forwarding_warnings(
    table: Table,
    links: Mapping[str, LinkFacts],
    forwards: Callable[[int], bool | None],
    receivers: Iterable[Receiver],
) -> list[str]:
    """Ports that don't forward, so a method finds no hosts, or none that packets reach. `forwards` takes an index."""
    names = {link.ifindex: link.name for link in links.values()}
    kept, whole = list(receivers), forwards(ALL_INTERFACES)
    lines: dict[str, str] = {}
    for decision in _WITHOUT_FORWARDING:
        for ifindex in {entry.l3_ifindex for entry in table.live(decision)}:
            if (name := names.get(ifindex)) is not None:
                why = forwarding_warning(decision, name, forwards(ifindex), whole, kept)
                lines.setdefault(name, why) if why else None
    return [lines[name] for name in sorted(lines)]


def forwarding_warning(
    decision: Decision, name: str, port: bool | None, whole: bool | None, receivers: Iterable[Receiver]
) -> str:
    """What it means that forwarding is off, on a port or as a whole, and what to do; "" where it doesn't matter.

    What is for a host goes on by net.ipv6.conf.all.forwarding alone (ip6_forward). The port's own decides whether a
    route is found for what comes in there (bpf_fib_lookup), and whether the kernel answers by its own proxy
    (ndisc_recv_ns). None is not known.
    """
    means = _WITHOUT_FORWARDING.get(decision)
    if whole is None:
        whole = port
    if means is None or not (whole is False or (port is False and decision is not Decision.NEIGHBOUR)):
        return ""
    if port is not False:
        means = _WITHOUT_FORWARDING[Decision.NEIGHBOUR]
    mend = " ".join(forwarding_mend(receivers, name if whole else ""))
    return f"{name}: forwarding is off, so {means}: sysctl -w {mend}"


def forwarding_mend(receivers: Iterable[Receiver], name: str = "") -> list[str]:
    """What sysctl(8) is to write, in this order: what keeps the kernel from throwing its default routes away, which it
    does as forwarding is switched on anywhere (rt6_purge_dflt_routers), and forwarding; of one interface, if `name`.
    """
    risked = [receiver.name for receiver in receivers if receiver.accept_ra == 1 and receiver.advertised]
    kept = [_accept(each) for each in risked[:_MOST_NAMED]]
    return [*kept, word(f"net/ipv6/conf/{name}/forwarding=1") if name else "net.ipv6.conf.all.forwarding=1"]


def solicited(name: str, *, can_ask: bool = True) -> tuple[str, ...]:
    """The commands, one after the other, that ask the routers of an interface for an advertisement (RFC 4861 §6.3.7):
    by rdisc6(8), which has to be installed first, unless this machine `can_ask` already.
    """
    ask = f"rdisc6 -1 {word(name)}"
    return (ask,) if can_ask else (f"apt-get install {_RDISC6}", ask)


def _accept(name: str) -> str:
    return word(f"net/ipv6/conf/{name}/accept_ra=2")  # with slashes, where the name has a dot ("wan0.100")


def advertisement_warnings(
    receivers: Iterable[Receiver], default: DefaultRoute | None, missed: frozenset[str] = frozenset()
) -> list[str]:
    """Interfaces whose router advertisements the kernel ignores, where the default route comes from these.

    With forwarding on, accept_ra has to be 2 (Documentation/networking/ip-sysctl.rst). It is no matter where there is
    another default route, where somebody else takes them in (accept_ra is 0 then), or where none have ever come.

    `missed` names those on which they were ignored by the last look, with no default route left: that they are taken in
    again brings it back with the next one only. One line an interface at most.
    """
    if default is not None and not default.advertised:
        return []
    lines = []
    for receiver in receivers:
        here = default is not None and default.interface == receiver.name
        if default is not None and not here:
            continue  # another interface's advertisements give it, and are taken in there or warned of
        if receiver.ignores_ra and (receiver.advertised or here or receiver.heard or receiver.name in missed):
            lines.append(
                f"{receiver.name}: forwarding is on and accept_ra is 1, so the kernel ignores router advertisements"
                f" there, and the default route that they give {'runs out' if here else 'is gone'}:"
                f" sysctl -w {_accept(receiver.name)}"
            )
        elif not receiver.ignores_ra and default is None and receiver.name in missed and receiver.accept_ra:
            lines.append(
                f"{receiver.name}: the kernel takes in router advertisements again, and the default route that they"
                f" give comes with the next one: {solicited(receiver.name)[-1]} asks for it"
            )
    return lines


def warnings(table: Table) -> list[str]:
    """What a configuration asks for that its writer may not have meant, a line each."""
    return finish(finding_warnings(table))


def finding_warnings(table: Table) -> Steps[list[str]]:
    """The same, bit by bit."""
    covered: set[tuple[int, Prefix]] = set()
    for entry, decisions in table.decisions.items():
        for some in pieces(_over(decisions, _on_link(table.entries[entry]))):
            for found in some:
                if found is not None and table.rules[found[1]].decision in _ALWAYS_THERE:
                    covered.add((found[1], found[0]))
            yield
    return [
        *table.notes,
        *(
            f"{table.entries[table.rules[rule].entry].label}: {_covers(table, rule, here)}"
            for rule, here in sorted(covered)
        ),
    ]


def on_link_warning(table: Table, match: Match) -> str:
    """The warning if a target's rule would answer for neighbours on the entry's own link; else ""."""
    entry = table.rules[match.rule].entry
    found = _over(table.decisions.get(entry, NOTHING_DECIDED), _on_link(table.entries[entry]))
    over = [each[0] for each in found if each and each[1] == match.rule and match.decision in _ALWAYS_THERE]
    return _covers(table, match.rule, min(over)) if over else ""


def _covers(table: Table, rule_id: int, network: Prefix) -> str:
    rule = table.rules[rule_id]
    return (
        f"the {rule.method} rule {rule.prefix} covers {network}, which is on-link there:"
        f" it answers for the neighbours on {table.entries[rule.entry].port}'s own side, too; narrow the prefix,"
        " or ignore that part"
    )


def _on_link(entry: Entry) -> set[Prefix]:
    """The prefixes that others may have addresses in on an entry's link. A /128 is the host's own alone."""
    return {held.network for held in entry.addresses if not held.address.is_link_local and held.prefix_length < BITS}


def _over(decisions: Decisions, on_link: set[Prefix]) -> Iterator[tuple[Prefix, int] | None]:
    """The on-link prefixes of which rules say that all targets are there: most of one by the longest line around it,
    parts of it by the lines within. None of lines of which there is nothing to say.
    """
    for here in on_link:
        match = decisions.longest(here.address, here.length)
        if match is not None and match.decision in _ALWAYS_THERE:
            yield here, match.rule
    for length in {here.length for here in on_link}:
        mask = MASKS[length]
        addresses = {prefix.address for prefix in on_link if prefix.length == length}
        for lines in (decisions.lines, decisions.exceptions):
            for some in pieces(lines, _LOOKED_AT):
                yield None
                for prefix in [p for p in some if p.address & mask in addresses and p.length >= length]:
                    match = decisions.get(prefix)
                    if match is not None and match.decision in _ALWAYS_THERE:
                        yield Prefix(prefix.address & mask, length), match.rule


def all_lines(warnings: Warnings) -> Steps[Mapping[str, None]]:
    """All warnings, each once, in their order, bit by bit."""
    found: dict[str, None] = {}
    for some in pieces(line for lines in warnings.values() for line in lines):
        found.update(dict.fromkeys(some))
        yield
    return found


def first_of(lines: Sequence[str]) -> list[str]:
    """The first MOST_SAID of them, and in a line of its own how many more there are."""
    more = len(lines) - MOST_SAID
    return [*lines[:MOST_SAID], more_of(more)] if more > 0 else list(lines)


def more_of(count: int) -> str:
    """The line that says how many aren't said, and where they stand."""
    return f"and {count:,} more warning{'' if count == 1 else 's'}: npd6-xdp status --json has all"
