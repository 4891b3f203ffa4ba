# SPDX-License-Identifier: GPL-2.0-or-later
"""A packet socket on the upstream's side: raw solicitations out, whole frames with their VLAN tags in."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.topology import EDGE_WAN_MAC, UPSTREAM_MAC, Topology
from tests.frames import Setting, ether, ip6

EDGE = ether(EDGE_WAN_MAC)
SETTING = Setting(
    mac=EDGE,
    asker_mac=ether(UPSTREAM_MAC),
    asker_link_local=ip6("fe80::ff:fe00:1"),
    asker_global=ip6("2001:db8::1"),
    target=ip6("2001:db8:1::42"),
)

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_AUXDATA = 8
_VLAN_VALID = 0x10


class Wire:
    """The upstream's eth0. `interface` and `namespace` may name another end."""

    def __init__(self, topology: Topology, namespace: str = "upstream", interface: str = "eth0") -> None:
        with topology.inside(namespace):  # type: ignore[arg-type]
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind((interface, _ETH_P_ALL))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self._socket.send(frame)

    def received(self, seconds: float) -> Iterable[bytes]:
        """The frames that come in for so long, those that this side sends left out."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame, ancillary, _, sender = self._socket.recvmsg(65535, 256)
            except TimeoutError:
                return
            if sender[2] == socket.PACKET_OUTGOING:
                continue
            for _, _, data in ancillary:
                # The kernel takes the outer tag out of the frame; struct tpacket_auxdata has it.
                status, _, _, _, _, tci, tpid = struct.unpack_from("=IIIHHHH", data)
                if status & _VLAN_VALID:
                    frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
            yield frame

    def advertisements(self, seconds: float, enough: int | None = None) -> list[bytes]:
        """The Neighbor Advertisements among them; ends sooner when there are `enough`."""
        found = []
        for frame in self.received(seconds):
            try:
                NeighborAdvertisement.parse(frame)
            except ValueError:
                continue
            found.append(frame)
            if len(found) == enough:
                break
        return found

    def ask(self, frame: bytes, seconds: float = 1.0) -> bytes | None:
        """Send one solicitation; the first advertisement for its target, or None."""
        self.send(frame)
        answers = self.advertisements(seconds, enough=1)
        return answers[0] if answers else None


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait for a condition; whether it came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def configuration(*rules: str, **keys: str) -> str:
    """A configuration for wan0: rules as "PREFIX METHOD", keys as TOML has their values."""
    lines = ["[[interface]]", 'name = "wan0"', *(f"{key} = {value}" for key, value in keys.items())]
    for words in rules or ("2001:db8:1::/64 static",):
        prefix, method = words.split()
        lines += ["[[interface.rule]]", f'prefix = "{prefix}"', f'method = "{method}"']
    return "\n".join(lines) + "\n"
