# SPDX-License-Identifier: GPL-2.0-or-later
"""Five methods in both datapaths, native and generic, silence where it belongs, and nothing left behind."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import NamedTuple

from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.core.traced import Traced
from npd6_xdp.tools.trace_session import Session
from tests.kernels.ground import Rule, interface, until
from tests.kernels.machine import xdp_pass
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE, Wire


class Port(NamedTuple):
    name: str
    datapath: str
    attach: str

    @property
    def asker(self) -> str:
        return f"{self.name}-ask"

    def __str__(self) -> str:
        return f"{self.datapath}, {self.attach}"


PORTS = (Port("smoke0", "hybrid", "generic"), Port("smoke1", "python", "auto"), Port("smoke2", "hybrid", "native"))
GROWN = Port("smoke3", "hybrid", "generic")
"""A port that the first configuration doesn't speak of."""

ANSWERED = {
    "static": "2001:db8:10:1::1",
    "static, a host address": "2001:db8:10:a::1",
    "route": "2001:db8:10:2::1",
    "neighbour": "2001:db8:10:3::42",
    "kernel": "2001:db8:10:4::1",
}
SILENT = {
    "a rule that ignores": "2001:db8:10:1::bad",
    "a prefix without a route": "2001:db8:10:2:8000::1",
    "a prefix that is routed back": "2001:db8:10:5::1",
    "no such neighbour": "2001:db8:10:3::43",
    "no rule": "2001:db8:10:6::1",
}
OUTCOMES = {"ignored": 1, "absent": 2, "pending": 1, "unmatched": 1, "invalid": 1}
"""Of what is silent."""

_GROWTH = 900.0  # seconds


def _read_into(came: list[Traced], session: Session) -> bool:
    came += session.read()
    return bool(came)


class Smoke(Scene):
    kinds = ("veth",)

    def build(self) -> str:
        ground = self.ground
        for port in (*PORTS, GROWN):
            ground.cable(port.name, port.asker)
            if port.attach == "native":
                xdp_pass(ground.topology, "upstream", port.asker)  # veth's native XDP_TX is lost without
        ground.host(
            "smoke-lan",
            "smoke-host",
            "address add 2001:db8:10:3::42/64 dev smoke-host nodad",
            edge=(
                "address add 2001:db8:10:3::1/64 dev smoke-lan nodad",
                "route add 2001:db8:10:2::/65 dev smoke-lan",
                "route add unreachable 2001:db8:10:2:8000::/65",
            ),
        )
        return "".join(self.configuration(port) for port in PORTS)

    @staticmethod
    def configuration(port: Port) -> str:
        return interface(
            port.name,
            Rule("2001:db8:10:1::/64", "static"),
            Rule("2001:db8:10:1::bad", "ignore"),
            Rule("2001:db8:10:a::1", "static"),
            Rule("2001:db8:10:2::/64", "route"),
            Rule("2001:db8:10:3::/64", "neighbour", 'via = ["smoke-lan"]'),
            Rule("2001:db8:10:4::/64", "kernel"),
            Rule("2001:db8:10:5::/64", "route"),
            datapath=port.datapath,
            attach=port.attach,
        )

    def check(self) -> None:
        ground = self.ground
        for port in PORTS:
            # One port is asked at a time, so that a route back is one to this very port.
            ground.ip("edge", f"route replace 2001:db8:10:5::/64 dev {port.name}")
            wire, mac = ground.wire(port.asker), ground.mac(port.name)
            for what, target in ANSWERED.items():
                ground.check(f"{port}: {what}", wire.ask(target, mac, tries=1 if what == "neighbour" else 3), ANSWER)
            ground.check(f"{port}: {', '.join(SILENT)}", wire.silent(*SILENT.values()), SILENCE)
            target = "2001:db8:10:1::2"
            ground.check(f"{port}: a wrong checksum", wire.silent(target, checksum_error=0x5555), SILENCE)
            self._check_counters(port, wire)
        self._check_trace()

    def _check_counters(self, port: Port, wire: Wire) -> None:
        read = self.ground.outcomes
        self.ground.check_soon(
            f"{port}: each question is counted once", lambda: sum(read(port.name).values()), wire.asked
        )
        found = read(port.name)
        others = {outcome: count for outcome, count in found.items() if not outcome.startswith("answered")}
        first = port is PORTS[0]  # and so the neighbour wasn't known yet
        self.ground.check(f"{port}: as what it was", others, {**OUTCOMES, "pending": 1 + first})

    def _check_trace(self) -> None:
        """A ring buffer within an array of maps, which a client maps: of what XDP answers, and of what Python does."""
        with closing(Session(self.ground.daemon.control, Filter())) as session:
            for port in PORTS:
                wire, mac, came = self.ground.wire(port.asker), self.ground.mac(port.name), list[Traced]()
                found = wire.ask(ANSWERED["static"], mac, tries=3)
                self.ground.check(f"{port}: static, while it is traced", found, ANSWER)
                until(partial(_read_into, came, session), 30.0)
                by = "python" if port.datapath == "python" else "xdp"
                self.ground.check(f"{port}: the trace tells who has answered", [line.by for line in came][:1], [by])

    def grow(self) -> None:
        """Have a larger program take over: the rules are more than the maps of the first have space for."""
        ground = self.ground
        before, count = ground.program(PORTS[0].name), 3 * len(ground.status()["rules"]) + 256
        rules = (Rule(f"2001:db8:{0x1000 + number:x}::/64", "static") for number in range(count))
        since = time.monotonic()
        done, words = ground.reload(interface(GROWN.name, *rules, datapath=GROWN.datapath, attach=GROWN.attach))
        ground.check("the client waits for the reload to its end", "done" if done else words, "done")
        ground.check("another program takes over", until(lambda: ground.program(PORTS[0].name) != before, _GROWTH))
        print(f"        {count} more rules took {time.monotonic() - since:.1f} s", flush=True)
        wire, mac = ground.wire(GROWN.asker), ground.mac(GROWN.name)
        target = f"2001:db8:{0x1000 + count - 1:x}::1"
        ground.check("it has the new rules", wire.ask(target, mac, tries=20, seconds=3.0), ANSWER)

    def after_growth(self) -> None:
        for port in PORTS:
            wire, mac = self.ground.wire(port.asker), self.ground.mac(port.name)
            for what, target in {**ANSWERED, "kernel": "2001:db8:10:4::2"}.items():
                self.ground.check(f"{port}: {what}, after growth", wire.ask(target, mac, tries=3), ANSWER)
