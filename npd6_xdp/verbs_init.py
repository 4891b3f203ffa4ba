# SPDX-License-Identifier: GPL-2.0-or-later
"""The command for a machine that has no configuration yet."""

from __future__ import annotations

import argparse

from npd6_xdp.arguments import CONFIG, option, verb


@verb(
    "write a first configuration for this machine",
    "Looks at this machine's interfaces, addresses and routes, at what router advertisements have left and at what is "
    "behind (bridges of containers and virtual machines, tunnels, LANs), and writes a configuration for it, with its "
    "reasons as comments. Says what else is to be set, what is to be done by hand, and how to see that it works. "
    "Changes no address and no route. Exit status 1, with a line, where it finds nothing to answer for.",
    "> npd6-xdp.toml",
    "--write --apply",
    takes=(
        option("--write", action="store_true", help=f"write it to {CONFIG}, unless there is one already"),
        option(
            "--apply",
            action="store_true",
            help="set what makes this machine a router, now and for the next boot: accept_ra where the default route "
            "comes by router advertisements, then forwarding. Says each, and the way back",
        ),
    ),
)
def init(arguments: argparse.Namespace) -> int:
    """`init`: a first configuration for this machine."""
    from npd6_xdp.tools import init as tool

    return tool.run(CONFIG, write=arguments.write, apply=arguments.apply)
