# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp trace` as somebody runs it beside a daemon: what it has said so far, on both of its outputs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from npd6_xdp.lab.daemon import RunningDaemon
from tests.netns.wire import until

_numbers = count()


class Commanded:
    """The command, with standard output and standard error in files."""

    def __init__(self, running: RunningDaemon, *argv: str, prefix: tuple[str, ...] = ()) -> None:
        stem = running.topology.directory / f"trace-{next(_numbers)}"
        self.out, self.log = stem.with_suffix(".out"), stem.with_suffix(".log")
        words = (*prefix, sys.executable, "-m", "npd6_xdp", "trace", "--control", str(running.control), *argv)
        with self.out.open("wb") as out, self.log.open("wb") as log:
            self.process = running.topology.popen(running.namespace, *words, stdout=out, stderr=log)

    @property
    def is_on(self) -> bool:
        """Whether it has said that it traces."""
        return "npd6-xdp: tracing" in self.log.read_text()

    def objects(self) -> list[dict[str, Any]]:
        """The objects of --json that are whole, without the summary."""
        lines = self.out.read_text().splitlines(keepends=True)
        return [each for line in lines if line.endswith("\n") if "summary" not in (each := json.loads(line))]

    def has(self, number: int) -> bool:
        """Whether there are so many of them, which is waited for."""
        return until(lambda: len(self.objects()) >= number)

    def end(self, number: signal.Signals = signal.SIGINT) -> dict[str, int]:
        """End it as Ctrl-C does; the summary of --json."""
        self.process.send_signal(number)
        assert self.process.wait(120) == 0, self.log.read_text()
        found: dict[str, int] = json.loads(self.out.read_text().splitlines()[-1])["summary"]
        return found


@contextmanager
def commanded(running: RunningDaemon, *argv: str) -> Iterator[Commanded]:
    """One that traces already."""
    trace = Commanded(running, *argv)
    try:
        assert until(lambda: trace.is_on or trace.process.poll() is not None)
        assert trace.is_on, trace.log.read_text()
        yield trace
    finally:
        trace.process.kill()
        trace.process.wait()


def tshark(file: str, *fields: str) -> list[list[str]]:
    """These fields of each packet of a capture, "" where it has none."""
    words = ["tshark", "-r", file, "-T", "json", *(word for field in fields for word in ("-e", field))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    packets = [packet["_source"]["layers"] for packet in json.loads(done.stdout)]
    return [[(layers.get(field) or [""])[0] for field in fields] for layers in packets]
