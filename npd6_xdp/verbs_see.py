# SPDX-License-Identifier: GPL-2.0-or-later
"""More commands: those that tell why something isn't as it should be."""

from __future__ import annotations

import argparse
from pathlib import Path

from npd6_xdp.arguments import CONFIG_FILE, option, verb
from npd6_xdp.core.config_file import parse
from npd6_xdp.verbs import config_text


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
