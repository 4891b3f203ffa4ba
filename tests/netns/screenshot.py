# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes docs/status-page.png: the real page, of a real daemon under five minutes of real traffic in the namespaces.
No picture is taken of a page that says anything but `working`.

    python -m tests.netns.screenshot [--seconds 305] [--output docs/status-page.png] [--all DIRECTORY]
    python -m tests.netns.screenshot --states DIRECTORY [--scene NAME]

--all also takes it dark and as a phone shows it, into a directory. --states takes other pictures instead, in some
minutes: of the page in each state that it can be in (tests/netns/page_scenes.py), at 390 and 1,120 pixels, light and
dark, and looks for what is wrong with them. Exit status: 0, or 1 if there is no picture or one has a fault: it says so.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from tests.netns.browser import browser
from tests.netns.page_scenes import SCENES, take
from tests.netns.wire import Wire, configuration, on_edge, question, scan

RULES = (
    "2001:db8:1::/64 neighbour via=lan0 host_routes=true",
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 static exclude=::1",
    "2001:db8:4::/47 route",
    "2001:db8:8::/64 ignore",
)


def traffic() -> Iterator[tuple[float, list[bytes]]]:
    """What an upstream might send: (seconds to wait, frames). A tide of live hosts, now and then a scan and a fault."""
    chance = random.Random(1)  # noqa: S311
    hosts, first = list(scan(400, "2001:db8:3::")), 1
    tick = 0.05
    for number in range(1 << 30):
        now = number * tick
        many = 9 + 5 * math.sin(now / 23) + 2 * math.sin(now / 5.1) + chance.random()
        frames = chance.sample(hosts, int(many))
        if chance.random() < 0.5:
            frames.append(question(HOST_ADDRESS))
        if chance.random() < 0.25:
            frames.append(question(f"2001:db8:2::{chance.randrange(1, 5):x}"))
        if chance.random() < 0.3:
            frames += scan(1, chance.choice(("2001:db8:4::", "2001:db8:5::")), first=chance.randrange(1 << 40))
        if chance.random() < 0.1:
            frames.append(question("2001:db8:3::1"))
        if 60 < now % 150 < 85 and chance.random() < 0.4:  # somebody scans, slowly enough for the limits
            frames += scan(1, "2001:db8:1::", first=first << 33)
            first += 1
        if 110 < now % 150 < 114:
            frames.append(chance.choice(hosts)[:-1] + b"\0")
        if chance.random() < 0.05:
            frames += scan(1, chance.choice(("2001:db8:8::", "2001:db8:99::")), first=chance.randrange(1 << 40))
        yield tick, frames


def send(topology: Topology, stopping: threading.Event) -> None:
    with Wire(topology) as wire:
        wire.deafen()
        due = time.monotonic()
        for wait, frames in traffic():
            wire.send(*frames)
            due += wait
            if stopping.wait(max(0.0, due - time.monotonic())):
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=305.0, help="how long to watch (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/status-page.png"))
    parser.add_argument("--all", type=Path, metavar="DIRECTORY")
    parser.add_argument("--states", type=Path, metavar="DIRECTORY")
    parser.add_argument(
        "--scene", default="", choices=[scene.name for scene in SCENES], help="only this one of --states"
    )
    arguments = parser.parse_args()
    if arguments.states:
        sys.exit(not take(arguments.states, arguments.scene))
    stopping = threading.Event()
    with (
        Topology() as topology,
        RunningDaemon(topology, "[limits]\npending = 64\n" + configuration(*RULES)),
        tempfile.TemporaryDirectory() as directory,
        browser(topology, Path(directory)) as page,
    ):
        on_edge(topology, f"route add 2001:db8:5::/64 via {HOST_ADDRESS} dev lan0")
        sending = threading.Thread(target=send, args=(topology, stopping))
        sending.start()
        try:
            page.resize(1120)
            page.open()
            time.sleep(arguments.seconds)
            page.prefer("light")
            below = "return document.getElementById('daemon-title').parentElement.getBoundingClientRect().top"
            page.resize(1120, int(page.run(below)) - 4)  # what is below says things of this machine
            if (state := page.text("#state span")) != "working":
                problems = "; ".join(page.texts("#notes li")) or "no problem is named"
                sys.exit(f"screenshot: no picture, since the page says {state}: {problems}")
            page.screenshot(arguments.output, whole=False)
            if arguments.all:
                arguments.all.mkdir(parents=True, exist_ok=True)
                for scheme in ("light", "dark"):
                    page.prefer(scheme)
                    for width in (390, 800, 1120):
                        page.resize(width)
                        time.sleep(1.2)
                        page.screenshot(arguments.all / f"{scheme}-{width}.png")
        finally:
            stopping.set()
            sending.join()


if __name__ == "__main__":
    main()
