# SPDX-License-Identifier: GPL-2.0-or-later
"""Method route and prefixes that are at home here: nothing is behind a dummy or lo, but AnyIP is local delivery."""

from __future__ import annotations

from tests.kernels.ground import Rule, beside
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE

_PREFIX = "2001:db8:70"
_PORTS = {"anchor0": "hybrid", "anchor1": "python"}


class Anchors(Scene):
    kinds = ("veth",)

    def build(self) -> str:
        ground = self.ground
        self.there = {"AnyIP on lo": f"{_PREFIX}:4::5", "a route out of another interface": f"{_PREFIX}:6::5"}
        self.absent = {"a route to lo": f"{_PREFIX}:3::5"}
        for port in _PORTS:
            ground.cable(port, f"{port}-ask")
        ground.ip(
            "edge",
            f"route add {_PREFIX}:3::/64 dev lo",
            f"route add local {_PREFIX}:4::/64 dev lo",
            f"route add {_PREFIX}:6::/64 dev lan0",
        )
        if ground.may("dummy"):
            self.there |= {"an address on a dummy": f"{_PREFIX}:1::1", "AnyIP on a dummy": f"{_PREFIX}:5::5"}
            self.absent |= {"the rest of its prefix": f"{_PREFIX}:1::5", "a route to a dummy": f"{_PREFIX}:2::5"}
            ground.ip(
                "edge",
                "link add dummy0 type dummy",
                "link set dummy0 up",
                f"address add {_PREFIX}:1::1/64 dev dummy0 nodad",
                f"route add {_PREFIX}:2::/64 dev dummy0",
                f"route add local {_PREFIX}:5::/64 dev dummy0",
            )
        return "".join(
            beside(port, Rule(f"{_PREFIX}::/48", "route"), datapath=datapath) for port, datapath in _PORTS.items()
        )

    def check(self) -> None:
        for port, datapath in _PORTS.items():
            wire, mac = self.ground.wire(f"{port}-ask"), self.ground.mac(port)
            for what, target in self.there.items():
                self.ground.check(f"{datapath}: {what}", wire.ask(target, mac, tries=2), ANSWER)
            for what, target in self.absent.items():
                self.ground.check(f"{datapath}: {what}", wire.silent(target), SILENCE)
