# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp trace`: shows what the daemon decides, until a signal, --count, or whoever reads it, ends that."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import npd6_xdp
from npd6_xdp.core.errors import UsageError, remedy
from npd6_xdp.core.trace_told import Lines, Packets, Told, as_json, summary_json, summary_text
from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.core.traced import Traced
from npd6_xdp.system.clock import machine_ns
from npd6_xdp.tools.named import Named
from npd6_xdp.tools.outlet import Outlet, StoppedError, stopping
from npd6_xdp.tools.trace_session import Session

MOST = 1_000_000_000
"""What --count may say."""
_STDOUT = Path("-")
_LOOK = 0.25  # seconds after which there is a look whether something was lost, or the daemon has gone
_SECOND = 1.0
_DRIFT = 1_000_000  # nanoseconds by which the two clocks may go apart before their difference is taken anew


def run(control: Path, wanted: Filter, count: int | None, *, as_json: bool, write: Path | None) -> int:
    """Show what is wanted, at most `count` of it; returns 0. Raises UsageError, and MachineError for what ends it.

    BrokenPipeError: whoever read it has gone.
    """
    if sys.stdout is None:
        raise UsageError("standard output is closed: lead it somewhere, such as >/dev/null")
    if as_json and write == _STDOUT:
        raise UsageError("--json --write -: standard output takes one of the two: name a file for the capture")
    with ExitStack() as stack:
        capture = None if write is None else stack.enter_context(_opened(write))
        stop = stack.enter_context(stopping())
        text = None if write == _STDOUT else Outlet(sys.stdout.fileno(), "standard output", stop)
        shown = _Shown(text, None if capture is None else Outlet(capture, f"--write {write}", stop), as_json=as_json)
        session = Session(control, wanted)
        stack.callback(session.close)
        shown.begin()
        _say("tracing; Ctrl-C ends it")
        named, losses = Named(control), _Losses()
        stop.is_awaited, stop.meanwhile = True, session.stay
        with suppress(StoppedError):
            while not shown.is_enough(count) and not stop.wait(session.filenos(), shown.outlets, _LOOK):
                shown.put(session.read(), named, count)
                losses.tell(session.lost)
        rest = session.stop()
        with suppress(StoppedError):
            shown.put(rest, named, count)
            total = session.end()
            shown.sum_up(total.seen, total.lost, total.counted)
    return 0


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    """The descriptor of the file that a capture goes to; what was there stays until it is written to, and a new one
    goes if nothing is. Raises UsageError.
    """
    if file == _STDOUT:
        if sys.stdout.isatty():
            raise UsageError("--write -: standard output is a terminal: name a file, or lead it on, | tshark -r -")
        yield sys.stdout.fileno()
        return
    is_new = not os.path.lexists(file)
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(f"--write {file}: can't write it: {remedy(error)}") from error
    try:
        yield fd
    finally:
        if is_new and not os.fstat(fd).st_size:
            file.unlink(missing_ok=True)
        os.close(fd)


class _Shown:
    """What was shown so far, as text or JSON to `text`, and to `capture`; None: not there."""

    def __init__(self, text: Outlet | None, capture: Outlet | None, *, as_json: bool) -> None:
        self._text, self._capture = text, capture
        self.outlets = [outlet for outlet in (text, capture) if outlet is not None]
        self._as_json = as_json
        terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._lines = Lines(coloured=terminal and not os.environ.get("NO_COLOR"))
        self._encoding = "utf-8" if as_json else sys.stdout.encoding
        self._packets = Packets(f"npd6-xdp {npd6_xdp.__version__}")
        self._clock = _Clock()
        self._count = 0  # of solicitations: a late answer isn't one more

    def begin(self) -> None:
        """There is something to show from now on."""
        if self._capture is not None:
            self._capture.empty()
            self._capture.write(self._packets.begin)

    def is_enough(self, count: int | None) -> bool:
        """Whether so many are shown."""
        return count is not None and self._count >= count

    def put(self, several: Sequence[Traced], named: Named, count: int | None) -> None:
        """Show some more, until there are `count`."""
        if not several or self.is_enough(count):
            return
        named.learn(several)
        self._clock.look()
        told: list[Told] = []
        for traced in several:
            if self.is_enough(count):
                break
            told.append(Told.of(traced, self._clock.real(traced.time), named.entry(traced), named.rule(traced)))
            self._count += not traced.late
        if self._text is not None:
            lines = map(as_json if self._as_json else self._lines.line, told)
            self._text.write("".join(f"{line}\n" for line in lines).encode(self._encoding, "backslashreplace"))
        if self._capture is not None:
            now = self._clock.real(machine_ns())
            self._capture.write(b"".join(block for each in told for block in self._packets.blocks(each, now)))

    def sum_up(self, seen: int, lost: int, counted: int) -> None:
        """Say how many there were. What came behind the last one of --count is neither seen nor counted."""
        counts = self._count, lost, counted - (seen - self._count)
        if self._as_json and self._text is not None:
            self._text.write(f"{summary_json(*counts)}\n".encode())
        else:
            _say(summary_text(*counts))


class _Clock:
    """Makes the machine's CLOCK_MONOTONIC, by which the program tells the time, into real time."""

    def __init__(self) -> None:
        self._ahead = time.time_ns() - machine_ns()

    def look(self) -> None:
        """Notice that somebody has set the clock; else times in a row would jump to and fro by microseconds."""
        ahead = time.time_ns() - machine_ns()
        if abs(ahead - self._ahead) > _DRIFT:
            self._ahead = ahead

    def real(self, at: int) -> int:
        """Nanoseconds since 1970."""
        return at + self._ahead


class _Losses:
    """Says once a second at most how many were lost."""

    def __init__(self) -> None:
        self._told, self._at = 0, time.monotonic()

    def tell(self, lost: int) -> None:
        """So many were lost so far."""
        now = time.monotonic()
        if lost > self._told and now - self._at >= _SECOND:
            _say(f"{lost - self._told:,} lost: more came than could be shown; a filter, or --sample N, leaves some out")
            self._told, self._at = lost, now


def _say(text: str) -> None:
    """Beside what is shown, and never among it."""
    if sys.stderr is not None:  # it may have been closed; print() would take standard output then
        with suppress(OSError):
            print(f"npd6-xdp: {text}", file=sys.stderr, flush=True)
