# SPDX-License-Identifier: GPL-2.0-or-later
"""The table in words: what `check` prints, and how `explain` tells the way of one solicitation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from npd6_xdp.core import reasons
from npd6_xdp.core.absent import absent, via_globs
from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, Datapath, InterfaceConfig, NaSource, RuleConfig, TcOrder
from npd6_xdp.core.config_keys import KEYS
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.flatten import Flat, flatten, rule_networks
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.links import LinkFacts, SourceFlag, advert_sources, followed_prefixes, held_addresses
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.roles import lack_text, role_text
from npd6_xdp.core.table import Decision, Match, Rule, RuleFlag, Table
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.core.vias import ReadSysctl, notes, port_down
from npd6_xdp.core.warnings import DefaultRoute, Receiver, forwarding_warning, on_link_warning

_ASKER = bytes.fromhex("020000000001")
_NO_MAC = bytes(6)
_MOST_VIAS = 8  # names that a glob is shown with
_IN_LINES = {"prefix", "method", "include", "exclude"}  # keys of a rule that a flat line shows by what it is
_RULE_KEYS = sorted(
    (key for key in KEYS["interface.rule"] if key not in _IN_LINES), key=lambda key: key not in KEYS["interface"]
)
"""The other keys of a rule: those first that it may set otherwise than its interface."""


def table_json(config: Config, links: Mapping[str, LinkFacts], held: Set[str] = frozenset()) -> dict[str, Any]:
    """The table as plain values: each entry with its keys and its flat rules, the most specific first.

    `links` says what rules that follow an interface's prefixes mean now, what the globs of `via` do ("via_now"), and
    what the file has for which there is no interface here ("absent"). `held` are the role addresses that this machine
    has; "active" is which role that, and the devices for a link_address, give an entry; of a glob, any port's.
    """
    globs = via_globs(config, links)
    return {
        "absent": absent(config, links) if links else [],
        "interfaces": [
            {
                "interface": interface.label,
                **{key: getattr(interface, key) for key in KEYS["interface"]},
                "vlan": str(interface.vlan),
                "events_per_source": interface.source_limit,
                **({"active": role[0]} if (role := _role(config, interface, links, held)) else {}),
                "rules": [_line_json(line, globs) for line in _most_specific_first(interface, links)],
            }
            for interface in config.interfaces
        ],
    }


def _line_json(line: Flat, globs: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {"prefix": str(line.network), "rule": line.rule.prefix, "method": _method(line)}
    if not line.left_out:
        for key in _RULE_KEYS:
            value = getattr(line.rule, key)
            if value != RuleConfig._field_defaults[key]:
                found[key] = list(value) if isinstance(value, tuple) else value
            if key == "via" and any(via in globs for via in value):
                found["via_now"] = sorted({name for via in value for name in globs.get(via, [via])} - globs.keys())
    return found


def table_text(config: Config, links: Mapping[str, LinkFacts], held: Set[str] = frozenset()) -> str:
    """The same, to read."""
    blocks = []
    globs = via_globs(config, links)
    for interface in config.interfaces:
        attach = f"{interface.attach}{', last' if interface.tc_order is TcOrder.LAST else ''}"
        more = f", events_per_source {interface.source_limit}" if interface.source_limit else ""
        more += ", multicast_router yes" if interface.multicast_router else ""
        if interface.new_targets_per_second:
            more += f", new_targets_per_second {interface.new_targets_per_second}"
        lines = [
            f"{interface.label}: {interface.datapath}, attach {attach}, router {_yes(interface.router)},"
            f" dad {interface.dad}, na_source {interface.na_source}{more}"
        ]
        flat = _most_specific_first(interface, links)
        width = max((len(str(line.network)) for line in flat), default=0)
        if role := _role(config, interface, links, held):
            lines += [f"  {line}" for line in role[1]]
        elif interface.active_with:
            lines.append(f"  active with {interface.active_with}")
        lines += [f"  {line.network!s:<{width}}  {_line_text(line, globs)}" for line in flat]
        lines += [
            f"  {rule.prefix}: {_why_without(rule, links)} ({rule.method})"
            for rule in interface.rules
            if rule.follows and not any(line.rule is rule for line in flat)
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _role(
    config: Config, interface: InterfaceConfig, links: Mapping[str, LinkFacts], held: Set[str]
) -> tuple[bool, list[str]] | None:
    """Whether an [[interface]] is active here, and why, in the words of `status`; None: it has no role, or nothing is
    known of the machine.

    Of a glob, each port has its own device for the link_address, or lacks it.
    """
    if not links or not (interface.active_with or interface.link_address):
        return None
    mac = interface.mac
    names = () if not mac else links if interface.is_glob else links.keys() & {interface.name}
    ports = [links[name] for name in names if not links[name].why_no_port and interface in config.entries(name)]
    lacking = [link.name for link in ports if not link.takes_in(interface.vlan.tags, mac)]
    lines = [f"on standby: {lack_text(name, mac)}" for name in sorted(lacking)]
    if lacking and len(lacking) == len(ports):
        return False, lines
    active = not interface.active_with or interface.active_with in held
    role = role_text(interface.active_with, active=active)
    return active, [role, *lines] if role else lines


def _why_without(rule: RuleConfig, links: Mapping[str, LinkFacts]) -> str:
    """Why a rule that follows an interface has no line of its own."""
    owned = ", ".join(map(str, rule_networks(rule, followed_prefixes(links))))
    return f"{owned} is of a rule that stands before it" if owned else f"{rule.follows} has no global prefix here now"


def _line_text(line: Flat, globs: Mapping[str, Sequence[str]]) -> str:
    rule = line.rule
    if line.left_out:
        return f"{Method.IGNORE} (left out of {rule.prefix})"
    words = [str(rule.method)]
    if rule.via:
        words.append(f"via {', '.join(_via_text(via, globs) for via in rule.via)}")
    if rule.host_routes:
        words.append("host routes")
    if rule.router is not None:
        words.append(f"router {_yes(rule.router)}")
    words += [f"{key} {value}" for key, value in (("dad", rule.dad), ("na_source", rule.na_source)) if value]
    if rule.prefix not in (str(line.network), str(IPv6Address(line.network.address))):
        words.append(f"({rule.prefix})")
    return " ".join(words)


def _via_text(via: str, globs: Mapping[str, Sequence[str]]) -> str:
    """A `via` as the file has it, and which interfaces a glob means now."""
    if via not in globs:
        return via
    now = globs[via]
    more = f" and {len(now) - _MOST_VIAS} more" if len(now) > _MOST_VIAS else ""
    return f"{via} (now {', '.join(now[:_MOST_VIAS]) or 'none'}{more})"


def _method(line: Flat) -> Method:
    return Method.IGNORE if line.left_out else line.rule.method


@dataclass(frozen=True, slots=True)
class Question:
    """A solicitation to explain: it comes in by `interface`, with the VLAN ids `tags`, from `source`."""

    interface: str
    tags: tuple[int, ...]
    target: IPv6Address
    source: IPv6Address


def explain(
    config: Config,
    links: Mapping[str, LinkFacts],
    question: Question,
    sysctl: ReadSysctl = lambda _: None,
    held: Set[str] | None = None,
    default: DefaultRoute | None = None,
) -> str:
    """What becomes of a solicitation, and why, a line a step.

    `links` holds the facts of those interfaces that are on this machine; for another one, own addresses and
    next hops can't be considered, and the text says so. `sysctl` says what is set here. `held` are the role addresses
    that this machine has; None: all of them. `default` is its default route.
    """
    here = links.get(question.interface)
    link = here or _supposed(config, question.interface)
    if link.why_no_port:
        return f"{link.name} is {link.why_no_port}"
    table = build(config, {**links, link.name: link}, held=held if links else None)
    entry = table.entry_of(link.ifindex, question.tags)
    assert entry is not None, "the caller asks for an interface of the configuration"
    lines = [f"{question.source} asks on {_frames(question)} who has {question.target}"]
    if here is None:
        lines.append(
            f"note: {link.name} is not on this machine; its own addresses, next hops and MAC address are unknown here"
        )
    elif not here.up:
        lines.append(f"note: {port_down(here)}")
    own = {each for link in links.values() for all in link.addresses.values() for each in held_addresses(all)}
    lines += _way(table, entry, question, is_held=question.target in own)
    found = table.lookup(entry.id, question.target)
    if isinstance(found, Match) and found.rule in table.rules:
        lines += [f"note: {line}" for line in _hindrances(table, entry, found, links, sysctl, default)]
    return "\n".join(lines)


def _supposed(config: Config, name: str) -> LinkFacts:
    """An interface that isn't here, as if there were a device on it for each link_address, too."""
    macs = frozenset(each.mac for each in config.entries(name) if each.mac)
    return LinkFacts(name, 0, _NO_MAC, beside_macs={(): macs})


def _hindrances(
    table: Table,
    entry: Entry,
    found: Match,
    links: Mapping[str, LinkFacts],
    sysctl: ReadSysctl,
    default: DefaultRoute | None,
) -> list[str]:
    """The warnings of `status` that concern a target like this."""
    lines = []
    if found.decision in (Decision.ROUTE, Decision.NEIGHBOUR):
        lines += notes(table.rules[found.rule], links, sysctl)
    names = {link.ifindex: link.name for link in links.values()}
    if name := names.get(entry.l3_ifindex):
        port, whole = (_is_on(sysctl(f"conf/{each}/forwarding")) for each in (name, "all"))
        why = forwarding_warning(found.decision, name, port, whole, _receivers(links, sysctl, default))
        lines += [why] if why else []
    if covers := on_link_warning(table, found):
        lines.append(f"{entry.label}: {covers}")
    return lines


def _is_on(sysctl: str | None) -> bool | None:
    return None if sysctl is None else sysctl != "0"


def _receivers(links: Mapping[str, LinkFacts], sysctl: ReadSysctl, default: DefaultRoute | None) -> list[Receiver]:
    """The interfaces that have addresses, or the default route, from router advertisements. Switching forwarding on may
    remove their default routes.
    """
    by_one = default.interface if default is not None and default.advertised else ""
    return [
        Receiver(link.name, False, int(sysctl(f"conf/{link.name}/accept_ra") or 0), advertised=True, heard=False)
        for link in sorted(links.values(), key=lambda link: link.name)
        if link.l3_ifindex(()) == link.ifindex
        and (link.name == by_one or any(address.advertised for address in link.own(())))
    ]


def _way(table: Table, entry: Entry, question: Question, *, is_held: bool) -> list[str]:
    """The steps from the entry to the outcome, the advertisement at the end if there is one.

    `is_held` says that the target is an address of this host.
    """
    source, target = question.source, question.target
    if invalid := reasons.why_invalid(source, target):
        return _outcome(Outcome.INVALID, invalid)
    found = table.lookup(entry.id, target)
    rule = table.rules.get(found.rule) if isinstance(found, Match) else None
    entry_facts, facts = EntryFacts.of(entry), None if rule is None else RuleFacts.of(rule)
    decided = found.decision if isinstance(found, Match) else found
    unanswered = reasons.why_unanswered(entry_facts, facts, decided, target, _frames(question))
    if rule is None or facts is None or not isinstance(found, Match):
        assert unanswered is not None, "what no rule covers is not answered"
        return _outcome(*unanswered)
    lines = [f"rule: {rule.prefix} ({rule.method}) of {entry.label}"]
    if unanswered is not None:
        return lines + _outcome(*unanswered)
    dad = source.is_unspecified
    if dad and not found.flags & RuleFlag.DEFEND:
        return lines + _outcome(Outcome.DAD, reasons.DAD_IGNORED)
    why, condition = reasons.if_there(found.decision, facts, is_held=is_held)
    if entry.shared and found.decision is Decision.NEIGHBOUR:
        condition.append(
            f"  while it is {Outcome.PENDING}, a multicast question goes on to the others behind {entry.port}"
        )
    if entry.standby:
        return lines + _outcome(Outcome.STANDBY, reasons.though_standby(why, entry_facts)) + condition
    if entry.datapath is Datapath.MONITOR:
        return lines + _outcome(Outcome.MONITORED, reasons.though_monitored(why)) + condition
    by_xdp = (
        entry.datapath is Datapath.HYBRID
        and not dad
        and found.decision is not Decision.KERNEL
        and _xdp_knows_source(entry, found, source)
    )
    outcome = Outcome.ANSWERED_XDP if by_xdp else Outcome.ANSWERED_PYTHON
    lines += _outcome(outcome, why) + condition
    return lines + _advertisement(table, entry, rule, found, question)


def _xdp_knows_source(entry: Entry, found: Match, asker: IPv6Address) -> bool:
    """Whether XDP can tell the advertisement's source by itself."""
    sources, _, _ = advert_sources(entry.addresses)
    needed = SourceFlag.LINK_LOCAL if asker.is_link_local else SourceFlag.GLOBAL
    return not found.flags & RuleFlag.SOURCE_INTERFACE or bool(sources & needed)


def _advertisement(table: Table, entry: Entry, rule: Rule, found: Match, question: Question) -> list[str]:
    tags = question.tags
    tci = b"".join(tag.to_bytes(2, "big") for tag in tags).ljust(4, b"\0")
    event = NsEvent(question.target.packed, question.source.packed, 0, rule.id, _ASKER, tci, len(tags))
    answer = Responder(table).answer(event)
    na = NeighborAdvertisement.parse(answer.frame)
    mac = entry.mac.hex(":") if entry.mac != _NO_MAC else f"the MAC of {entry.port}"
    asked_by = na.eth_destination.hex(":") if question.source.is_unspecified else "the asker's MAC"
    lines = [
        f"advertisement: {mac} > {asked_by}"
        + "".join(f", VLAN {tag}" for tag in tags)
        + f"; {IPv6Address(na.source)} > {IPv6Address(na.destination)}",
        f"  target {IPv6Address(na.target)}, R={int(na.router)} S={int(na.solicited)} O={int(na.override)},"
        f" target link-layer address {mac}, {len(answer.frame)} bytes",
    ]
    if found.flags & RuleFlag.SOURCE_INTERFACE and na.source == na.target:
        lines.append(f'  note: na_source = "{NaSource.INTERFACE}", but no usable address of {entry.port} is known')
    return lines


def _outcome(outcome: Outcome, why: str) -> list[str]:
    return [f"outcome: {outcome} ({why})"]


def _frames(question: Question) -> str:
    return reasons.frames_of(question.interface, question.tags)


def _most_specific_first(interface: InterfaceConfig, links: Mapping[str, LinkFacts]) -> list[Flat]:
    flat, _ = flatten(interface.rules, followed_prefixes(links))
    return sorted(flat, key=lambda line: (-line.network.length, line.network))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
