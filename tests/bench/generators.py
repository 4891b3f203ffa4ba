# SPDX-License-Identifier: GPL-2.0-or-later
"""Solicitations out of the asker's interface: paced by sendmmsg(2), or a flood of live frames.

The paced one is exact about when, and ends where sendmmsg does, at a few hundred thousand a second. The flood is
made by BPF in the kernel, a million a second and more; it can be paced too, in batches of 64.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from npd6_xdp.lab.topology import Namespace, Topology
from npd6_xdp.system.bpf.testrun import TestRun
from tests.bench.bpf import SmallProgram
from tests.bench.worker import Worker

_BATCH = 32  # frames that one sendmmsg() takes at the most: a tenth of a millisecond's at 300,000 a second
_LAG = 0.002  # seconds: who is later than that sends less, instead of a burst that no ring could hold
_NAP = 0.0003  # seconds: who has longer to wait than this sleeps, who has less spins
_SOL_PACKET = 263
_PACKET_QDISC_BYPASS = 20
_MMSGHDR = struct.Struct("@PI4xPNPNi4xI4x")  # struct mmsghdr: a struct msghdr, then the length that was sent
_IOVEC = struct.Struct("@PN")
_PACE = struct.Struct("=QQQQ")  # struct pace of generate.c
_FOREVER = (1 << 31) - 1  # frames; a timer ends it before


@dataclass(frozen=True, slots=True)
class Order:
    """So many a second for so many seconds; `rate` None is as many as possible."""

    rate: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent indeed, and how long that took (seconds)."""

    frames: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0


Generator = Worker[Order, Sent]


def paced(
    topology: Topology,
    frames: Sequence[bytes],
    cpu: int | None = None,
    interface: str = "eth0",
    namespace: Namespace = "upstream",
) -> Generator:
    """Sends these frames, round and round, evenly."""
    return Worker(topology, partial(_prepare_paced, frames, interface), namespace, cpu)


def flood(topology: Topology, frame: bytes, targets: int, cpu: int | None = None, interface: str = "eth0") -> Generator:
    """Sends solicitations like `frame`, whose target's last two bytes are 0, for so many targets in turn."""
    return Worker(topology, partial(_prepare_flood, frame, targets, interface), cpu=cpu)


class Burst:
    """Frames in the shape that sendmmsg() wants; all equally long."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        size = len(frames[0])
        self.count = len(frames)
        self._bytes = ct.create_string_buffer(b"".join(frames), size * self.count)
        self._iovecs = ct.create_string_buffer(_IOVEC.size * self.count)
        self._messages = ct.create_string_buffer(_MMSGHDR.size * self.count)
        for i in range(self.count):
            _IOVEC.pack_into(self._iovecs, i * _IOVEC.size, ct.addressof(self._bytes) + i * size, size)
            iovec = ct.addressof(self._iovecs) + i * _IOVEC.size
            _MMSGHDR.pack_into(self._messages, i * _MMSGHDR.size, 0, 0, iovec, 1, 0, 0, 0, 0)
        self.address = ct.addressof(self._messages)


def _prepare_paced(frames: Sequence[bytes], interface: str) -> Callable[[Order], Sent]:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((interface, 0))
    sock.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    return partial(_send_paced, sock, Burst(frames))


def _send_paced(sock: socket.socket, burst: Burst, order: Order) -> Sent:
    sendmmsg = ct.CDLL(None, use_errno=True).sendmmsg
    sendmmsg.argtypes = (ct.c_int, ct.c_void_p, ct.c_uint, ct.c_int)
    now, fd, address, count, size = time.perf_counter, sock.fileno(), burst.address, burst.count, _MMSGHDR.size
    rate = order.rate or 1e9
    lag = max(_BATCH, int(rate * _LAG)) if order.rate else 1 << 62
    sent = position = skipped = 0
    began = now()
    end = began + order.seconds
    while (moment := now()) < end:
        due = int((moment - began) * rate) - sent - skipped
        if due <= 0:
            wait = (sent + skipped + 1) / rate - (now() - began)
            if wait > _NAP:
                time.sleep(wait - _NAP / 2)
            continue
        if due > lag:
            skipped += due - lag
        done = sendmmsg(fd, address + position * size, min(due, _BATCH, count - position), 0)
        if done < 0:
            if ct.get_errno() in (errno.ENOBUFS, errno.EAGAIN):
                continue  # veth's ring is full, and the sender has to wait
            raise OSError(ct.get_errno(), os.strerror(ct.get_errno()), "sendmmsg")
        sent += done
        position = (position + done) % count
    return Sent(sent, now() - began)


def _prepare_flood(frame: bytes, targets: int, interface: str) -> Callable[[Order], Sent]:
    program = SmallProgram("generate.c", "generate", TARGETS=targets)
    program.put("pristine_space", frame.ljust(96, b"\0"))
    return partial(
        send_live, program, TestRun(), frame, socket.if_nametoindex(interface), partial(_sent_so_far, program)
    )


def send_live(
    program: SmallProgram, runs: TestRun, frame: bytes, ifindex: int, sent_so_far: Callable[[], int], order: Order
) -> Sent:
    """Run a program that makes live frames of `frame`, at the pace that it finds in its map `pace_space`."""
    before, began = sent_so_far(), time.monotonic_ns()
    end = began + int(order.seconds * 1e9)
    interval = int(1e9 / order.rate) if order.rate else 0
    program.put("pace_space", _PACE.pack(began, end, interval, int(_LAG * 1e9)))
    signal.signal(signal.SIGALRM, lambda *_: None)  # a system call is interrupted only by a signal that has a handler
    signal.setitimer(signal.ITIMER_REAL, order.seconds, 0.1)  # again, should the first have come too early
    try:
        with suppress(InterruptedError):
            runs.send(program.fd, frame, ifindex, _FOREVER)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return Sent(sent_so_far() - before, order.seconds)


def _sent_so_far(program: SmallProgram) -> int:
    return sum(int.from_bytes(value, "little") for value in program.per_cpu("sent", 8))
