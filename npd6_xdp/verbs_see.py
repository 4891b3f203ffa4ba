# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands by which one sees what becomes of solicitations, and why; below each, what it takes (see verbs.py)."""

from __future__ import annotations

import argparse
from ipaddress import IPv6Address
from pathlib import Path

from npd6_xdp.arguments import CONFIG_FILE, CONTROL_SOCKET, count_to, ipv6_address, option, verb
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.config_parsers import parse_vlan
from npd6_xdp.core.errors import UsageError
from npd6_xdp.verbs import config_text, named_here

_ASKER = IPv6Address("fe80::1")


@verb(
    "say which rule decides about an address",
    "Says which rule decides about a target, by which method, and what advertisement would go out. Takes the "
    "interface's MAC, own addresses and next hops into account where the interface is on this machine. With --live it "
    "asks the running daemon and the kernel's tables instead, now: how the port is attached, whether the target is in "
    "the neighbour table, where a route leads, whether it is known, pending or refused, who asked for it last and what "
    "became of that; it ends with the outcome that the next solicitation gets. Live, it needs root or the control "
    "socket's group, and no file.",
    "2001:db8:1::42 --interface wan0",
    "2001:db8:1::42 --interface wan0 --vlan 100 --source ::",
    "2001:db8:1::42 --live",
    takes=(
        option("address", metavar="ADDRESS", type=ipv6_address, help="the target that is asked for"),
        option(
            "--interface",
            metavar="IF",
            help="the interface that the question comes in by (with --live, default: all whose rules cover it)",
        ),
        CONFIG_FILE,
        option(
            "--vlan",
            metavar="V",
            help="its VLAN: 100, or 100.7 (default: untagged; with --live, the entry's)",
        ),
        option(
            "--source",
            type=ipv6_address,
            metavar="A",
            help=f"who asks; :: probes for Duplicate Address Detection (default: {_ASKER}; with --live, the last one)",
        ),
        option("--live", action="store_true", help="ask the running daemon and the kernel's tables"),
        CONTROL_SOCKET,
    ),
)
def explain(arguments: argparse.Namespace) -> None:
    """`explain`: which rule decides about a target, and what advertisement would go out."""
    try:
        vlan = None if arguments.vlan is None else parse_vlan(arguments.vlan)
    except ValueError as error:
        raise UsageError(f"--vlan {arguments.vlan}: {error}") from error
    if vlan is not None and vlan.any:
        raise UsageError("--vlan any: name one VLAN, or leave it out for untagged frames")
    if arguments.live:
        from npd6_xdp.tools import explain_live

        tags = None if vlan is None else vlan.tags
        explain_live.run(arguments.control, arguments.address, arguments.interface, tags, arguments.source)
        return
    if arguments.interface is None:
        raise UsageError("--interface: name the one that the question comes in by, or ask the running daemon: --live")
    from npd6_xdp.core.explain import Question
    from npd6_xdp.core.explain import explain as tell
    from npd6_xdp.tools.facts import default_route, link_facts, roles_held, sysctl

    config = parse(config_text(arguments.config), str(arguments.config))
    links = link_facts(config)
    config, interface = named_here(config, arguments.interface, links, arguments.config)
    question = Question(interface, vlan.tags if vlan else (), arguments.address, arguments.source or _ASKER)
    print(tell(config, links, question, sysctl, roles_held(config), default_route(links)))


@verb(
    "show each solicitation as it is decided, and why",
    "A line for each Neighbor Solicitation of the running daemon's interfaces, as it is decided: when and where it "
    "came in, who asks, for what, its outcome and why, by which rule, and the advertisement that went out. What isn't "
    "wanted is left out in the XDP program. One at a time may trace. On Ctrl-C it says how many there were, and how "
    "many of them couldn't be shown. Needs root, or the control socket's group.",
    "",
    "--interface wan0 --target 2001:db8:1::/64",
    "--outcome absent,unmatched,ignored --count 20",
    "--source 02:00:00:00:00:01 --json",
    "--write - | tshark -r -",
    takes=(
        option("--interface", metavar="IF", help="what came in by this interface only"),
        option("--vlan", metavar="V", help="what has these VLAN tags only: 100, or 100.7, or untagged"),
        option("--target", metavar="PREFIX", help="what asks for this address, or for one in this prefix, only"),
        option("--source", metavar="A", help="what this address, prefix or MAC address asks only"),
        option("--outcome", metavar="A,B", help="what has one of these outcomes only, such as absent,ignored"),
        option("--rule", metavar="PREFIX", help="what this rule covers only, as the configuration has its prefix"),
        option("--count", metavar="N", help="end after so many"),
        option("--sample", metavar="N", help="show one of N only"),
        option("--json", action="store_true", help="an object a line"),
        option(
            "--write",
            type=Path,
            metavar="FILE",
            help="write question and answer to a capture (pcapng) as well; -: to standard output, and no text",
        ),
        CONTROL_SOCKET,
    ),
)
def trace(arguments: argparse.Namespace) -> int:
    """`trace`: each solicitation as it is decided, and why."""
    from npd6_xdp.core.trace_filter import filter_of, number
    from npd6_xdp.tools import trace as tool

    keys = ("interface", "vlan", "target", "source", "outcome", "rule", "sample")
    wanted = filter_of(**{key: getattr(arguments, key) for key in keys})
    count = None if arguments.count is None else number("--count", arguments.count, tool.MOST)
    return tool.run(arguments.control, wanted, count, as_json=arguments.json, write=arguments.write)


@verb(
    "say what on this machine is in the way",
    "Looks at all of this machine that would keep the configuration from working, before the daemon runs and while "
    "it does: a line for each check, ok, note, warn or fail, and below what isn't ok the commands that mend it. It "
    "changes nothing, but asks some hosts that are there for an echo. Exit status 1 if anything fails: then what the "
    "configuration says can't work. As root it sees all; without, it says what it couldn't look at. With ADDRESS it "
    "follows that one from the question to the host and back, and names the step that fails.",
    "",
    "--json",
    "2001:db8:1::42",
    takes=(
        option(
            "address", metavar="ADDRESS", nargs="?", type=ipv6_address, help="follow this one (default: look at all)"
        ),
        CONFIG_FILE,
        option(
            "--try",
            dest="attach",
            action="store_true",
            help="attach the program to each interface for a moment, in native mode or by tc, if no daemon runs; in"
            " native mode a card may reset its rings then, and its link be gone for a second",
        ),
        option("--json", action="store_true", help="a list of objects"),
        option(
            "--control",
            type=Path,
            metavar="PATH",
            help="the daemon's control socket (default: as daemon.control says it in the configuration)",
        ),
    ),
)
def doctor(arguments: argparse.Namespace) -> int:
    """`doctor`: what on this machine keeps the configuration from working, and what mends it."""
    from npd6_xdp.tools import doctor as tool

    text = config_text(arguments.config)
    config = parse(text, str(arguments.config))
    if arguments.address is not None:
        if arguments.attach:
            raise UsageError("--try: without an ADDRESS only, which is followed with the daemon at work")
        given = config, arguments.config, text, arguments.control
        return tool.run_follow(*given, arguments.address, as_json=arguments.json)
    return tool.run(config, arguments.config, text, arguments.control, attach=arguments.attach, as_json=arguments.json)


@verb(
    "see it work, in network namespaces on this machine",
    "Builds an upstream, an edge and a host in network namespaces, runs the daemon on real traffic, shows what "
    "happens, and cleans up. With --failover there are two edges with keepalived, of which one dies, loses its link "
    "and comes back, while it is measured which hosts the upstream reaches. Needs root.",
    "",
    "--failover --hosts 100",
    takes=(
        option("--failover", action="store_true", help="show how one of two edges takes over from the other"),
        option(
            "--hosts",
            type=count_to(10_000),  # above, a host is pinged less often than each five seconds
            metavar="N",
            help="how many hosts are behind the two edges, 10,000 at most (default: 1000; with neighbour: 200)",
        ),
        option(
            "--method", choices=("route", "static", "neighbour"), help="that of the two edges' rule (default: route)"
        ),
    ),
)
def lab(arguments: argparse.Namespace) -> int:
    """`lab`: the demonstration in network namespaces."""
    if arguments.hosts and not arguments.failover:
        raise UsageError("--hosts: only the lab with --failover has several")
    if arguments.method and not arguments.failover:
        raise UsageError("--method: only for the lab with --failover; the other one shows all of them")
    if arguments.failover:
        from npd6_xdp.lab import failover

        return failover.run(arguments.hosts, method=arguments.method or "route")
    from npd6_xdp.lab import story

    return story.run()
