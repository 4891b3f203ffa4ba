# SPDX-License-Identifier: GPL-2.0-or-later
"""Upgrades of the package under load: questions by each method and pings through a host route, beside dpkg -i.

    python -m tests.package.upgrades [--rounds N] [--rate N]

It builds the package of this tree, and of a later version, and has dpkg put them over each other and over themselves,
in a root of its own under a systemd of its own. The tests do it once, at a lower rate. Exit status 1 if one question
was left unanswered, or answered twice, a ping was lost, or the link was another one. Takes root, and the base root of
deploy/setup.sh --test.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from npd6_xdp.lab.topology import Topology
from tests.netns.handovers import RULES, Asking, asking, make_known, set_out
from tests.netns.wire import Wire, configuration
from tests.netns.xdp_links import handed_over, link_ids
from tests.package.sources import build, later_tree
from tests.roots import PROJECT, Root, fresh_root

THIS, LATER = "this.deb", "later.deb"
_STEPS = ((THIS, "the same"), (LATER, "a later"), (LATER, "the same"), (THIS, "an earlier"))
"""Which package comes next, and which version that is."""


def packages(place: Path) -> dict[str, Path]:
    """Both, built below a directory."""
    later_tree(place / "tree")
    return {THIS: build(PROJECT, place / "this"), LATER: build(place / "tree", place / "later")}


def upgrade(topology: Topology, root: Root, rounds: int, per_second: int) -> Asking:
    """Put packages over others, so many times, under so many questions a second; /tmp of the root has them."""
    with Wire(topology) as wire:
        make_known(topology, wire)
    with asking(topology, per_second) as found:
        for package, which in islice(cycle(_STEPS), rounds):
            with handed_over(topology):
                root.run("dpkg", "--force-confold", "-i", f"/tmp/{package}")  # noqa: S108 (the root's)
            version = root.run("npd6-xdp", "status").stdout.partition(", ")[0]
            print(f"{which} version: {version} runs", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.package.upgrades", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="how often")
    parser.add_argument("--rate", type=int, default=20_000, help="questions a second")
    arguments = parser.parse_args()
    with TemporaryDirectory() as place, Topology() as topology:
        built = packages(Path(place))
        set_out(topology)
        with fresh_root() as base:
            base.install(built[THIS])
            with fresh_root(over=base, namespace=topology.name("edge"), boot=True) as root:
                for name, package in built.items():
                    shutil.copy(package, root.path / "tmp" / name)
                (root.path / "etc/npd6-xdp/npd6-xdp.toml").write_text(configuration(*RULES))
                root.systemctl("enable", "--now", "npd6-xdp")
                found = upgrade(topology, root, arguments.rounds, arguments.rate)
                (link,) = link_ids(topology).values()
    print(f"{arguments.rounds} upgrades: {found}; the link's id was {link} throughout")
    return int(not found.held)


if __name__ == "__main__":
    sys.exit(main())
