# SPDX-License-Identifier: GPL-2.0-or-later
"""From what a machine is to what it takes: the configuration, what to set, and what to do by hand. Looks at nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.tools.init.behind import insides
from npd6_xdp.tools.init.machine import BareMachine
from npd6_xdp.tools.init.plan import Entry, Plan
from npd6_xdp.tools.init.rules import Ruled, merged, on_link_rules, ordered, other_sides, routed_rules
from npd6_xdp.tools.init.settings import lasting, settings
from npd6_xdp.tools.init.steps import steps
from npd6_xdp.tools.init.uplinks import Uplink, uplinks


def decide(machine: BareMachine) -> Plan:
    """What a machine takes. Raises MachineError, in a line, where there is nothing to say of it."""
    ups = uplinks(machine)
    on_links = [prefix for up in ups for prefix in machine.on_link(up.link)]
    entries: list[Entry] = []
    found: list[Ruled] = []
    for up in ups:
        inside = insides(machine, up, ups)
        routed = routed_rules(machine, up, inside, on_links, several=len(ups) > 1)
        own = on_link_rules(machine, up, inside, guess=not routed.rules)
        found += [own, routed]
        entries.append(Entry(up.port.name, _why(up, ups), ordered([*own.rules, *routed.rules])))
    shared = [each for ruled in found for each in ruled.shared]
    entries += other_sides(shared)
    lans = list({link.ifindex: link for ruled in found for link in ruled.lans}.values())
    host = next((str(host) for ruled in found for host in ruled.hosts), "")
    asked_on = next((up.port.name for up, ruled in zip(ups, found[::2], strict=True) if ruled.rules), ups[0].port.name)
    return Plan(
        _each_once(entry for entry in entries if entry.rules),
        _notes(machine, ups),
        settings(machine, ups, lans),
        lasting(machine, ups, lans),
        steps(machine, ups, lans, shared),
        host,
        asked_on,
        "" if any(entry.active for entry in entries) else _nothing(machine, ups, on_links),
    )


def _each_once(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Entries with those of one name in one: two uplinks by one port, or an uplink that is behind another one."""
    found: dict[str, Entry] = {}
    for entry in entries:
        before = found.get(entry.name, Entry(entry.name, (), ()))
        rules = {rule.prefix: rule for rule in before.rules}
        for rule in entry.rules:
            rules[rule.prefix] = merged(rules.get(rule.prefix), rule)
        why = tuple(dict.fromkeys([*before.why, *entry.why]))
        found[entry.name] = Entry(entry.name, why, ordered([*rules.values()]))
    return tuple(found.values())


def _why(up: Uplink, ups: Sequence[Uplink]) -> tuple[str, ...]:
    why = [f"{up.link.name} faces the upstream: {up.why}."]
    if up.port is not up.link:
        why.append(f"{up.port.name} is the port of {up.link.name} that frames come in by.")
    elif up.link.kind == "vlan":
        why.append(
            f"It is a VLAN device. Its port with vlan = {up.link.vlan} is faster, where the tags are left in the frames"
            " (ethtool -K PORT rxvlan off)."
        )
    if len(ups) > 1:
        why.append(f"There are {len(ups)} uplinks: {', '.join(each.link.name for each in ups)}.")
    return tuple(why)


def _notes(machine: BareMachine, ups: Sequence[Uplink]) -> tuple[str, ...]:
    """Interfaces with prefixes that are left out, and why."""
    tables = {machine.table(up.link) for up in ups}
    apart = [
        link.name
        for link in machine.links.values()
        if machine.may_be_behind(link) and machine.on_link(link) and machine.table(link) not in tables
    ]
    return tuple(f"Left out: {name}, which is in another VRF than the uplink." for name in sorted(apart))


def _nothing(machine: BareMachine, ups: Sequence[Uplink], on_links: Sequence[Prefix]) -> str:
    names = ", ".join(up.link.name for up in ups)
    usable = [prefix for prefix in on_links if prefix.length < BITS - 2]
    if usable:
        return (
            f"nothing is behind {names} that could have hosts of {usable[0]}: no bridge, veth, tap, LAN or route;"
            " make one (ip link add br0 type bridge; ip link set br0 up) and try again"
        )
    if aggregates := machine.aggregates():
        part = aggregates[0].destination
        return (
            f"{part} is delegated to this machine, and no interface has a part of it: give the one of your hosts a /64"
        )
    held = [f"{each.address}/{each.length}" for up in ups for each in machine.held(up.link)]
    has = f"{names} has {held[0]} alone" if held else f"{names} has no global address"
    return (
        f"no prefix to answer for: {has}, and no route leads to one behind it; your provider says which prefix is"
        " yours: give it to the interface of your hosts (ip -6 address add PREFIX::1/64 dev IF) and try again"
    )
