# SPDX-License-Identifier: GPL-2.0-or-later
"""Upgrades of the package under load: questions by each method and pings through a host route, beside dpkg -i.

    python -m tests.package.upgrades [--rounds N] [--rate N]
    python -m tests.package.upgrades --from COMMIT [--rate N]

It builds the package of this tree, and of a later version, and has dpkg put them over each other and over themselves,
in a root of its own under a systemd of its own. The tests do it once, at a lower rate. Exit status 1 if one question
was left unanswered, or answered twice, a ping was lost, the link was another one, or the sender came to less than
95 % of its rate: then nothing is shown.

With --from, the package is put over that of a commit (0665297: the last one whose unit keeps nothing), and that one
over it again. Exit status 1 if nobody answered for more than 5 s, or anything was left behind at the end.

Takes root, and the base root of deploy/setup.sh --test.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from npd6_xdp.lab.topology import Topology
from tests.netns.handovers import ENOUGH, RULES, TOO_SLOW, Asking, asking, make_known, set_out
from tests.netns.service import left
from tests.netns.wire import Wire, configuration, flood, hearing, question, scan
from tests.netns.xdp_links import handed_over, link_ids
from tests.package.sources import build, later_tree
from tests.roots import PROJECT, Root, fresh_root

THIS, LATER, EARLIER = "this.deb", "later.deb", "earlier.deb"
MOST_SILENT = 5.0  # seconds, where one of two has no store
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
            said = root.run("npd6-xdp", "status").stdout
            version = next(line.partition(", ")[0] for line in said.splitlines() if line.startswith("npd6-xdp "))
            print(f"{which} version: {version} runs", flush=True)
    return found


class Silence:
    """For how long at most nobody answered, in seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.longest = 0.0

    def hear(self, _: bytes) -> None:
        now = time.monotonic()
        self._last, self.longest = now, max(self.longest, now - self._last)


def from_commit(topology: Topology, root: Root, per_second: int, before: dict[str, object]) -> bool:
    """Put the package over an earlier one's, and that one over it; whether all held. /tmp of the root has them."""
    held = True
    for package in (THIS, EARLIER):
        with Wire(topology) as wire:
            found = Silence()
            with hearing(topology, found.hear), flood(topology, scan(1 << 24, "2001:db8:3::"), per_second, lossy=True):
                root.run("dpkg", "--force-confold", "-i", f"/tmp/{package}")  # noqa: S108 (the root's)
                held &= wire.ask(question("2001:db8:3::7")) is not None
            print(f"{package}: nobody answered for {found.longest:.2f} s at most", flush=True)
            held &= found.longest <= MOST_SILENT
    root.systemctl("stop", "npd6-xdp")
    if (after := left(topology)) != before:
        print(f"left behind: {after}, where there was {before}")
    return held and after == before


def _of_commit(commit: str, place: Path) -> Path:
    """The package of a commit, built below a directory."""
    (place / "earlier-tree").mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=PROJECT, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "--extract"], cwd=place / "earlier-tree", input=archive.stdout, check=True)
    return build(place / "earlier-tree", place / "earlier")


@contextmanager
def _running(topology: Topology, packages: dict[str, Path], first: str) -> Iterator[Root]:
    """A root on the edge in which the service runs that one of the packages has; /tmp has all of them."""
    with fresh_root() as base:
        base.install(packages[THIS])
        with fresh_root(over=base, namespace=topology.name("edge"), boot=True) as root:
            for name, package in packages.items():
                shutil.copy(package, root.path / "tmp" / name)
            root.run("dpkg", "-i", f"/tmp/{first}")  # noqa: S108 (the root's)
            (root.path / "etc/npd6-xdp/npd6-xdp.toml").write_text(configuration(*RULES))
            root.systemctl("enable", "--now", "npd6-xdp")
            yield root


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.package.upgrades", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="how often")
    parser.add_argument("--rate", type=int, default=20_000, help="questions a second")
    parser.add_argument("--from", dest="commit", metavar="COMMIT", help="upgrade from that one's package, and go back")
    arguments = parser.parse_args()
    with TemporaryDirectory() as place, Topology() as topology:
        set_out(topology)
        if arguments.commit:
            before = left(topology)
            built = {THIS: build(PROJECT, Path(place) / "this"), EARLIER: _of_commit(arguments.commit, Path(place))}
            with _running(topology, built, EARLIER) as root:
                return int(not from_commit(topology, root, arguments.rate, before))
        with _running(topology, packages(Path(place)), THIS) as root:
            found = upgrade(topology, root, arguments.rounds, arguments.rate)
            (link,) = link_ids(topology).values()
    print(f"{arguments.rounds} upgrades: {found}; the link's id was {link} throughout")
    reached = found.flooding.rate >= ENOUGH * arguments.rate
    print(f"asked {found.flooding.rate:,.0f}/s of {arguments.rate:,}" + ("" if reached else TOO_SLOW))
    return int(not (found.held and reached))


if __name__ == "__main__":
    sys.exit(main())
