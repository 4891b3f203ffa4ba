# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp status --watch`: what the daemon does, again each second, until Ctrl-C."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.watch import Line, Look, Watch
from npd6_xdp.tools.control import ask

_INTERVAL = 1.0  # seconds
_WIDE = 200  # columns, where there is no terminal to ask
_QUESTION = {"verb": "status", "brief": True}

_ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, and no cursor on it
_LEAVE = "\x1b[?25h\x1b[?1049l"
_LOOKS = {Look.PLAIN: "", Look.HEADING: "\x1b[1m", Look.FAINT: "\x1b[2m", Look.ALERT: "\x1b[1;7m"}


def run(control: Path, *, as_json: bool) -> int:
    """Show until Ctrl-C; returns 0. Raises MachineError if no daemon answers at first; later it waits for one.

    On a terminal one screen; else a block of text a second; as JSON one object a line.
    """
    first = ask(control, _QUESTION)
    with suppress(KeyboardInterrupt):
        if as_json:
            _stream(control, first, lambda said: json.dumps(said))
        elif sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            _screen(control, first)
        else:
            watch = _watch()

            def block(said: dict[str, Any]) -> str:
                watch.add(said)
                return "".join(f"{line.text}\n" for line in watch.lines(_WIDE))

            _stream(control, first, block)
    return 0


def _watch() -> Watch:
    try:
        "▁█…".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return Watch(unicode=False)
    return Watch()


def _stream(control: Path, first: dict[str, Any], told: Callable[[dict[str, Any]], str]) -> None:
    due, said, problem = time.monotonic(), first, ""
    while True:
        print(told(said), flush=True)
        while True:
            due = max(due + _INTERVAL, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                said = ask(control, _QUESTION)
            except MachineError as error:
                if str(error) != problem:  # reported once, until it works again
                    print(f"npd6-xdp: {error}", file=sys.stderr)
                problem = str(error)
            else:
                problem = ""
                break


def _screen(control: Path, first: dict[str, Any]) -> None:
    watch, problem = _watch(), ""
    watch.add(first)
    with _terminal() as wait:
        due = time.monotonic()
        while True:
            columns, rows = os.get_terminal_size(sys.stdout.fileno())
            _draw(watch.lines(columns or 80, rows or 24, problem), rows or 24)
            if wait(due + _INTERVAL - time.monotonic()):
                continue  # the size has changed, or we were away
            due = max(due + _INTERVAL, time.monotonic())
            try:
                watch.add(ask(control, _QUESTION))
                problem = ""
            except MachineError as error:
                problem = str(error)


def _draw(lines: list[Line], rows: int) -> None:
    """From the upper left corner, each line cleared first: after one that is full, clearing would take its end."""
    drawn = "\r\n".join(f"\x1b[2K{_LOOKS[line.look]}{line.text}\x1b[0m" for line in lines)
    sys.stdout.write("\x1b[H" + drawn + ("\r\n\x1b[J" if len(lines) < rows else ""))
    sys.stdout.flush()


@contextmanager
def _terminal() -> Iterator[Callable[[float], bool]]:
    """The terminal to ourselves. Gives a wait for so many seconds, which says whether to draw again before.

    Whatever ends the block, a signal too, the terminal is as it was; Ctrl-Z leaves it so, too.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def pause(_number: int, _: FrameType | None) -> None:
        say(_LEAVE)
        os.kill(os.getpid(), signal.SIGSTOP)
        say(_ENTER)

    def nothing(_number: int, _: FrameType | None) -> None:
        """Write to the pipe at once."""

    def wait(seconds: float) -> bool:
        ready, _, _ = select.select([reader], [], [], max(0.0, seconds))
        if ready:
            with suppress(BlockingIOError):
                os.read(reader, 64)
        return bool(ready)

    handlers = {signal.SIGWINCH: nothing, signal.SIGTSTP: pause, signal.SIGTERM: end, signal.SIGHUP: end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        say(_ENTER)
        yield wait
    finally:
        with suppress(OSError):  # a terminal that is gone needs no more
            say(_LEAVE)
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
