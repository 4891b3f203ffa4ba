# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands by which one sees what becomes of solicitations, and why; below each, what it takes (see verbs.py)."""

from __future__ import annotations

import argparse
from pathlib import Path

from npd6_xdp.arguments import CONFIG_FILE, CONTROL_SOCKET, option, verb
from npd6_xdp.core.config_file import parse
from npd6_xdp.verbs import config_text


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
    "configuration says can't work. As root it sees all; without, it says what it couldn't look at.",
    "",
    "--json",
    takes=(
        CONFIG_FILE,
        option(
            "--try",
            dest="attach",
            action="store_true",
            help="attach the program to each interface for a moment, in native mode, if no daemon runs; a card may"
            " reset its rings then, and its link be gone for a second",
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
    return tool.run(config, arguments.config, text, arguments.control, attach=arguments.attach, as_json=arguments.json)
