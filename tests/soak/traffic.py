# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked: solicitations of every kind for targets of every method, and a generator that draws of them."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from npd6_xdp.core.icmpv6 import NeighborSolicitation
from npd6_xdp.core.verdict import Reason
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.testrun import TestRun
from tests.bench.bpf import SmallProgram
from tests.bench.generators import Order, Sent, send_live
from tests.bench.worker import Worker
from tests.frames import Setting, ip6
from tests.kinds import KINDS, Kind, Wanted
from tests.netns.wire import SETTING

FRAMES = 2048
"""Of the pool."""
_MAX_LENGTH = 1528
_FRAME = struct.Struct(f"=4H{_MAX_LENGTH}s")  # struct frame of generate.c
_STATE = struct.Struct("=2Q")
_ASKERS = 16  # with an address of their own; each that the kernel's proxy answers is in the kernel's neighbour table
_PLAIN = 0.6  # of the valid ones: a hop-by-hop header is seldom

TAGS = {
    "": b"",
    "priority": bytes.fromhex("8100e000"),
    "100": bytes.fromhex("81000064"),
    "100.7": bytes.fromhex("88a8006481000007"),
    "300": bytes.fromhex("8100012c"),
    "400": bytes.fromhex("81000190"),
}
"""Of the entries that there are (changes.py), and what of priority tags counts as none."""
STATIC, HOSTS, ROUTED, PROXIED, IGNORED, NOBODYS = (f"2001:db8:{net}::" for net in ("10", "1", "20", "30", "40", "50"))
"""The prefixes of the rules, a method each; and one of no rule."""
HOST_NUMBERS = range(0x10, 0x20)
OWN = "2001:db8:1::1"


@dataclass(frozen=True, slots=True)
class Pooled:
    """A frame of the pool; `target` and `checksum` are offsets where the target varies, 0 where it doesn't."""

    data: bytes
    target: int = 0
    checksum: int = 0
    varies_sender: bool = False

    def pack(self) -> bytes:
        return _FRAME.pack(len(self.data), self.target, self.checksum, self.varies_sender, self.data)


def pool(seed: int) -> list[Pooled]:
    """All kinds that are solicitations, valid and invalid ones, for known and unknown targets of all methods."""
    random_ = random.Random(seed)  # noqa: S311
    kinds = [kind for kind in KINDS if kind.wanted is not Wanted.UNSEEN]
    return [_one(random_, kinds, number) for number in range(FRAMES)]


def _one(random_: random.Random, kinds: Sequence[Kind], number: int) -> Pooled:
    asker = random_.randrange(_ASKERS)
    kind = kinds[number % len(kinds)]
    if isinstance(kind.wanted, Reason) or random_.random() < _PLAIN:
        kind = kind if number < 2 * len(kinds) else random_.choice(kinds[:5])  # the valid ones that Linux sends
    unicast = kind.build(SETTING)[0] & 1 == 0
    target, varies = _target(random_, unicast)
    setting = Setting(
        mac=SETTING.mac,
        asker_mac=b"\2\0\0\0\1" + bytes([asker]),
        asker_link_local=ip6(f"fe80::{0x100 + asker:x}"),
        asker_global=ip6(f"2001:db8::{0x100 + asker:x}"),
        target=ip6(target),
        tags=TAGS[random_.choice([*(8 * [""]), *TAGS])],
    )
    frame = kind.build(setting)
    if len(frame) > _MAX_LENGTH:
        return _one(random_, kinds, 0)
    frame = frame.ljust(60, b"\0")  # as Ethernet has it
    asked = NeighborSolicitation.parse(frame)
    if not varies or unicast or not isinstance(asked, NeighborSolicitation) or asked.target != setting.target:
        return Pooled(frame)
    place = frame.rindex(setting.target)  # behind the addresses
    return Pooled(frame, place + 8, place - 6, varies_sender=random_.random() < 0.2)


def _target(random_: random.Random, unicast: bool) -> tuple[str, bool]:
    """A target, and whether its middle may vary. A unicast one that goes on to the kernel would be forwarded."""
    known = random_.choice(HOST_NUMBERS)
    if unicast:
        return random_.choice(((f"{STATIC}{known:x}", False), (f"{HOSTS}{known:x}", False)))
    return random_.choice(
        (
            *(12 * ((f"{STATIC}{random_.randrange(1, 1 << 16):x}", True),)),
            (f"{STATIC}dead", False),  # what exclude takes out
            (f"{ROUTED}{known:x}", True),
            (f"{ROUTED}{known:x}", False),
            (f"{PROXIED}{known:x}", False),
            (f"{HOSTS}{known:x}", False),
            (f"{HOSTS}{known:x}", False),
            (f"{HOSTS}{random_.randrange(0x100, 0x140):x}", False),  # nobody has these
            (f"{HOSTS}{random_.randrange(0x100, 0x140):x}", random_.random() < 0.5),
            (f"{IGNORED}{known:x}", True),
            (f"{NOBODYS}{known:x}", True),
            (OWN, False),
            ("2001:db8::2", False),
        )
    )


def generator(topology: Topology, seed: int) -> Worker[Order, Sent]:
    """Sends solicitations of the pool, drawn at random."""
    return Worker(topology, partial(_prepare, seed, [frame.pack() for frame in pool(seed)]))


def _prepare(seed: int, frames: Sequence[bytes]) -> Callable[[Order], Sent]:
    path = Path(__file__).with_name("generate.c")
    lots = seed & 0x7FFFFFFF or 1
    program = SmallProgram(str(path), "generate", FRAMES=FRAMES, MAX_LENGTH=_MAX_LENGTH, SEED=lots)
    for number, frame in enumerate(frames):
        program.put("pool", frame, number)
    return partial(
        send_live, program, TestRun(), bytes(86), socket.if_nametoindex("eth0"), partial(_sent_so_far, program)
    )


def _sent_so_far(program: SmallProgram) -> int:
    return sum(_STATE.unpack(value)[1] for value in program.per_cpu("state_space", _STATE.size))
