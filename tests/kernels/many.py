# SPDX-License-Identifier: GPL-2.0-or-later
"""4,000 VLAN devices as ports: how long a start takes beyond the compile, and whether each of them answers."""

from __future__ import annotations

import os
import select
import socket
import time
from ipaddress import IPv6Address

from npd6_xdp.lab.daemon import RunningDaemon
from tests.kernels.ground import Rule, interface
from tests.kernels.machine import transmit_vlan_offload
from tests.kernels.scene import Scene
from tests.kernels.wire import solicitation

COUNT = int(os.environ.get("MANY", "4000"))
_PREFIX = "2001:db8:61"
_WITHIN = 10.0  # seconds for a start beyond the compile, on a processor that isn't emulated
_START = 900.0  # seconds, for one that is
_STOP = 120.0
_BATCH = 100  # devices made at a time, or questions: a packet socket holds so many answers
_PATIENCE = 10.0  # seconds without a further answer, after which what is unanswered is asked again


class Many(Scene):
    kinds = ("vlan",)

    def build(self) -> str:
        ground = self.ground
        ground.cable("many0", "many0-ask")
        ground.cable("many1", "many1-ask")
        ground.cable("many2", "many2-ask")
        # Tags in the frames, as the questions are sent from one socket.
        transmit_vlan_offload(ground.topology, "edge", "many0", False)
        since = time.monotonic()
        vlans = range(1, COUNT + 1)
        for first in range(0, COUNT, _BATCH):
            some = vlans[first : first + _BATCH]
            ground.ip("edge", *(f"link add link many0 name many0.{vlan} up type vlan id {vlan}" for vlan in some))
        print(f"        {COUNT} VLAN devices made in {time.monotonic() - since:.1f} s", flush=True)
        return interface("many1", Rule(f"{_PREFIX}::/64", "static"))

    def check(self) -> None:
        ground = self.ground
        # The daemon of all scenes is there, too, with many1 and the usual address.
        quiet = '[metrics]\nlisten = ""\n'
        everywhere = quiet + interface("many0.*", Rule(f"{_PREFIX}::/64", "static"))
        compiled, _ = self._start(quiet + interface("many2", Rule(f"{_PREFIX}::/64", "static")), "with one port")
        for when in ("at first", "at a restart"):
            seconds, answered = self._start(everywhere, f"with {COUNT} VLAN devices, {when}")
            beyond = seconds - compiled
            print(f"        {beyond:.1f} s beyond a start with one port, {beyond / compiled:.2f} of it", flush=True)
            ground.check(f"all of {COUNT} VLAN devices answer, {when}", answered, COUNT)
        print(f"        the bound is {_WITHIN:.0f} s, where the processor isn't emulated", flush=True)

    def _start(self, configuration: str, what: str) -> tuple[float, int]:
        """How many seconds a daemon of its own takes until it is ready, and how many VLANs' questions it answers."""
        since = time.monotonic()
        with RunningDaemon(self.ground.topology, configuration, timeout=_START) as daemon:
            seconds = time.monotonic() - since
            answered = self._ask_all() if "many0" in configuration else 0
            since = time.monotonic()
            status = daemon.stop(_STOP)
            ended = time.monotonic() - since
        print(f"        {what}: ready after {seconds:.1f} s, ended with {status} after {ended:.1f} s", flush=True)
        return seconds, answered

    def _ask_all(self) -> int:
        """Ask once on each VLAN for an address of its own, by frames with a tag; how many of them are answered."""
        with self.ground.topology.inside("upstream"):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            wire.bind(("many0-ask", 0x0003))  # ETH_P_ALL: a tag may stand in the answer or beside it
        mac, heard, vlans = wire.getsockname()[4], set[int](), range(1, COUNT + 1)
        with wire:
            for _ in range(3):
                left = [vlan for vlan in vlans if vlan not in heard]
                for first in range(0, len(left), _BATCH):
                    for vlan in left[first : first + _BATCH]:
                        frame = solicitation(f"{_PREFIX}::{vlan:x}", "fe80::ff:fe00:1", mac)
                        wire.send(frame[:12] + b"\x81\x00" + vlan.to_bytes(2) + frame[12:])
                    wanted = len(heard) + min(_BATCH, len(left) - first)
                    until = time.monotonic() + _PATIENCE
                    while len(heard) < wanted and select.select([wire], [], [], max(0.0, until - time.monotonic()))[0]:
                        if new := self._advertised(wire.recv(2048)) - heard:
                            heard |= new
                            until = time.monotonic() + _PATIENCE
        return len(heard)

    @staticmethod
    def _advertised(frame: bytes) -> set[int]:
        """Whose number an advertisement's target has, with the tag in the frame or without."""
        message = frame[58:] if frame[12:14] == b"\x81\x00" else frame[54:]
        if len(message) < 24 or message[0] != 136:
            return set()
        target = IPv6Address(message[8:24])
        return {int(target) & 0xFFFF} if str(target).startswith(_PREFIX) else set()
