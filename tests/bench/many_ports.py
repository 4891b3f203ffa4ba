# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.bench.many_ports`: what thousands of ports cost: start, stop, restart, and doing nothing."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import Topology
from tests.frames import ip6
from tests.kinds import solicit
from tests.netns.wire import SETTING, until

TARGET = ip6("2001:db8:7::42")
CONFIGURATION = """\
[[interface]]
name = "sub*"
datapath = "{datapath}"

[[interface.rule]]
prefix = "2001:db8:7::/64"
method = "static"
"""
_PIECE = 500  # interfaces that one ip(8) makes
_BURST = 200  # solicitations before answers are taken in
_QUIET = 3.0  # seconds without a new address
_ETH_P_IPV6 = 0x86DD
_CHANGES = 3
_TICKS = os.sysconf("SC_CLK_TCK")


def mac(number: int) -> bytes:
    """The MAC address of the edge's end of a cable."""
    return bytes((2, 0, 0, 1, number >> 8, number & 0xFF))


def _ready(topology: Topology) -> int:
    """How many of the edge's ends take frames, and don't drop them: by its flags alone a link is up before."""
    links = topology.ip("edge", "link", "show", "type", "veth")
    return sum(link["operstate"] == "UP" for link in links if link["ifname"].startswith("sub"))


def make(topology: Topology, count: int, made: int = 0) -> None:
    """`count` cables: sub0, sub1, ... on the edge, their ends of the same names in the namespace `upstream`; so many of
    them are there already.
    """
    for namespace in ("edge", "upstream"):
        # link-local addresses are there at once, and nothing is sent for them
        topology.sysctl(namespace, "net/ipv6/conf/default/accept_dad", 0)
    there = topology.name("upstream")
    batch = topology.directory / "many-ports"
    for first in range(made, count, _PIECE):
        numbers = range(first, min(first + _PIECE, count))
        lines = [f"link add sub{n} address {mac(n).hex(':')} type veth peer name sub{n} netns {there}" for n in numbers]
        batch.write_text("\n".join([*lines, *(f"link set sub{n} up" for n in numbers)]))
        topology.run("edge", "ip", "-batch", str(batch), check=True, timeout=120)
        batch.write_text("\n".join(f"link set sub{n} up" for n in numbers))
        topology.run("upstream", "ip", "-batch", str(batch), check=True, timeout=120)
    assert until(lambda: _ready(topology) == count), "they don't come up"


def settle(topology: Topology) -> None:
    """Wait until the kernel has done with what it does for new interfaces: their addresses come for a while."""
    with topology.inside("edge"):
        addresses, since = -1, time.monotonic()
        while time.monotonic() - since < _QUIET:
            now = len(Path("/proc/thread-self/net/if_inet6").read_text().splitlines())
            if now != addresses:
                addresses, since = now, time.monotonic()
            time.sleep(0.1)


class Asker:
    """Asks on every cable, and knows which have answered."""

    def __init__(self, topology: Topology, count: int) -> None:
        with topology.inside("upstream"):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IPV6))
            self._names = {n: f"sub{n}" for n in range(count)}
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self._socket.setblocking(False)
        self._count = count
        self._frames = [solicit(replace(SETTING, mac=mac(n), target=TARGET)) for n in range(count)]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def answered(self, patience: float = 3.0) -> int:
        """How many of the ports answer."""
        return len(self.answering(patience))

    def answering(self, patience: float = 3.0) -> set[str]:
        """Which of the ports answer, each asked once, and once more if it hasn't."""
        found: set[str] = set()
        for _ in range(2):
            missing = [n for n, name in self._names.items() if name not in found]
            for start in range(0, len(missing), _BURST):
                for n in missing[start : start + _BURST]:
                    with suppress(OSError):  # there is none any more
                        self._socket.sendto(self._frames[n], (self._names[n], 0))
                self._take(found)
            ends = time.monotonic() + patience
            while len(found) < self._count and time.monotonic() < ends:
                self._take(found)
                time.sleep(0.01)
        return found

    def latency(self, number: int) -> float:
        """How long one port's answer takes (seconds)."""
        found: set[str] = set()
        began = time.monotonic()
        self._socket.sendto(self._frames[number], (self._names[number], 0))
        while not found and time.monotonic() - began < _QUIET:
            self._take(found)
        return time.monotonic() - began

    def _take(self, found: set[str]) -> None:
        while True:
            try:
                frame, (name, *_) = self._socket.recvfrom(256)
            except BlockingIOError:
                return
            if frame[54:55] == b"\x88" and frame[62:78] == TARGET:  # Neighbor Advertisement
                found.add(name)


def processor_time(pid: int) -> float:
    """Seconds that a process has had, in user and kernel mode, all threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def compiling(topology: Topology) -> float:
    """Seconds that a daemon takes to be ready on a port that there is anyway."""
    began = time.monotonic()
    with RunningDaemon(topology, CONFIGURATION.format(datapath="hybrid").replace("sub*", "wan0")):
        return time.monotonic() - began


def held_up(topology: Topology, asker: Asker) -> float:
    """The longest that an answer takes while another port's address comes and goes (seconds)."""
    longest = 0.0
    for word in ("add", "del") * _CHANGES:
        topology.run("edge", "ip", "address", word, "2001:db8:8::1/128", "dev", "sub1", check=True)
        ends = time.monotonic() + 1.0
        while time.monotonic() < ends:
            longest = max(longest, asker.latency(0))
    return longest


def stopped(running: RunningDaemon) -> float:
    """Seconds that a stop takes."""
    began = time.monotonic()
    running.stop(60.0)
    return time.monotonic() - began


def measure(count: int, datapath: str, idle: float) -> None:
    """Print the figures of one datapath."""
    with Topology() as topology:
        without = min(compiling(topology) for _ in range(2))
        began = time.monotonic()
        make(topology, count)
        settle(topology)
        print(f"{count:,} interfaces made in {time.monotonic() - began:.1f} s; a start with one port: {without:.2f} s")
        asker = Asker(topology, count)
        text = CONFIGURATION.format(datapath=datapath)
        for word in ("start", "restart"):
            began = time.monotonic()
            with RunningDaemon(topology, text, timeout=120) as running:
                took = time.monotonic() - began
                said = len(running.log.splitlines())
                answered = asker.answered()
                files = len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))
                print(
                    f"{datapath}: {word}: {took:.2f} s, {took - without:.2f} s beyond one port's;"
                    f" {answered:,} of {count:,} answer; {files:,} descriptors; {said} lines of log"
                )
                if word == "restart":
                    asked = time.monotonic()
                    page = running.metrics_text(timeout=60)
                    print(f"{datapath}: /metrics: {time.monotonic() - asked:.2f} s, {len(page) / 2**20:.1f} MiB")
                    asked = time.monotonic()
                    status = running.command("status").stdout
                    print(f"{datapath}: status: {time.monotonic() - asked:.2f} s, {len(status.splitlines()):,} lines")
                    longest = held_up(topology, asker)
                    print(f"{datapath}: while another port changes, an answer takes {longest:.3f} s at most")
                    time.sleep(5)
                    spent = processor_time(running.process.pid)
                    time.sleep(idle)
                    spent = processor_time(running.process.pid) - spent
                    print(f"{datapath}: idle for {idle:.0f} s: {100 * spent / idle:.2f} % of a CPU")
                took = stopped(running)
                print(f"{datapath}: stop: {took:.2f} s, exit status {running.process.returncode}")
        asker.close()


def main(argv: Sequence[str] | None = None) -> int:
    """0: measured; 1: a daemon didn't start."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many_ports", description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="interfaces (4000)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of doing nothing (60)")
    parser.add_argument("--datapath", choices=["hybrid", "python"], action="append", help="both, unless it is said")
    arguments = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("many_ports: needs root, for namespaces and XDP programs", file=sys.stderr)
        return 1
    try:
        for datapath in arguments.datapath or ["hybrid", "python"]:
            measure(arguments.count, datapath, arguments.idle)
    except StartError as error:
        print(f"many_ports: {error}\n{error.log}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
