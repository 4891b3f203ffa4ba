# SPDX-License-Identifier: GPL-2.0-or-later
"""A reload that makes the maps grow to 20,000 rules: what of it takes how long."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.bpf.load import load
from npd6_xdp.system.bpf.program import Program
from npd6_xdp.system.bpf.sizes import sizes_for
from tests.kernels.ground import Rule, interface, until
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER

COUNT = int(os.environ.get("GROWTH", "20000"))
_PORT, _GROWN = "grow0", "grow1"
_WITHIN = 900.0  # seconds


class Growth(Scene):
    kinds = ("veth",)

    def build(self) -> str:
        for port in (_PORT, _GROWN):
            self.ground.cable(port, f"{port}-ask")
        return interface(_PORT, Rule("2001:db8:62::/64", "static"))

    def check(self) -> None:
        ground = self.ground
        text = interface(_GROWN, *(Rule(f"{_prefix(number)}::/64", "static") for number in range(COUNT)))
        self._phases(text)
        before, since = set(ground.programs(_PORT)), time.monotonic()
        done, words = ground.reload(text)
        took = time.monotonic() - since
        print(f"        the reload took {took:.1f} s: {words}", flush=True)
        ground.check("the client waits for the reload to its end", "done" if done else words, "done")
        wire, mac, target = ground.wire(f"{_GROWN}-ask"), ground.mac(_GROWN), f"{_prefix(COUNT - 1)}::1"
        there = until(lambda: wire.ask(target, mac, seconds=1.0) == ANSWER, _WITHIN)
        print(f"        {COUNT} rules answer after {time.monotonic() - since:.1f} s", flush=True)
        ground.check("the last rule answers", there)
        ground.check("another program has taken over", before.isdisjoint(ground.programs(_PORT)))
        ground.check("there are as many as before", len(ground.programs(_PORT)), len(before))

    def _phases(self, text: str) -> None:
        """The parts of such a reload, in this process and one after the other, seconds each."""
        laps, since = dict[str, float](), time.monotonic()

        def lap(what: str) -> None:
            nonlocal since
            laps[what], since = time.monotonic() - since, time.monotonic()

        config = parse(text, "growth.toml")
        lap("read the file")
        table = build(config, {_GROWN: LinkFacts(_GROWN, 1, bytes(6))})
        lap("make the table")
        load_bcc()
        lap("import bcc")
        sizes = sizes_for([table], config.limits)
        with tempfile.TemporaryDirectory() as empty, kept_in(empty):
            load(sizes).close()
            lap("compile, verify and translate")
            program = Program(load(sizes), sizes)
        lap("verify and translate what was kept")
        program.apply(table)
        lap("fill the maps")
        program.close()
        lap("give them up")
        print(
            f"        {COUNT} rules, by parts: {', '.join(f'{what} {laps[what]:.1f} s' for what in laps)}", flush=True
        )


@contextmanager
def kept_in(directory: str) -> Iterator[None]:
    """Look for what was compiled before in this directory, and keep it there."""
    before = os.environ.get("CACHE_DIRECTORY")
    os.environ["CACHE_DIRECTORY"] = directory
    try:
        yield
    finally:
        del os.environ["CACHE_DIRECTORY"]
        if before is not None:
            os.environ["CACHE_DIRECTORY"] = before


def _prefix(number: int) -> str:
    """The first three words of one of 65,536 /48s."""
    return f"2001:db9:{number:x}"
