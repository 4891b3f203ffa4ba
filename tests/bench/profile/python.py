# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python datapath under load: what the daemon's main thread is at, sampled by py-spy; the kernel's side by perf.

The daemon has a CPU of its own. py-spy runs on that one, too, and first in line: so it sees the daemon at a moment
that a timer chose. On the generator's CPU it would hold that up and find the daemon out of work; without being first it
would come to run when the daemon sleeps.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.asker import pinned
from tests.bench.generators import Generator, Order, flood, paced
from tests.bench.ground import TARGETS, Ground
from tests.bench.machine import HOME
from tests.bench.plan import Run
from tests.bench.profile.page import Section
from tests.bench.profile.symbols import MISSING, Recording, Symbols, part
from tests.bench.rates import find_rates
from tests.bench.subjects import PYTHON

_DAEMON_CPU, _OTHER_CPU = 0, 1
_SECONDS = 5
_LEAD = 1.0  # seconds of load before and after what is sampled
_HERTZ = 125  # a sample holds the daemon up for a millisecond
_SHARE = 0.9
_FUNCTIONS = 8
_LIKELY = 150_000.0  # NS/s: where to begin to look for the lossless rate
_FRAME = re.compile(r"^(\S+) \((.+):(\d+)\)$")
_NEIGHBOR_ADVERT = 136
_TYPE = 54  # where it stands in an untagged frame

_WAITING = "waiting (epoll)"
_REST = "the rest: the loop, timers"
_KINDS = {
    "npd6_xdp/system/bpf/events.py": "reading the ring",
    "npd6_xdp/core/responder.py": "building the answers",
    "npd6_xdp/core/frames.py": "building the answers",
    "npd6_xdp/core/icmpv6.py": "building the answers",
    "npd6_xdp/system/sender.py": "sending (sendmmsg)",
    "npd6_xdp/daemon/ports.py": "sending (sendmmsg)",
    "npd6_xdp/daemon/answering.py": "counting, waiting times",
    "npd6_xdp/daemon/counts.py": "counting, waiting times",
    "npd6_xdp/core/snapshot.py": "counting, waiting times",
}
_HEAD = ("the main thread", "of its time", "an answer")


@dataclass(frozen=True, slots=True)
class _Sampled:
    """Of one load: samples by what the main thread was at, answers a second, and its processor time an answer."""

    kinds: Counter[str]
    rate: float
    cpu: float  # nanoseconds

    def section(self, title: str) -> Section:
        busy = self.kinds.total() - self.kinds[_WAITING]
        kinds = (*dict.fromkeys(_KINDS.values()), _REST)
        rows = [(kind, *part(self.kinds[kind] / busy if busy else 0.0, self.cpu)) for kind in kinds]
        notes = [
            f"{self.rate:,.0f} NA/s, {self.cpu:,.0f} ns of processor time an answer: {self.rate * self.cpu / 1e7:.0f} %"
            f" of a CPU; {busy:,} samples, and {self.kinds[_WAITING]:,} in epoll_wait that aren't in the table"
        ]
        raw = {f"samples: {kind}": float(count) for kind, count in self.kinds.items()}
        raw |= {"answers/s": self.rate, "CPU time an answer, ns": self.cpu}
        return Section(title, _HEAD, rows, notes, raw)


def sections(run: Run) -> list[Section]:
    if (os.cpu_count() or 1) <= _OTHER_CPU:
        raise RuntimeError("this takes two CPUs")
    with Ground() as ground, PYTHON.on(ground) as running:
        assert running.daemon is not None
        pid = running.daemon.process.pid
        with pinned(_OTHER_CPU):  # and with this process all that it starts from here on
            _pin(pid, _DAEMON_CPU)
            with paced(ground.topology, PYTHON.questions, _OTHER_CPU) as generator:
                plan = replace(run.plan, window=1.0, bisections=3, ladder=1.5)
                rates = find_rates(replace(run, plan=plan), ground, generator, _LIKELY)
                calm = _sample(ground, generator, _SHARE * rates.lossless, pid)
                symbols = _symbols(ground, generator, _SHARE * rates.lossless, pid)
            with flood(ground.topology, PYTHON.questions[0], TARGETS, _OTHER_CPU) as generator:
                over = _sample(ground, generator, None, pid)
        bare = _bare_sends(ground)
    result = []
    for title, found in {
        f"Python datapath at {_SHARE:.0%} of its lossless rate": calm,
        "Python datapath under a flood of live frames": over,
    }.items():
        result.append(found.section(title))
        run.say(f"{title}: {found.rate:,.0f}/s, {found.cpu:.0f} ns an answer: {dict(found.kinds)}")
    notes = result[0].notes
    limit = ", which is all that could be sent" if rates.limited else ""
    notes.append(f"lossless here, with daemon and generator on a CPU each: {rates.lossless:,.0f} NS/s{limit}")
    notes.append(f"a loop that does nothing but send such frames, 32 at a time, takes {bare:,.0f} ns a frame")
    result[0].raw["lossless, NS/s"], result[0].raw["a frame of a bare sendmmsg loop, ns"] = rates.lossless, bare
    if symbols is None:
        notes.append(MISSING)
    else:
        result.insert(1, _kernel_side(symbols, calm.cpu))
    return result


def _kernel_side(symbols: Symbols, nanoseconds: float) -> Section:
    """What perf sees in the daemon's process: inclusive shares, taken apart along the way of a frame."""
    share = symbols.inclusive.get
    sending, out = share("__sys_sendmmsg", 0.0), share("__dev_queue_xmit", 0.0)
    peer, copy = share("net_rx_action", 0.0), share("skb_pp_cow_data", 0.0)
    waiting = max(share("do_epoll_wait", 0.0), share("__x64_sys_epoll_wait", 0.0))
    parts = {
        "user space: the interpreter": symbols.user,
        "sendmmsg(2): packet socket, the frame copied": sending - out,
        "sendmmsg(2): queue and veth": out - peer,
        "sendmmsg(2): the asker's side receives, in softirq": peer - copy,
        "sendmmsg(2): there, the copy that veth makes for the counter's XDP": copy,
        "epoll_wait(2)": waiting,
        "other system calls, interrupts": 1 - symbols.user - sending - waiting,
    }
    rows: list[tuple[str, ...]] = [(name, *part(max(each, 0.0), nanoseconds)) for name, each in parts.items()]
    rows += [(f"of all these, {name}", *cells) for name, *cells in symbols.top(_FUNCTIONS, nanoseconds)]
    raw = {f"share of {name}": each for name, each in parts.items()}
    return Section("The same, by perf", ("the daemon's process", "of its time", "an answer"), rows, [], raw)


def _sample(ground: Ground, generator: Generator, rate: float | None, pid: int) -> _Sampled:
    path = ground.topology.directory / "py-spy"
    generator.start(Order(rate, _SECONDS + 2 * _LEAD))
    time.sleep(_LEAD / 2)
    words = [_py_spy(), "record", "--pid", str(pid), "--duration", str(_SECONDS), "--rate", str(_HERTZ)]
    # without pauses: the daemon doesn't run while py-spy has its CPU
    words += ["--nonblocking", "--idle", "--format", "raw", "--output", str(path)]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_first_in_the_daemons_line
    )
    time.sleep(_LEAD / 2)
    began, cpu, answers = time.monotonic(), _cpu(pid), ground.counter.counts().answers
    time.sleep(_SECONDS - _LEAD)
    answers = ground.counter.counts().answers - answers
    cpu, seconds = _cpu(pid) - cpu, time.monotonic() - began
    generator.finish()
    if process.wait(30) != 0:
        raise RuntimeError("py-spy doesn't work here")
    return _Sampled(_kinds(path.read_text()), answers / seconds, cpu / max(answers, 1))


def _symbols(ground: Ground, generator: Generator, rate: float, pid: int) -> Symbols | None:
    recording = Recording(ground.topology.directory / "perf.data", pid)
    generator.start(Order(rate, 2 * _LEAD + 1))
    time.sleep(_LEAD / 2)
    recording.start(2 * _LEAD)
    generator.finish()
    return recording.finish()


def _bare_sends(ground: Ground) -> float:
    """Nanoseconds a frame, sent from the edge as the daemon sends, by a loop with nothing else to do."""
    frames = [frame[:_TYPE] + bytes([_NEIGHBOR_ADVERT]) + frame[_TYPE + 1 :] for frame in PYTHON.questions]
    with paced(ground.topology, frames, _DAEMON_CPU, "wan0", "edge") as generator:
        return 1e9 / generator.do(Order(None, _LEAD)).rate


def _kinds(raw: str) -> Counter[str]:
    """Samples of the main thread, by the innermost function that belongs to one of the kinds."""
    found: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_FRAME.match(frame) for frame in stack.split(";")]
        known = [(frame[1], frame[2], int(frame[3])) for frame in frames if frame]
        if any(name.endswith("Loop.run") for name, _, _ in known):
            found[_kind(known)] += int(count)
    return found


def _kind(frames: list[tuple[str, str, int]]) -> str:
    for _, file, _ in reversed(frames):
        if file in _KINDS:
            return _KINDS[file]
    name, file, line = frames[-1]
    # epoll's poll() is no Python function, so it shows as the line that calls it
    if name.endswith("Loop.turn") and ".poll(" in (HOME / file).read_text().splitlines()[line - 1]:
        return _WAITING
    return _REST


def _pin(pid: int, cpu: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {cpu})


def _first_in_the_daemons_line() -> None:
    os.sched_setaffinity(0, {_DAEMON_CPU})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _cpu(pid: int) -> int:
    """Nanoseconds that the main thread has run."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])


def _py_spy() -> str:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy") or "py-spy"
