# SPDX-License-Identifier: GPL-2.0-or-later
"""A packet socket on the upstream's side: raw solicitations out, whole frames with their VLAN tags in."""

from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from npd6_xdp.core.icmpv6 import NeighborAdvertisement, NeighborSolicitation, checksum
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.processes import state_of
from npd6_xdp.lab.topology import EDGE_WAN_MAC, UPSTREAM_MAC, Topology
from npd6_xdp.lab.upstream import attach_filter
from tests.frames import Setting, ether, ip6
from tests.kinds import solicit

EDGE = ether(EDGE_WAN_MAC)
SETTING = Setting(
    mac=EDGE,
    asker_mac=ether(UPSTREAM_MAC),
    asker_link_local=ip6("fe80::ff:fe00:1"),
    asker_global=ip6("2001:db8::1"),
    target=ip6("2001:db8:1::42"),
)

_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_LD_H, _LD_B, _JEQ, _RET = 0x28, 0x30, 0x15, 0x06
_SKF_AD_PKTTYPE = 0xFFFFF000 + 4
_SOL_PACKET = 263
_PACKET_AUXDATA = 8
_VLAN_VALID = 0x10
_MOST_LATE = 10_000  # frames that are still taken when the time is over: more come all the time


class Wire:
    """The upstream's eth0. `interface` and `namespace` may name another end."""

    def __init__(self, topology: Topology, namespace: str = "upstream", interface: str = "eth0") -> None:
        with topology.inside(namespace):  # type: ignore[arg-type]
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)  # whatever net.core.rmem_max is
        self._socket.bind((interface, _ETH_P_ALL))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for who measures."""
        return self._socket

    def deafen(self) -> None:
        """Receive nothing from now on: for who only sends, and much."""
        self._filter((_RET, 0, 0, 0))

    def only_advertisements(self) -> None:
        """Receive nothing but untagged Neighbor Advertisements from now on."""
        self._filter(
            (_LD_H, 0, 0, 12),
            (_JEQ, 0, 3, 0x86DD),
            (_LD_B, 0, 0, 54),
            (_JEQ, 0, 1, 136),
            (_RET, 0, 0, 0xFFFF),
            (_RET, 0, 0, 0),
        )

    def only_solicitations(self) -> None:
        """Receive nothing but untagged Neighbor Solicitations from now on, those that this side sends."""
        self._filter(
            (_LD_H, 0, 0, 12),
            (_JEQ, 0, 5, 0x86DD),
            (_LD_B, 0, 0, 54),
            (_JEQ, 0, 3, 135),
            (_LD_B, 0, 0, _SKF_AD_PKTTYPE),
            (_JEQ, 0, 1, socket.PACKET_OUTGOING),
            (_RET, 0, 0, 1),
            (_RET, 0, 0, 0),
        )

    def waiting(self) -> int:
        """How many frames wait to be received; they are dropped."""
        count = 0
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
                count += 1
        return count

    def _filter(self, *program: tuple[int, int, int, int]) -> None:
        """A classic BPF program: struct sock_filter as (code, jt, jf, k)."""
        attach_filter(self._socket, program)

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self._socket.send(frame)

    def received(self, seconds: float) -> Iterable[bytes]:
        """The frames that come in for so long, those that this side sends left out.

        What has come by then is all there, even if the machine let us sleep over the end, or before the begin.
        """
        deadline, late = time.monotonic() + seconds, 0
        while late < _MOST_LATE:
            left = deadline - time.monotonic()
            self._socket.settimeout(left if left > 0 else None)
            late += left <= 0
            try:
                frame, ancillary, _, sender = self._socket.recvmsg(65535, 256, 0 if left > 0 else socket.MSG_DONTWAIT)
            except (TimeoutError, BlockingIOError):
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

    def ask(self, frame: bytes, seconds: float = 10.0) -> bytes | None:
        """Send one solicitation; the first advertisement for its target that comes then (any, if it is invalid).

        Who expects one leaves the time to wait as it is; who expects none names a short one.
        """
        asked = NeighborSolicitation.parse(frame)
        self.advertisements(0.001)  # what is left of questions before
        self.send(frame)
        return self.answer(asked.target if isinstance(asked, NeighborSolicitation) else None, seconds)

    def ask_kernel(self, frame: bytes) -> bytes | None:
        """What the kernel answers, asked again and again: it answers none while its neighbour table is full, which all
        namespaces share.
        """
        deadline = time.monotonic() + 3 * LATE
        while (found := self.ask(frame, 2.0)) is None and time.monotonic() < deadline:
            pass
        return found

    def answer(self, target: bytes | None, seconds: float) -> bytes | None:
        """The next advertisement for a target (for any: None) that comes in so long."""
        deadline = time.monotonic() + seconds
        while answers := self.advertisements(max(deadline - time.monotonic(), 0.0), enough=1):
            if target in (None, NeighborAdvertisement.parse(answers[0]).target):
                return answers[0]
        return None


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait for a condition; whether it came true, a busy machine given its time: `seconds` are those of an idle one."""
    deadline = time.monotonic() + max(60.0, 6 * seconds)
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def says(running: RunningDaemon, line: str, times: int = 1) -> bool:
    """Whether a daemon says something, so many times, or has: its log is written beside its work."""
    return until(lambda: running.log.count(line) == times)


LATE = 20.0
"""Seconds that an answer which must come may take where a machine is busy: who waits for it waits no longer than it."""
ENDS = 14.0
"""Seconds that a process's end may take, on any machine: after TimeoutStopSec=15 systemd kills it."""


@contextmanager
def paused(running: RunningDaemon) -> Iterator[None]:
    """The daemon stands while the block runs, each thread of it: a signal alone is heard some time after it is sent."""
    running.process.send_signal(signal.SIGSTOP)
    try:
        assert until(lambda: stands(running.process.pid))
        yield
    finally:
        running.process.send_signal(signal.SIGCONT)


def stands(pid: int) -> bool:
    """Whether each thread of a process is stopped."""
    try:
        return {state_of(task) for task in Path(f"/proc/{pid}/task").iterdir()} == {"T"}
    except OSError:  # one has ended meanwhile
        return False


def configuration(*rules: str, **keys: str) -> str:
    """A configuration for wan0: keys as TOML has their values, rules as "PREFIX METHOD KEY=VALUE ...".

    A value of a rule is an array where it has commas or the key takes one, true and false as they are, else text.
    """
    lines = ["[[interface]]", 'name = "wan0"', *(f"{key} = {value}" for key, value in keys.items())]
    for words in rules or ("2001:db8:1::/64 static",):
        prefix, method, *more = words.split()
        lines += ["[[interface.rule]]", f'prefix = "{prefix}"', f'method = "{method}"']
        for key, _, value in (word.partition("=") for word in more):
            if key in ("via", "include", "exclude"):
                value = "[" + ", ".join(f'"{each}"' for each in value.split(",")) + "]"
            elif value not in ("true", "false"):
                value = f'"{value}"'
            lines.append(f"{key} = {value}")
    return "\n".join(lines) + "\n"


DAD = {"source": bytes(16), "options": b""}
"""What makes a question() a probe of Duplicate Address Detection."""
EACH_METHOD = (
    "2001:db8:1::/64 neighbour via=lan0",
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 route",
    "2001:db8:4::/64 static exclude=::dead",
    "2001:db8:5::/64 ignore",
)
"""A rule of each, for configuration()."""


def question(target: str, **fields: Any) -> bytes:
    """A plain multicast solicitation of the upstream's for a target; `fields` are what solicit() takes."""
    return solicit(replace(SETTING, target=ip6(target)), **fields)


def grown(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """What was counted in between: {outcome: count}, without the zeros."""
    return {outcome: n - before.get(outcome, 0) for outcome, n in now.items() if n != before.get(outcome, 0)}


def scan(
    count: int, prefix: str = "2001:db8:1::", first: int = 1 << 32, mac: bytes = SETTING.asker_mac
) -> Iterator[bytes]:
    """Solicitations of the upstream's, or of another MAC's, for so many targets in a row; a few microseconds each."""
    base = int.from_bytes(ip6(prefix)) + first
    for number in range(base, base + count):
        target = number.to_bytes(16)
        group = target[13:]
        destination = bytes.fromhex("ff0200000000000000000001ff") + group
        message = b"\x87\0\0\0\0\0\0\0" + target + b"\1\1" + mac
        field = checksum(SETTING.asker_global, destination, message).to_bytes(2)
        yield (
            b"\x33\x33\xff" + group + mac + b"\x86\xdd\x60\0\0\0\0\x20\x3a\xff" + SETTING.asker_global
            + destination + message[:2] + field + message[4:]
        )  # fmt: skip


class Flood:
    """Frames that a thread sends at a rate: how many so far, and how many a second that came to."""

    def __init__(self) -> None:
        self.sent = 0
        self._began = time.monotonic()
        self._stopping = threading.Event()
        self._seconds = 0.0
        self._last = self._began
        self._longest_pause = 0.0

    @property
    def longest_pause(self) -> float:
        """Seconds for which none was sent, at most: a busy machine lets a thread wait."""
        return max(self._longest_pause, time.monotonic() - self._last)

    @property
    def rate(self) -> float:
        return self.sent / (self._seconds or time.monotonic() - self._began)

    def run(
        self, wire: Wire, frames: Iterable[bytes], per_second: int, *, lossy: bool, waits: Callable[[], bool]
    ) -> None:
        self._began = self._last = time.monotonic()
        for frame in frames:
            while not self._stopping.is_set() and (
                self.sent >= (time.monotonic() - self._began) * per_second or waits()
            ):
                time.sleep(0.001)
            if self._stopping.is_set():
                break
            with suppress(OSError) if lossy else nullcontext():
                wire.send(frame)
            self.sent += 1
            self._longest_pause, self._last = self.longest_pause, time.monotonic()
        self._seconds = time.monotonic() - self._began

    def stop(self) -> None:
        self._stopping.set()


@contextmanager
def flood(
    topology: Topology,
    frames: Iterable[bytes],
    per_second: int,
    *,
    lossy: bool = False,
    waits: Callable[[], bool] = lambda: False,
) -> Iterator[Flood]:
    """Frames of the upstream's at a steady rate, beside what the block does. `lossy`: the link may be down. `waits`:
    whether the next is to be sent later.
    """
    flooding = Flood()
    with Wire(topology) as wire:
        wire.deafen()
        thread = threading.Thread(
            target=flooding.run, args=(wire, frames, per_second), kwargs={"lossy": lossy, "waits": waits}
        )
        thread.start()
        try:
            yield flooding
        finally:
            flooding.stop()
            thread.join()


@contextmanager
def hearing(topology: Topology, hear: Callable[[bytes], None]) -> Iterator[None]:
    """Each advertisement that comes to the upstream, beside what the block does."""
    ready, done = threading.Event(), threading.Event()

    def receive() -> None:
        with Wire(topology) as wire:
            wire.only_advertisements()
            ready.set()
            while not done.is_set():
                for frame in wire.received(0.1):
                    hear(frame)

    receiver = threading.Thread(target=receive)
    receiver.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        done.set()
        receiver.join()


@contextmanager
def standing_still(running: RunningDaemon) -> Iterator[None]:
    """The daemon stands still (SIGSTOP) within: what happens there, it hears of afterwards, all at once."""
    running.process.send_signal(signal.SIGSTOP)
    try:
        assert until(lambda: all(state == "T" for state in running.thread_states())), "a signal takes its time"
        yield
    finally:
        running.process.send_signal(signal.SIGCONT)


@contextmanager
def solicitations_sent(topology: Topology) -> Iterator[Callable[[], int]]:
    """Tells how many untagged solicitations have left the upstream's eth0 so far, its kernel's own among them."""
    count = 0
    with Wire(topology) as tap:
        tap.only_solicitations()

        def sent() -> int:
            nonlocal count
            count += tap.waiting()
            return count

        yield sent


def each_counted(sent: Callable[[], int], running: RunningDaemon) -> Callable[[], bool]:
    """Tells whether as many solicitations have been counted from now on as have been sent (see solicitations_sent()).

    The upstream's kernel asks for something now and then, also while either of the two is read: then nothing is known
    yet.
    """
    seen: list[int | None] = [None]

    def ahead() -> int | None:
        before = sent()
        counted = sum(running.solicitations().values())
        return counted - before if sent() == before else None

    def is_settled() -> bool:
        seen.append(ahead())
        return seen[-1] is not None and seen[-1] == seen[-2]

    assert until(is_settled), f"more is counted all the time: {seen}"
    return lambda: ahead() == seen[-1]


def became(running: RunningDaemon) -> dict[str, int]:
    """The outcomes on wan0 where the neighbour table, which all namespaces share, is full: then the upstream's kernel
    loses the edge's addresses out of it, and asks for them again.
    """
    found = running.solicitations()
    return {outcome: count for outcome, count in found.items() if outcome not in ("own", "ignored")}


class Asker:
    """Asks for targets on the wire, and says what became of each.

    Nobody else asks meanwhile: the upstream's kernel, seconds after it has spoken with the edge's, would ask whether
    that is still there.
    """

    def __init__(self, wire: Wire, running: RunningDaemon) -> None:
        self._wire = wire
        self._running = running
        with suppress(OSError):  # the upstream has been deleted, or its port
            running.topology.sysctl("upstream", "net/ipv6/neigh/eth0/delay_first_probe_time", 86_400)

    def outcome(self, target: str) -> str:
        """The outcome of one solicitation; two would show as two words."""
        before = self._running.solicitations()
        self._wire.send(question(target))
        found: list[str] = []

        def counted() -> bool:
            found[:] = [name for name, n in grown(before, self._running.solicitations()).items() for _ in range(n)]
            return bool(found)

        assert until(counted, 2.0), f"{target} was not counted"
        return " ".join(found)

    def all_answered(self, targets: Iterable[str], seconds: float = 0.3) -> set[str]:
        """Those of some targets for which an advertisement of ours (Override 0) comes."""
        asked = {ip6(target): target for target in targets}
        self._wire.advertisements(0.001)  # what is left of questions before
        self._wire.send(*map(question, asked.values()))
        found = self._wire.advertisements(seconds)
        self._caught_up()
        found += self._wire.advertisements(0.05)
        answers = map(NeighborAdvertisement.parse, found)
        return {asked[answer.target] for answer in answers if not answer.override}

    def answered(self, target: str, seconds: float = 0.3) -> bool:
        """Whether an advertisement of ours (Override 0) comes, on a busy machine also later.

        Less than 0.2 seconds are those of who asks again and again.
        """
        answer = self._wire.ask(question(target), seconds)
        if answer is None and seconds >= 0.2:
            self._caught_up()
            answer = self._wire.answer(ip6(target), 0.05)
        return answer is not None and not NeighborAdvertisement.parse(answer).override

    def _caught_up(self) -> None:
        """Wait until the daemon, if it is at work, has taken in what came before: its loop turns to answer us."""
        for _ in range(2):
            self._running.settle()


def on_edge(topology: Topology, *lines: str) -> None:
    """What ip(8) is told on the edge."""
    for line in lines:
        topology.run("edge", "ip", *line.split(), check=True)


def open_files_of(running: RunningDaemon) -> Counter[str]:
    """How many of each kind a daemon has open: socket, anon_inode, pipe, and files by their paths."""
    kinds: Counter[str] = Counter()
    for each in Path(f"/proc/{running.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            kinds[str(each.readlink()).partition(":[")[0]] += 1
    return kinds


def settled_files(running: RunningDaemon) -> Counter[str]:
    """The same once its HTTP server has all that it keeps open, and no connection to it or to its control socket."""
    running.metrics_text()
    running.settle()

    def connections() -> list[str]:
        """That a process still has open, on either side."""
        words = ("ss", "-Htn", "state", "established", "state", "close-wait")
        return running.topology.run(running.namespace, *words).stdout.splitlines()

    assert until(lambda: not connections())
    return open_files_of(running)


def cpu_seconds(running: RunningDaemon) -> float:
    """The processor time that the daemon has taken so far."""
    stat = Path(f"/proc/{running.process.pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def private_megabytes(running: RunningDaemon) -> float:
    """The daemon's memory that nobody shares."""
    words = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
    assert b"\0run\0" in words, "it shares some with the process that has forked it: mark the test `exec`"
    lines = Path(f"/proc/{running.process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
