# SPDX-License-Identifier: GPL-2.0-or-later
"""What `attach = "auto"` makes of a bond of taps while slaves come and go: one whose driver has no XDP, one that loses
what XDP sends back. Each question is answered once, also while the port moves; where the kernel has no tcx, there may
be a gap, which the log tells.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
from collections import Counter
from collections.abc import Callable

from npd6_xdp.core.attached import attached_words
from tests.kernels.ground import Rule, interface, until
from tests.kernels.scene import Scene
from tests.kernels.wire import advertisement, solicitation

_BOND, _WITHOUT_XDP, _LOSSY = "auto0", "auto-dummy", "auto-veth"
_TAPS = ("auto-t0", "auto-t1")
_PREFIX = "2001:db8:61"
_SOURCE, _MAC = "fe80::ff:fe00:1", bytes((2, 0, 0, 0, 0, 1))
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_PACE = 0.01  # seconds between two questions
_SOON = 120.0  # seconds in which a port moves: it does at once, or a minute after it has moved before
_FRAME = 2048


class Asker:
    """At the far end of a tap: asks for one target after another, and counts the right answers of each."""

    def __init__(self, descriptor: int, mac: bytes) -> None:
        self._descriptor, self._mac = descriptor, mac
        self.asked = 0
        self.answers: Counter[int] = Counter()
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._ask, self._hear)]
        for each in self._threads:
            each.start()

    def end(self) -> None:
        """No more questions; what has been asked may be answered yet."""
        self._ends.set()
        for each in self._threads:
            each.join()

    def _target(self, number: int) -> str:
        return f"{_PREFIX}::{number >> 16:x}:{number & 0xFFFF:x}"

    def _ask(self) -> None:
        while not self._ends.wait(_PACE):
            os.write(self._descriptor, solicitation(self._target(self.asked + 1), _SOURCE, _MAC))
            self.asked += 1

    def _hear(self) -> None:
        idle = 0
        while idle < 20 or not self._ends.is_set():
            if not select.select([self._descriptor], [], [], 0.05)[0]:
                idle += 1
                continue
            frame, idle = os.read(self._descriptor, _FRAME), 0
            number = int.from_bytes(frame[74:78])  # the end of its target, if it is one of ours
            if frame == advertisement(self._target(number), _SOURCE, _MAC, self._mac):
                self.answers[number] += 1


class AutoMoves(Scene):
    kinds = ("bond", "tun", "dummy")

    def build(self) -> str:
        ground = self.ground
        ground.ip("edge", f"link add {_BOND} type bond mode active-backup miimon 100")
        self.taps = [self._tap(name) for name in _TAPS]
        ground.ip("edge", f"link add {_WITHOUT_XDP} type dummy")
        ground.cable(_LOSSY, f"{_LOSSY}-a", up=False)
        ground.ip("edge", *(f"link set {slave} down master {_BOND}" for slave in (*_TAPS, _WITHOUT_XDP)))
        ground.ip("edge", f"link set {_BOND} type bond active_slave {_TAPS[0]}", f"link set {_BOND} up")
        return interface(_BOND, Rule(f"{_PREFIX}::/64", "static"), events_per_source=0)

    def _tap(self, name: str) -> int:
        with self.ground.topology.inside("edge"):
            found = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(found, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        return found

    def check(self) -> None:
        ground = self.ground
        until(lambda: "LOWER_UP" in ground.link(_BOND)["flags"], 30.0)
        ground.check_auto(_BOND, "the driver refuses an XDP program in native mode: Operation not supported")
        self._moves(
            "a slave without XDP goes", "native", lambda: ground.ip("edge", f"link set {_WITHOUT_XDP} nomaster")
        )
        otherwise = "tc" if ground.has_tcx else "generic"
        self._moves("a veth comes", otherwise, lambda: ground.ip("edge", f"link set {_LOSSY} master {_BOND}"))
        self._moves("the veth goes", "native", lambda: ground.ip("edge", f"link set {_LOSSY} nomaster"))
        for line in ground.daemon.log.splitlines():
            if f"{_BOND}:" in line:
                print(f"        {line}", flush=True)

    def _moves(self, what: str, to: str, change: Callable[[], None]) -> None:
        """Whether the port goes there by itself, once something changes, and how many of the questions are answered."""
        ground = self.ground
        gaps, asker = ground.daemon.log.count("no program was there"), Asker(self.taps[0], ground.mac(_BOND))
        try:
            until(lambda: asker.answers.total() > 10, 30.0)
            change()
            until(lambda: self._attach() == to, _SOON)
            ground.check(f"{what}: {attached_words(to)}", self._attach(), to)
            asked = asker.asked
            until(lambda: asker.asked > asked + 10, 30.0)
        finally:
            asker.end()
        twice = sum(count > 1 for count in asker.answers.values())
        unanswered = asker.asked - len(asker.answers)
        ground.check(f"{what}: none of {asker.asked} questions is answered twice", twice, 0)
        if ground.has_tcx:
            ground.check(f"{what}: each is answered", unanswered, 0)
        else:
            print(f"        {what}: {unanswered} of {asker.asked} questions unanswered", flush=True)
            told = ground.daemon.log.count("no program was there") > gaps
            ground.check(f"{what}: what was missed is told", told or not unanswered)

    def _attach(self) -> str:
        return str(next(row["attach"] for row in self.ground.status()["interfaces"] if row["port"] == _BOND))
