# SPDX-License-Identifier: GPL-2.0-or-later
"""Where it happens: an edge with hosts behind two links, and an upstream whose kernel is silent."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Self

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Namespace, Topology
from npd6_xdp.system.descriptors import raise_limit
from tests.bench.counter import Counter
from tests.soak.traffic import HOST_NUMBERS, HOSTS, ROUTED


@dataclass(frozen=True, slots=True)
class Driver:
    """What veth's driver has counted of the port, in words of ethtool -S; nothing of it is npd6-xdp's.

    `taken` into the port's ring, `refused` as that was full, `seen` by the XDP program, `returned` by it (XDP_TX),
    `unsent` of those, as the other end's ring was full.
    """

    taken: int
    refused: int
    seen: int
    returned: int
    unsent: int = 0

    def __sub__(self, before: Driver) -> Driver:
        return Driver(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(self)))


class Ground:
    """The namespaces, while the `with` block runs. Their end is that of all that runs there."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        raise_limit()
        with ExitStack() as stack:
            self.topology = stack.enter_context(Topology())
            self._build()
            # native XDP_TX over veth delivers nothing unless the peer has a program, too
            self.counter = stack.enter_context(Counter(self.topology, sample=1 << 20))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def _build(self) -> None:
        topology = self.topology
        # Nobody asks but the generator: what the driver has seen is what is to be counted.
        topology.sysctl("upstream", "net/ipv6/conf/eth0/disable_ipv6", 1)
        host = topology.name("host")
        edge = (
            f"link add lan1 type veth peer name eth1 netns {host}",
            "link set lan1 up",
            f"-6 route add {ROUTED}/64 dev lan0",
            f"-6 route add {HOSTS}/64 dev lan1 metric 2048",
        )
        for line in edge:
            topology.run("edge", "ip", *line.split(), check=True)
        topology.run("host", "ip", "link", "set", "eth1", "up", check=True)
        for number in HOST_NUMBERS:
            self.place(number, "eth0")
        for interface in ("lan0", "lan1"):  # the kernel gives a target up in 0.6 s, not in 3
            topology.sysctl("edge", f"net/ipv6/neigh/{interface}/retrans_time_ms", 200)

    def place(self, number: int, interface: str) -> None:
        """Have a host live on one of its links, and on no other."""
        other = "eth1" if interface == "eth0" else "eth0"
        address = f"{HOSTS}{number:x}/128"
        self.topology.run("host", "ip", "address", "del", address, "dev", other)
        self.topology.run("host", "ip", "address", "replace", address, "dev", interface, "nodad")

    def edge(self, *lines: str) -> None:
        """What ip(8) is told on the edge; any of it may fail, as things are."""
        batch = self.topology.directory / "batch"
        batch.write_text("".join(f"{line}\n" for line in lines))
        self.topology.run("edge", "ip", "-6", "-force", "-batch", str(batch))

    def driver(self) -> Driver:
        """The port's counters, of all queues."""
        return driver(self.topology)


def driver(topology: Topology) -> Driver:
    """The counters of the edge's port, of all queues."""
    there, here = _statistics(topology, "upstream", "eth0"), _statistics(topology, "edge", "wan0")
    unsent = _sum(here, "rx_queue_", "_xdp_tx_errors")
    return Driver(
        taken=_sum(there, "tx_queue_", "_xdp_xmit"),
        refused=_sum(there, "tx_queue_", "_xdp_xmit_errors"),
        seen=_sum(here, "rx_queue_", "_xdp_packets"),
        returned=_sum(here, "rx_queue_", "_xdp_tx") + unsent,
        unsent=unsent,
    )


def _statistics(topology: Topology, namespace: Namespace, interface: str) -> dict[str, int]:
    found = {}
    for line in topology.run(namespace, "ethtool", "-S", interface, check=True).stdout.splitlines():
        name, _, value = line.strip().partition(": ")
        if value.isdigit():
            found[name] = int(value)
    return found


def _sum(statistics: dict[str, int], begin: str, end: str) -> int:
    values = [value for name, value in statistics.items() if name.startswith(begin) and name.endswith(end)]
    if not values:
        raise MachineError(f"soak: veth's driver here has no {begin}N{end} (ethtool -S)")
    return sum(values)


def counted(running: RunningDaemon) -> dict[str, int]:
    """How many solicitations met which outcome, all entries together: {outcome: count}."""
    found: dict[str, int] = {}
    for (name, labels), value in running.metrics().items():
        if name == "npd6_solicitations_total":
            outcome = dict(labels)["outcome"]
            found[outcome] = found.get(outcome, 0) + int(value)
    return found
