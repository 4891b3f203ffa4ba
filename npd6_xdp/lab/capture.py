# SPDX-License-Identifier: GPL-2.0-or-later
"""What was asked and answered on a wire: captured by tcpdump, decoded by scapy. Neither shares code with the daemon, so
they are independent evidence.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    in6_chksum,
)
from scapy.layers.l2 import Ether
from scapy.utils import PcapReader

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.processes import state_of
from npd6_xdp.lab.topology import Namespace, Topology

_FILTER = "icmp6 and (ip6[40] == 135 or ip6[40] == 136)"
_PATIENCE = 60.0  # seconds that tcpdump may take for anything on a machine that does other things beside


def settle(process: subprocess.Popen[str]) -> None:
    """Wait until a tcpdump has written all that has come by now, which is when it sleeps: each packet wakes it.

    What it says of packets is no measure. Those that came before its filter was set it counts as received, and never
    as captured.
    """
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and state_of(Path(f"/proc/{process.pid}")) != "S" and time.monotonic() < deadline:
        time.sleep(0.002)


@dataclass(frozen=True, slots=True)
class Message:
    """What a Neighbor Solicitation and a Neighbor Advertisement have in common; `at` is in seconds."""

    at: float
    frame: bytes
    eth_source: str
    eth_destination: str
    source: str
    destination: str
    hop_limit: int
    target: str
    link_layer_address: str | None  # the SLLAO's of a solicitation, the TLLAO's of an advertisement
    checksum: int
    checksum_right: bool


@dataclass(frozen=True, slots=True)
class Solicitation(Message):
    """A Neighbor Solicitation (RFC 4861 §4.3) as scapy reads it."""


@dataclass(frozen=True, slots=True)
class Advertisement(Message):
    """A Neighbor Advertisement (RFC 4861 §4.4) as scapy reads it."""

    router: int
    solicited: int
    override: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """A solicitation and the first advertisement that answers it, or None."""

    solicitation: Solicitation
    advertisement: Advertisement | None

    @property
    def seconds(self) -> float:
        """From the solicitation to the advertisement; 0.0 when nobody answered."""
        return self.advertisement.at - self.solicitation.at if self.advertisement else 0.0


class Capture:
    """Neighbor Solicitations and Advertisements on one interface, recorded while the `with` block runs."""

    def __init__(self, topology: Topology, namespace: Namespace, interface: str) -> None:
        self.topology = topology
        self.namespace: Namespace = namespace
        self.interface = interface
        self.file = topology.directory / f"{namespace}-{interface}-{time.monotonic_ns()}.pcap"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        # To standard output: tcpdump drops its privileges before it would open a file of its own.
        words = ("tcpdump", "-i", self.interface, "--immediate-mode", "-U", "-w", "-", _FILTER)
        log = self.file.with_suffix(".log")
        with self.file.open("wb") as packets, log.open("w") as said:
            self._process = self.topology.popen(self.namespace, *words, stdout=packets, stderr=said)
        deadline = time.monotonic() + _PATIENCE
        while "listening on" not in log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise MachineError(f"lab: tcpdump doesn't start: {log.read_text().strip()}")
            time.sleep(0.01)
        return self

    def settle(self) -> None:
        """Wait until all is in the file that has come to the interface by now."""
        assert self._process is not None
        settle(self._process)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self.settle()
        self._process.terminate()
        self._process.wait()

    def exchanges(self, asker: str) -> list[Exchange]:
        """The solicitations that came from the MAC address `asker`, in order, each with its answer."""
        self.settle()
        messages = read(self.file)
        advertisements = [message for message in messages if isinstance(message, Advertisement)]
        return [
            Exchange(ns, next((na for na in advertisements if _answers(na, ns)), None))
            for ns in messages
            if isinstance(ns, Solicitation) and ns.eth_source == asker
        ]


def read(file: Path) -> list[Solicitation | Advertisement]:
    """The solicitations and advertisements in a pcap file, in its order."""
    messages: list[Solicitation | Advertisement] = []
    with PcapReader(str(file)) as packets:
        for packet in packets:
            if ICMPv6ND_NS in packet:
                option = packet.getlayer(ICMPv6NDOptSrcLLAddr)
                messages.append(Solicitation(**_common(packet, packet[ICMPv6ND_NS], option)))
            elif ICMPv6ND_NA in packet:
                na = packet[ICMPv6ND_NA]
                common = _common(packet, na, packet.getlayer(ICMPv6NDOptDstLLAddr))
                messages.append(Advertisement(**common, router=na.R, solicited=na.S, override=na.O))
    return messages


def _common(packet: Any, icmpv6: Any, option: Any) -> dict[str, Any]:
    ether, ip = packet[Ether], packet[IPv6]
    return {
        "at": float(packet.time),
        "frame": bytes(packet),
        "eth_source": ether.src,
        "eth_destination": ether.dst,
        "source": ip.src,
        "destination": ip.dst,
        "hop_limit": ip.hlim,
        "target": icmpv6.tgt,
        "link_layer_address": option.lladdr if option else None,
        "checksum": icmpv6.cksum,
        "checksum_right": in6_chksum(58, ip, bytes(ip.payload)) == 0,
    }


def _answers(advertisement: Advertisement, solicitation: Solicitation) -> bool:
    return (
        advertisement.target == solicitation.target
        and advertisement.destination == solicitation.source
        and advertisement.at >= solicitation.at
    )
