# SPDX-License-Identifier: GPL-2.0-or-later
"""A reload that makes the maps grow to 20,000 rules: what of it takes how long."""

from __future__ import annotations

import os
import time
from typing import Any

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.system.bpf.compiler import load_bcc
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
        before, since = ground.program(_PORT), time.monotonic()
        done, words = ground.reload(text)
        took = time.monotonic() - since
        print(f"        reload {'done' if done else 'not done'} after {took:.1f} s: {words}", flush=True)
        wire, mac, target = ground.wire(f"{_GROWN}-ask"), ground.mac(_GROWN), f"{_prefix(COUNT - 1)}::1"
        there = until(lambda: wire.ask(target, mac, seconds=1.0) == ANSWER, _WITHIN)
        print(f"        {COUNT} rules answer after {time.monotonic() - since:.1f} s", flush=True)
        ground.check("the last rule answers", there)
        ground.check("another program has taken over", ground.program(_PORT) != before)

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
        loading = [0.0]
        bcc = load_bcc()
        load = bcc.BPF.load_func

        def timed(*arguments: Any, **keys: Any) -> Any:
            began = time.monotonic()
            try:
                return load(*arguments, **keys)
            finally:
                loading[0] += time.monotonic() - began

        lap("import bcc")
        bcc.BPF.load_func = timed
        try:
            sizes = sizes_for([table], config.limits)
            program = Program(load(sizes), sizes)
        finally:
            bcc.BPF.load_func = load
        lap("compile")
        laps["compile"] -= loading[0]
        laps["verify and translate"] = loading[0]
        program.apply(table)
        lap("fill the maps")
        program.close()
        lap("give them up")
        print(
            f"        {COUNT} rules, by parts: {', '.join(f'{what} {laps[what]:.1f} s' for what in laps)}", flush=True
        )


def _prefix(number: int) -> str:
    """The first three words of one of 65,536 /48s."""
    return f"2001:db9:{number:x}"
