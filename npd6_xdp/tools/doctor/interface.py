# SPDX-License-Identifier: GPL-2.0-or-later
"""Each interface of the configuration: there, up, and fit for the program; and the `via` interfaces."""

from __future__ import annotations

from collections.abc import Iterator

from npd6_xdp.core.absent import absent_names, absent_vias
from npd6_xdp.core.attached import AttachMode, has_tcx
from npd6_xdp.core.config import Attach, is_glob
from npd6_xdp.core.link_messages import LinkFlag
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.names import word
from npd6_xdp.core.verdict import Method
from npd6_xdp.core.vias import used_vias, why_nobody
from npd6_xdp.core.warnings import offload_warning, warnings
from npd6_xdp.system.netlink.inspection import NATIVE_XDP
from npd6_xdp.tools.doctor import at_tc, edits, running
from npd6_xdp.tools.doctor.facts import Facts, Port
from npd6_xdp.tools.doctor.finding import Finding, fail, note, ok, warn

_NATIVE_DRIVERS = (
    *("atlantic", "bnxt_en", "dpaa2-eth", "dpaa_eth", "ena", "enetc", "fec", "fsl_dpaa2_eth", "fsl_enetc", "gve"),
    *("hv_netvsc", "i40e", "ice", "igb", "igc", "ixgbe", "ixgbevf", "lan966x-switch", "mana", "mlx4_en", "mlx5_core"),
    *("mvneta", "mvpp2", "netsec", "nfp", "nicvf", "octeontx2-nicpf", "qede", "sfc", "st_gmac", "stmmac"),
    *("thunder-nicvf", "ti_cpsw", "tsnep", "tun", "veth", "virtio_net", "vmxnet3", "xen-netfront"),
)
"""Drivers that run XDP programs, for kernels that don't say it of their own (before 6.3)."""
_OURS = "ns_filter"  # the program's name in the kernel
_LARGEST_MTU = {"veth": 3506}
_USUAL_MTU = 3498  # what fits into one page beside headroom and the rest, without xdp.frags
_MOST_NAMED = 8


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of all interfaces."""
    for name in absent_names(facts.config, facts.links):
        yield _absent(facts, name)
    for name in sorted(facts.ports):
        link, port = facts.links[name], facts.ports[name]
        if link.why_no_port:
            yield fail("interface", f"{name}: {link.why_no_port}")
            continue
        yield _state(link, port)
        yield from _ipv6(facts, link.bridge or name, name)
        attached = _attached(facts, name)
        if facts.config.attach(name) is Attach.TC or attached == AttachMode.TC:
            yield from at_tc.checks(facts, link, port, attached)
        else:
            yield _programs(facts, link, port)
            yield _native(facts, link, port)
            yield from _offload(facts, link, port)
        yield from _filter(facts, link, port)
    yield from _vias(facts)
    lines = warnings(facts.table)
    yield from (warn("on_link", line) for line in lines)


def _absent(facts: Facts, name: str) -> Finding:
    fit = sorted(each for each, link in facts.links.items() if not link.why_no_port)
    there = ", ".join(fit[:_MOST_NAMED]) or "none"
    there += f" and {len(fit) - _MOST_NAMED} more" if len(fit) > _MOST_NAMED else ""
    if is_glob(name):
        return warn("interface", f"{name}: no interface here has such a name; there are {there}")
    return fail(
        "interface",
        f"{name}: no such interface here, and npd6-xdp waits for it; there are {there}",
        *_meant(facts, name),
    )


def _meant(facts: Facts, name: str) -> tuple[str, ...]:
    """The command that names the interface that the upstream asks on, if no other [[interface]] does."""
    upstream = facts.links.get(facts.default.interface if facts.default else "")
    if upstream is None or upstream.why_no_port or facts.config.entries(upstream.name):
        return ()
    return edits.interface_place(facts.path, facts.text, name).replace(("name", name, upstream.name))


def _state(link: LinkFacts, port: Port) -> Finding:
    if not link.flags & LinkFlag.UP:
        gone = "; addresses that were added to it by hand are gone"
        return fail("interface", f"{link.name}: it is down{gone}", f"ip link set dev {word(link.name)} up")
    if not link.up:
        return fail("interface", f"{link.name}: no carrier: the cable, or the other end's interface, which is down")
    driver = f", driver {port.driver}" if port.driver else ""
    return ok("interface", f"{link.name}: Ethernet, up, MTU {port.entry.mtu}{driver}")


def _ipv6(facts: Facts, name: str, whose: str) -> Iterator[Finding]:
    """Whether the kernel takes in IPv6 at all where an interface's packets go."""
    if facts.sysctls.get(f"conf/{name}/disable_ipv6") == "1":
        where = "there" if name == whose else f"on {name}"
        mend = f"sysctl -w {word(f'net/ipv6/conf/{name}/disable_ipv6=0')}"
        yield fail("interface", f"{whose}: IPv6 is off {where}, so the kernel drops what comes in", mend)


def _attached(facts: Facts, name: str) -> str:
    """How the daemon that answers has its program there: an AttachMode; "" where it hasn't."""
    rows = facts.status["interfaces"] if facts.status else ()
    return next((str(row["attach"]) for row in rows if row["port"] == name), "")


def _else(facts: Facts) -> str:
    """What `attach = "auto"` becomes where it can't be native."""
    return "by tc then" if has_tcx(facts.machine.kernel) else "generic mode then, which is slower"


def _programs(facts: Facts, link: LinkFacts, port: Port) -> Finding:
    attached = _attached(facts, link.name)
    if attached and not port.programs:
        return warn("xdp", f"{link.name}: {at_tc.GONE}", running.reload(facts))
    if attached and any(program.name in (_OURS, "") for program in port.programs):  # "": only root may see it
        return ok("xdp", f"{link.name}: the daemon's program sits there")
    for program in port.programs:
        what = f"{program.mode}, id {program.id}{f', {program.name}' if program.name else ''}"
        pids = ", ".join(f"{holder}, pid {pid}" for holder, pid in program.holders)
        if program.name == _OURS:
            return note(
                "xdp", f"{link.name}: an npd6-xdp that isn't to be asked has its program there ({what}; {pids})"
            )
        if not program.name and not program.holders:  # every program of bcc's, clang's and ip's has a name
            return note("xdp", f"{link.name}: an XDP program sits there ({what}); whose it is, only root may see")
        text = f"{link.name}: another XDP program sits there ({what}"
        text += f"; held by {pids})" if pids else ")"
        if has_tcx(facts.machine.kernel):
            return _beside(facts, link.name, text)
        if program.holders:
            return fail("xdp", text, *(f"kill {pid}" for _, pid in program.holders if pid > 1))
        return fail("xdp", text, f"ip link set dev {word(link.name)} {program.mode} off")
    return ok("xdp", f"{link.name}: no other XDP program")


def _beside(facts: Facts, name: str, text: str) -> Finding:
    """What there is to do where another program has the place of XDP and there is tc: it needn't go."""
    wish = facts.config.attach(name)
    if wish is Attach.AUTO:
        return note("xdp", f"{text}: by tc then, beside it")
    mend = edits.interface_place(facts.path, facts.text, name).replace(("attach", wish.value, "auto"))
    if facts.status:
        mend = edits.both(mend, (running.reload(facts),))
    return fail("xdp", f'{text}; attach = "auto" would sit beside it, by tc', *mend)


def _native(facts: Facts, link: LinkFacts, port: Port) -> Finding:
    name, wish = link.name, facts.config.attach(link.name)
    place = edits.interface_place(facts.path, facts.text, name)
    if wish is Attach.GENERIC:
        return ok("native", f'{name}: attach = "generic"')
    if port.tried == "":
        return ok("native", f"{name}: the driver takes the program")
    if wish is Attach.AUTO and link.lossy:
        mode = "by tc" if has_tcx(facts.machine.kernel) else "generic mode"
        return ok("native", f"{name}: {mode}, since {link.why_lossy.removesuffix(', too')}")
    why = port.tried or _why_not_native(link, port)
    largest = _LARGEST_MTU.get(port.driver, _USUAL_MTU)
    if not why and port.entry.mtu > largest:
        text = f"{name}: MTU {port.entry.mtu} is more than most drivers take a program at ({largest})"
        if wish is Attach.NATIVE:
            return fail("mtu", text, f"ip link set dev {word(name)} mtu {largest}")
        return note("mtu", f"{text}: {_else(facts)}", f"ip link set dev {word(name)} mtu {largest}")
    if why and wish is Attach.NATIVE:
        return fail("native", f'{name}: {why}, and attach = "native"', *place.replace(("attach", "native", "auto")))
    if why:
        return note("native", f"{name}: {why}: {_else(facts)}")
    if link.lossy:
        return warn(
            "native",
            f'{name}: {link.why_lossy.removesuffix(", too")}, and attach = "native"',
            *place.replace(("attach", "native", "auto")),
        )
    return ok("native", f"{name}: native mode{', as the driver is known for it' if port.features is None else ''}")


def _why_not_native(link: LinkFacts, port: Port) -> str:
    if port.features is not None:
        return "" if port.features & NATIVE_XDP else f"the driver ({port.driver or link.kind}) runs no XDP programs"
    known = port.driver in _NATIVE_DRIVERS
    return "" if known else f"the driver ({port.driver or link.kind or 'unknown'}) isn't known to run XDP programs"


def _offload(facts: Facts, link: LinkFacts, port: Port) -> Iterator[Finding]:
    tagged = any(entry.vlan.has_tagged for entry in facts.config.entries(link.name))
    if not tagged and len(link.addresses) < 2:
        return
    if port.rxvlan and not link.lossy:
        text, _, mend = offload_warning(link.name).rpartition(": ")
        yield warn("offload", text, mend)
    else:
        yield ok("offload", f"{link.name}: VLAN tags stay in the frames")


def _filter(facts: Facts, link: LinkFacts, port: Port) -> Iterator[Finding]:
    """In hardware, so it is no matter at which hook the program sits."""
    if port.kept_back:
        yield warn("vlan_filter", port.kept_back.text, *port.kept_back.mend)
    elif any(entry.vlan.has_tagged for entry in facts.config.entries(link.name)):
        yield ok("vlan_filter", f"{link.name}: no filter keeps back frames of VLANs that have an [[interface]]")


def _vias(facts: Facts) -> Iterator[Finding]:
    for name in absent_vias(facts.config, facts.links):
        glob = is_glob(name)
        there = ", ".join(sorted(each.name for each in facts.links.values() if each.mac)[:_MOST_NAMED]) or "none"
        text = (
            f"via {name}: no {'interface here has such a name' if glob else 'such interface here'}; there are {there}"
        )
        yield warn("via", text) if glob else fail("via", text)
    for via in used_vias(facts.config, facts.links):
        why = why_nobody(via.link, lambda key: facts.sysctls.get(key))
        if not why.text:
            yield ok("via", via.say("hosts can be found there"))
        elif via.named:
            gone = "; addresses that were added to it by hand are gone" if why.kind == "down" else ""
            yield fail(
                "via",
                via.say(why.text.partition(": ip ")[0].partition(": sysctl ")[0]) + gone,
                *_mend(facts, via.link, why.kind),
            )
    off: dict[str, None] = {}
    for interface in facts.config.interfaces:
        for rule in interface.rules:
            for name in rule.via if rule.method is Method.ROUTE else ():
                link = facts.links.get(name)
                if link is not None and not facts.config.entries(name):
                    off.setdefault(name)
                if link is not None and link.bridge:
                    yield fail(
                        "via",
                        f"{interface.label}: rule {rule.prefix}: via {name}: it is a port of {link.bridge}, which the"
                        " routes lead out of",
                        *_mend(facts, link, ""),
                    )

    for name in off:
        yield from _ipv6(facts, name, name)


def _mend(facts: Facts, link: LinkFacts, kind: str) -> tuple[str, ...]:
    match kind:
        case "down":
            return (f"ip link set dev {word(link.name)} up",)
        case "off":
            return (f"sysctl -w {word(f'net/ipv6/conf/{link.name}/disable_ipv6=0')}",)
        case "address":
            return (f"ip -6 address add fe80::1/64 dev {word(link.name)}",)
    if not link.bridge:
        return ()
    commands = [
        edits.rule_place(facts.path, facts.text, interface.name, rule.prefix).replace(("via", link.name, link.bridge))
        for interface in facts.config.interfaces
        for rule in interface.rules
        if link.name in rule.via
    ]
    return edits.both(*commands)
