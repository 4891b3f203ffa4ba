# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.bench.reloads`: how long an answer takes during large reloads, and with clients that don't read."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from scapy.layers.inet6 import IPv6ExtHdrHopByHop

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.control import ask
from tests.bench.turns import PROGRAM, Turns
from tests.frames import ip6
from tests.kinds import solicit
from tests.netns.wire import SETTING, Wire, configuration

_TARGET = "2001:db8:1::42"
_EVERY = 0.01  # seconds between two questions
_IDLE = 5.0  # seconds
_LOST = 60.0  # seconds without an answer
_CLIENTS = 30
_FIRST, _SECOND = 0x2001_0DB9, 0x2001_0DBA  # of the rules' prefixes
_STATUS = b'{"verb": "status"}\n'


def rules(first: int, count: int, changed: str = "static") -> str:
    """A configuration's rules: the target's, and so many for /64s of a /32; `changed` is the method of one of them."""
    found = ["2001:db8:1::/64 static"]
    for number in range(count - 1):
        method = changed if number == count // 2 else "static"
        found.append(f"{first >> 16:x}:{first & 0xFFFF:x}:{number >> 16:x}:{number & 0xFFFF:x}::/64 {method}")
    return "\n".join(found)


class Latency:
    """Asks every 10 ms for what only Python can answer, one question at a time, and keeps the longest time."""

    def __init__(self, topology: Topology) -> None:
        self._frame = solicit(replace(SETTING, target=ip6(_TARGET)), headers=[IPv6ExtHdrHopByHop()])
        self._wire = Wire(topology)
        self._wire.only_advertisements()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest = 0.0
        self.asked = 0
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._stopping.set()
        self._thread.join()
        self._wire.close()

    def begin(self) -> None:
        """Measure from now on; what is under way counts."""
        self.longest, self.asked = 0.0, 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            self._wire.send(self._frame)
            self._answer(began)
            self.asked += 1
            time.sleep(_EVERY)

    def _answer(self, began: float) -> None:
        for frame in self._wire.received(_LOST):
            with suppress(ValueError):
                if NeighborAdvertisement.parse(frame).target == ip6(_TARGET):
                    self.longest = max(self.longest, time.monotonic() - began)
                    return
        self.longest = _LOST


@contextmanager
def measured(what: str, turns: Turns, latency: Latency, running: RunningDaemon) -> Iterator[None]:
    """Print what was seen while the block was at it."""
    latency.begin()
    turns.begin()
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    print(
        f"{what}: {took:.2f} s; the longest answer of {latency.asked} after {1000 * latency.longest:.0f} ms;"
        f" turns: {1000 * turns.longest:.0f} ms at most, {turns.all_in_all:.2f} s in all;"
        f" {resident(running):.0f} MB resident, {resident(running, 'VmHWM'):.0f} at the most",
        flush=True,
    )


def resident(running: RunningDaemon, key: str = "VmRSS") -> float:
    """Megabytes."""
    lines = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1000


def reload(running: RunningDaemon, text: str) -> Callable[[], Any]:
    """Reload, when it is called."""

    def call() -> None:
        running.write(text)
        ask(running.control, {"verb": "reload"})

    return call


def unread(running: RunningDaemon) -> None:
    """30 clients that ask for the status and never read it, and one that does."""
    with ExitStack() as stack:
        for _ in range(_CLIENTS):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.connect(str(running.control))
            client.sendall(_STATUS)
            time.sleep(0.02)
        ask(running.control, {"verb": "status"})


def measure(count: int, datapath: str) -> None:
    """Print the figures of one datapath."""
    keys = {"datapath": f'"{datapath}"', "events_per_source": "0"}

    def text(*arguments: Any) -> str:
        return configuration(*rules(*arguments).splitlines(), **keys)

    with Topology() as topology, ExitStack() as stack:
        file = topology.directory / "turns"
        turns = Turns(file)
        stack.callback(turns.close)
        program = (*PROGRAM, str(file))
        environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        running = stack.enter_context(
            RunningDaemon(topology, text(_FIRST, 2), program=program, environment=environment, timeout=120)
        )
        latency = Latency(topology)
        stack.callback(latency.close)
        load = f"load {os.getloadavg()[0]:.1f}"
        scenes: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("nothing goes on", lambda: time.sleep(_IDLE)),
            (f"from 2 rules to {count:,}, so the maps grow", reload(running, text(_FIRST, count))),
            ("one rule of them changes", reload(running, text(_FIRST, count, "ignore"))),
            (f"{count:,} wholly new ones", reload(running, text(_SECOND, count))),
            ("nothing changes", reload(running, text(_SECOND, count))),
            (f"{_CLIENTS} ask for the status and don't read it", lambda: unread(running)),
            (f"from {count:,} rules to 2", reload(running, text(_FIRST, 2))),
        )
        for what, scene in scenes:
            with measured(f"{datapath}, {load}: {what}", turns, latency, running):
                scene()
                time.sleep(1.0)  # what follows a reload belongs to it


def _count(text: str) -> int:
    try:
        count = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if count < 2:
        raise argparse.ArgumentTypeError(f"{count} is less than 2")
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """0: measured; 1: a daemon didn't start."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.reloads", description=__doc__)
    parser.add_argument("--count", type=_count, default=100_000, help="rules, two at the least (100000)")
    parser.add_argument("--datapath", choices=["hybrid", "python"], action="append", help="both, unless it is said")
    arguments = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("reloads: needs root, for namespaces and XDP programs", file=sys.stderr)
        return 1
    try:
        for datapath in arguments.datapath or ["hybrid", "python"]:
            measure(arguments.count, datapath)
    except StartError as error:
        print(f"reloads: {error}\n{error.log}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
