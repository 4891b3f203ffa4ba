# SPDX-License-Identifier: GPL-2.0-or-later
"""An upstream that asks for hosts behind a pair of edges, and pings them, all the time; what comes back is recorded.

Some hosts are its kernel's: a real neighbour cache, real questions. The others are in a cache of the thread's own that
takes advertisements as RFC 4861 §7.2.5 says, since the kernel's has 1,024 entries for all namespaces.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import Ether

from npd6_xdp.core.groups import solicited_node
from npd6_xdp.lab.pair import EDGES, GATEWAY, Edge, Pair
from npd6_xdp.lab.sightings import Seen, Sightings
from npd6_xdp.lab.topology import UPSTREAM_ADDRESS, UPSTREAM_MAC

ASKED = "2001:db8:1::f"
"""The target that is asked for all the time, to see who answers."""

QUESTION_EVERY: Final = 0.01  # seconds
_ASK_AGAIN = 1.0  # seconds: RFC 4861 §10, RETRANS_TIMER
_UNREACHABLE = 8.0  # seconds: RFC 4861 §10, DELAY_FIRST_PROBE_TIME and MAX_UNICAST_SOLICIT times RETRANS_TIMER
_PINGS_PER_SECOND = 2000
SAMPLE: Final = 50
SAMPLE_EVERY: Final = 0.05
_FASTEST = 0.02  # seconds between two pings of a host
_BURST = 100  # pings at once, where the machine was busy meanwhile
_IDENTIFIER = 0x6E64

_ETH_P_ALL = 3  # as a bridge takes a port's frames before they are anybody's of one protocol
_ICMPV6_IN = (  # classic BPF, for attach_filter(): what comes in, of IPv6, with ICMPv6 in it
    (0x30, 0, 0, 0xFFFFF004),  # SKF_AD_PKTTYPE
    (0x15, 4, 0, socket.PACKET_OUTGOING),
    (0x28, 0, 0, 12),
    (0x15, 0, 2, 0x86DD),
    (0x30, 0, 0, 20),
    (0x15, 1, 0, socket.IPPROTO_ICMPV6),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFF),
)
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_RTMGRP_IPV6_IFADDR = 0x100
_NEWADDR, _DELADDR = 20, 21
_NA, _ECHO_REPLY = 136, 129


class Upstream:
    """Asks and pings while the `with` block runs. `hosts` are addresses; the first `by_kernel` are the kernel's."""

    def __init__(self, pair: Pair, hosts: Sequence[str], by_kernel: int) -> None:
        self.hosts = tuple(hosts)
        self.by_kernel = min(by_kernel, len(hosts))
        self.every = max(_FASTEST, len(hosts) / _PINGS_PER_SECOND)
        """Seconds between two pings of a host: what is said of it is as exact as that."""
        self.sample = self.hosts[:: -(-len(self.hosts) // SAMPLE)] if self.every > SAMPLE_EVERY else ()
        """Hosts that are pinged each SAMPLE_EVERY seconds besides, where that is more often."""
        self.seen = Sightings()
        self.cache: dict[str, bytes] = {}
        self._names = {IPv6Address(each).packed: each for each in (*hosts, ASKED)}
        self._by_cache = frozenset(self.hosts[self.by_kernel :])
        self._asked_at: dict[str, float] = {}
        self._alive_at: dict[str, float] = {}  # when each host of `cache` was heard last, or found
        self._questions = {each: question(each) for each in (*self._by_cache, ASKED)}
        self._pings = {each: ping(each) for each in self._by_cache}
        self._echo = struct.pack("!BBHHH", 128, 0, 0, _IDENTIFIER, 0)
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._sockets: list[socket.socket] = []
        self._ears: dict[int, tuple[socket.socket, Edge, bool]] = {}  # by fd; whether it is a port
        self._pair = pair
        self._full_before = times_full()
        self._open(pair)
        self._thread = threading.Thread(target=self._run, name="upstream")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        for each in self._sockets:
            each.close()
        if self._error and not error:
            raise self._error

    def anew(self) -> float:
        """Forget what was seen so far; returns the time, as what is seen from now on has it."""
        self._full_before = times_full()
        self.seen = Sightings()
        return time.time()

    def ask_anew(self) -> None:
        """Forget where the hosts are, so that each is asked for again."""
        self._pair.run("upstream", "ip", "-6", "neigh", "flush", "dev", "eth0", check=True)
        self.cache.clear()

    def cached(self) -> Counter[str]:
        """How many of the hosts have which MAC address in the two caches; "none" are those without."""
        found = Counter(mac.hex(":") if (mac := self.cache.get(each)) else "none" for each in self._by_cache)
        kernels = {
            entry["dst"]: entry.get("lladdr", "none")
            for entry in self._pair.ip("upstream", "-6", "neigh", "show", "dev", "eth0")
        }
        return found + Counter(kernels.get(each, "none") for each in self.hosts[: self.by_kernel])

    def refusals(self) -> int:
        """How many neighbours the kernel has had no room for since anew(), in all namespaces together."""
        return times_full() - self._full_before

    @property
    def failed(self) -> bool:
        """Whether it has ended by an error, which is raised at the end of the `with` block."""
        return self._error is not None

    def _open(self, pair: Pair) -> None:
        with pair.inside("upstream"):
            self._wire = self._kept(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            self._kernel = self._kept(socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
        self._wire.bind(("eth0", 0))
        self._kernel.setblocking(False)
        # ICMP6_FILTER: nothing is received here
        self._kernel.setsockopt(socket.IPPROTO_ICMPV6, 1, b"\xff" * 32)
        for edge in EDGES:
            with pair.inside("switch"):
                port = self._kept(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
            port.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            attach_filter(port, _ICMPV6_IN)
            port.bind((f"wan-{edge}", _ETH_P_ALL))
            with pair.inside(edge):
                told = self._kept(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
            told.bind((0, _RTMGRP_IPV6_IFADDR))
            for each, is_port in ((port, True), (told, False)):
                each.setblocking(False)
                self._ears[each.fileno()] = (each, edge, is_port)

    def _kept(self, opened: socket.socket) -> socket.socket:
        self._sockets.append(opened)
        return opened

    def _run(self) -> None:
        try:
            self._turns()
        except BaseException as error:
            self._error = error

    def _turns(self) -> None:
        poll = select.poll()
        for fd in self._ears:
            poll.register(fd, select.POLLIN)
        began = time.monotonic()
        questions = 0
        pings = {self.hosts: (0, self.every), self.sample: (0, SAMPLE_EVERY)}
        while not self._ended.is_set():
            for fd, _ in poll.poll(2):
                self._hear(*self._ears[fd])
            elapsed = time.monotonic() - began
            if questions * QUESTION_EVERY <= elapsed:
                self.seen.questions.append(time.time())
                self._send(self._questions[ASKED])
                questions = int(elapsed / QUESTION_EVERY) + 1
            for hosts, (sent, every) in pings.items():
                due = int(elapsed / every * len(hosts))
                for number in range(max(sent, due - _BURST), due):
                    self._ping(hosts[number % len(hosts)])
                pings[hosts] = due, every

    def _send(self, frame: bytes) -> None:
        with suppress(OSError):  # the queue is full: it is lost, as on any wire
            self._wire.send(frame)

    def _ping(self, host: str) -> None:
        at = time.time()
        if host not in self._by_cache:
            self.seen.pings.append((at, host))
            with suppress(OSError):  # the kernel's resolution has failed, it says by the next one
                self._kernel.sendto(self._echo, (host, 0))
        elif (mac := self.cache.get(host)) and at - self._alive_at[host] < max(_UNREACHABLE, 3 * self.every):
            self.seen.pings.append((at, host))
            self._send(mac + self._pings[host])
        elif at - self._asked_at.get(host, 0.0) >= _ASK_AGAIN:
            self._asked_at[host] = at
            self.cache.pop(host, None)
            self._send(self._questions[host])

    def _hear(self, ear: socket.socket, edge: Edge, is_port: bool) -> None:
        for _ in range(1000):
            try:
                data, ancillary, _, _ = ear.recvmsg(4096, 64)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENETDOWN):  # nothing more; the cable is cut, which is said once
                    return
                raise
            if not is_port:
                self._role(data, edge, time.time())
            elif len(data) >= 62:
                seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
                self._frame(data, edge, seconds + nanoseconds / 1e9)

    def _role(self, message: bytes, edge: Edge, at: float) -> None:
        (kind,) = struct.unpack_from("=H", message, 4)
        if IPv6Address(GATEWAY).packed in message and kind in (_NEWADDR, _DELADDR):
            (self.seen.came if kind == _NEWADDR else self.seen.went).append(Seen(at, edge, GATEWAY))

    def _frame(self, frame: bytes, edge: Edge, at: float) -> None:
        """An edge's frame: IPv6 is at 14, ICMPv6 at 54, an advertisement's target at 62, its option at 78."""
        if frame[54] == _ECHO_REPLY and frame[58:60] == self._echo[4:6]:
            if host := self._names.get(frame[22:38]):
                self.seen.echoes.append(Seen(at, edge, host))
                self._alive_at[host] = at
        elif frame[54] == _NA and (target := self._names.get(frame[62:78])):
            mac = frame[80:86]
            if not frame[58] & 0x40:
                self.seen.announcements.append(Seen(at, edge, target, mac.hex(":")))
            elif target == ASKED:
                self.seen.answers.append(Seen(at, edge, target, mac.hex(":")))
            # RFC 4861 §7.2.5: an address that is known changes by an advertisement with the Override flag only
            if target in self._by_cache and (frame[58] & 0x20 or target not in self.cache):
                self._alive_at[target] = at
                self.cache[target] = mac
                self._ping(target)


def times_full() -> int:
    """How often the kernel's neighbour table was full, by its own count; 0 where that can't be read."""
    try:
        names, *processors = Path("/proc/net/stat/ndisc_cache").read_text().splitlines()
    except OSError:  # only the machine's first namespace has it
        return 0
    where = names.split().index("table_fulls")
    return sum(int(line.split()[where], 16) for line in processors)


def attach_filter(to: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Have a socket take what a classic BPF program does: struct sock_filter as (code, jt, jf, k)."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(buffer)))


def question(target: str) -> bytes:
    """A solicitation from the upstream to the target's solicited-node group (RFC 4861 §4.3)."""
    group = IPv6Address(solicited_node(int(IPv6Address(target))))
    ether = Ether(src=UPSTREAM_MAC, dst=f"33:33:{group.packed[12:].hex(':')}")
    ip = IPv6(src=UPSTREAM_ADDRESS, dst=str(group), hlim=255)
    return bytes(ether / ip / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=UPSTREAM_MAC))


def ping(host: str) -> bytes:
    """An echo request from the upstream, without the frame's destination, which is its first six bytes."""
    ether = Ether(src=UPSTREAM_MAC, dst="00:00:00:00:00:00")
    return bytes(ether / IPv6(src=UPSTREAM_ADDRESS, dst=host) / ICMPv6EchoRequest(id=_IDENTIFIER))[6:]
