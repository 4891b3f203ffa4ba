# SPDX-License-Identifier: GPL-2.0-or-later
"""Thousands of ports under a real systemd: what is handed over at a restart, and how long that takes.

    python -m tests.netns.many_handovers [--ports N]

It makes so many veth ports in namespaces of its own, runs the unit under a systemd of its own, and restarts it once.
Exit status 1 if a port's link is another one afterwards, one doesn't answer, or anything is left behind at the end.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing, redirect_stdout

from npd6_xdp.lab.topology import Topology
from tests.bench.many_ports import CONFIGURATION, Asker, make, settle
from tests.netns.handovers import CONTROL
from tests.netns.service import UnderSystemd
from tests.netns.wire import until
from tests.netns.xdp_links import link_ids


class Story:
    """One start, one restart and one stop, told on standard output; what didn't hold, `wrong` has."""

    def __init__(self, topology: Topology, count: int) -> None:
        self._topology, self._count = topology, count
        self.wrong: list[str] = []

    def tell(self) -> None:
        """All of it."""
        config = CONTROL + CONFIGURATION.format(datapath="hybrid")
        with closing(Asker(self._topology, self._count)) as self._asker:
            began = time.monotonic()
            with UnderSystemd(self._topology, config) as service:
                self._say(f"systemd and the unit were up after {time.monotonic() - began:.1f} s")
                before, kept = link_ids(self._topology), self._kept(service)
                self._check(f"{len(before)} ports have a link", holds=len(before) == self._count)
                self._check(f"{kept} descriptors are kept", holds=kept > self._count)
                self._ask()
                self._restart(service, before, kept)
                self._ask()
                self._stop(service)

    def _restart(self, service: UnderSystemd, before: dict[str, int], kept: int) -> None:
        began = time.monotonic()
        status = service.systemctl("restart", "npd6-xdp").returncode
        self._say(f"systemctl restart took {time.monotonic() - began:.1f} s")
        self._check(f"its exit status is {status}", holds=status == 0)
        after = link_ids(self._topology)
        others = [name for name in {*before, *after} if before.get(name) != after.get(name)]
        self._check(f"{len(others)} ports have another link", holds=not others)
        self._check("as many descriptors are kept", holds=self._kept(service) == kept)
        self._check("no name was too long for it", holds="keeps no more than" not in service.log)
        is_whole = (
            "XDP taken over (generic mode)" in service.log and service.log.count("XDP attached (generic mode)") == 1
        )
        self._check("none was attached anew", holds=is_whole)

    def _stop(self, service: UnderSystemd) -> None:
        began = time.monotonic()
        status = service.stop()
        self._say(f"systemctl stop took {time.monotonic() - began:.1f} s")
        self._check(f"its exit status is {status}", holds=status == 0)
        self._check("no program stays", holds=until(lambda: not link_ids(self._topology), 30.0))
        self._check("nothing is kept", holds=self._kept(service) == 0)

    def _ask(self) -> None:
        answered = self._asker.answered()
        self._check(f"{answered} ports answer", holds=answered == self._count)

    @staticmethod
    def _kept(service: UnderSystemd) -> int:
        return int(service.show("NFileDescriptorStore"))

    def _check(self, what: str, *, holds: bool) -> None:
        self._say(f"{'ok' if holds else 'FAILED':<8}{what}")
        self.wrong += [] if holds else [what]

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.__stdout__, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.netns.many_handovers", description=__doc__.splitlines()[0])
    parser.add_argument("--ports", type=int, default=4000)
    count = parser.parse_args().ports
    with Topology() as topology, redirect_stdout(sys.stderr):  # the service's log goes there
        make(topology, count)
        settle(topology)
        story = Story(topology, count)
        story.tell()
    return int(bool(story.wrong))


if __name__ == "__main__":
    sys.exit(main())
