# SPDX-License-Identifier: GPL-2.0-or-later
"""One NS at a time through Python on one CPU (row 8): when each of its steps comes, by tracing the system calls."""

from __future__ import annotations

import mmap
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from npd6_xdp.core.errors import MachineError
from npd6_xdp.system.bpf.compiler import BPF_DIRECTORY, load_bcc
from tests.bench.asker import LOST, Asker, pinned
from tests.bench.ground import Ground
from tests.bench.plan import Run
from tests.bench.profile.page import Section, shares
from tests.bench.results import middle
from tests.bench.subjects import HYBRID, PYTHON

_CPU = 0
_WARM_UP, _SAMPLES = 100, 2000
_SOURCE = Path(__file__).with_name("trace.c")
_NUMBERS = {  # of system calls: sendto, epoll_wait (epoll_pwait), sendmmsg
    "x86_64": {"SENDTO": 44, "EPOLL_WAIT": 232, "SENDMMSG": 307},
    "aarch64": {"SENDTO": 206, "EPOLL_WAIT": 22, "SENDMMSG": 269},
}
STEPS = (
    "asker: into send(2)",
    "send(2) of the asker: packet socket, veth, XDP, event submitted, daemon woken",
    "asker sleeps in recv(2); switch to the daemon; epoll_wait(2) returns",
    "daemon: ring read, answer built",
    "send(2) of the daemon, until the answer is at the asker's driver",
)


def sections(run: Run) -> list[Section]:
    """Medians of the steps, so their sum is only about the median of the whole."""
    steps: list[list[float]] = [[] for _ in STEPS]
    traced: list[float] = []
    with Ground(sample=8) as ground, PYTHON.on(ground) as running, Asker(ground, spin=False) as asker:
        assert running.process is not None
        with pinned(_CPU, running.process.pid):
            asker.ask(PYTHON.questions, _WARM_UP)
            plain = middle(asker.ask(PYTHON.questions, _SAMPLES))
            with moments_of(running.process.pid) as moments:

                def note(taken: float, arrived: int) -> None:
                    if taken == LOST or not all(moments):
                        return
                    traced.append(taken)
                    line = [arrived - taken * 1000, *moments, arrived]
                    for values, (since, to) in zip(steps, pairwise(line), strict=True):
                        values.append((to - since) / 1000)

                asker.ask(PYTHON.questions, _WARM_UP)
                asker.ask(PYTHON.questions, _SAMPLES, note)
    with Ground(sample=8) as ground, HYBRID.on(ground) as running, Asker(ground, spin=False) as asker:
        assert running.process is not None
        with pinned(_CPU, running.process.pid):
            asker.ask(HYBRID.questions, _WARM_UP)
            hybrid = middle(asker.ask(HYBRID.questions, _SAMPLES))
        with pinned(_CPU):
            pipes = _there_and_back()
    parts = dict(zip(STEPS, map(middle, steps), strict=True))
    whole = middle(traced)
    run.say(f"one at a time: {plain:.1f} us, traced {whole:.1f}: " + ", ".join(f"{v:.2f}" for v in parts.values()))
    notes = [
        f"medians of {len(traced):,} questions; {whole:.1f} us with the tracing, {plain:.1f} us without;"
        f" {hybrid:.1f} us where XDP answers, by the same asker",
        f"a byte to another process and back, through pipes, on one CPU: {pipes:.1f} us",
    ]
    raw = {f"{name}, us": value for name, value in parts.items()}
    raw |= {"traced, us": whole, "not traced, us": plain, "hybrid, us": hybrid, "through pipes, us": pipes}
    head, rows = ("step", "takes", "of all"), shares(parts, whole, "us")
    return [Section("One NS at a time, Python, on one CPU", head, rows, notes, raw)]


def _there_and_back() -> float:
    """Microseconds for a byte to another process and back: two switches, and nothing else that a daemon would do."""
    (to_read, to_write), (back_read, back_write) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(to_write)  # so that it ends with this process
            while os.read(to_read, 1):
                os.write(back_write, b".")
        finally:
            os._exit(0)
    taken = []
    for _ in range(_SAMPLES):
        began = time.monotonic_ns()
        os.write(to_write, b".")
        os.read(back_read, 1)
        taken.append((time.monotonic_ns() - began) / 1000)
    for fd in (to_write, to_read, back_read, back_write):
        os.close(fd)
    os.waitpid(child, 0)
    return middle(taken)


@contextmanager
def moments_of(daemon: int) -> Iterator[memoryview]:
    """Moments, in nanoseconds, by the numbers of trace.c's steps; 0 where a step hasn't come."""
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        raise MachineError(f"no numbers of system calls are known here for {platform.machine()}")
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF_DIRECTORY)
    bcc = load_bcc()
    who = {"ASKER": threading.get_native_id(), "DAEMON": daemon, **numbers}
    bpf: Any = bcc.BPF(text=_SOURCE.read_text().encode(), cflags=[f"-D{name}={value}" for name, value in who.items()])
    points = {b"sys_enter": b"enter", b"sys_exit": b"leave"}
    try:
        for point, function in points.items():
            bpf.load_func(function, bcc.BPF.RAW_TRACEPOINT)
            bpf.attach_raw_tracepoint(point, function)
        pages = mmap.mmap(bcc.lib.bpf_table_fd(bpf.module, b"moments"), mmap.PAGESIZE)
        with memoryview(pages) as view, view.cast("Q") as words, words[:4] as moments:
            yield moments
    finally:
        for point in points:
            with suppress(Exception):  # it may not have been attached
                bpf.detach_raw_tracepoint(point)
        bpf.cleanup()
