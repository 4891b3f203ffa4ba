# SPDX-License-Identifier: GPL-2.0-or-later
"""A port at whose tc ingress the program is to sit: it answers where this kernel has tcx, and is refused where not; and
what `auto` makes of ports that can't be native.
"""

from __future__ import annotations

from tests.kernels.ground import Rule, interface
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER

_PORT, _OTHER, _UNDER, _MACVLAN = "tc0", "tc1", "tc2", "tc2mac"
_TARGET = "2001:db8:63::1"


class ByTc(Scene):
    kinds = ("veth", "macvlan")

    def build(self) -> str:
        for port in (_PORT, _OTHER, _UNDER):
            self.ground.cable(port, f"{port}-ask")
        self.ground.ip(
            "edge", f"link add link {_UNDER} name {_MACVLAN} type macvlan mode bridge", f"link set {_MACVLAN} up"
        )
        return "".join(interface(port, Rule("2001:db8:63::/64", "static")) for port in (_OTHER, _MACVLAN))

    def check(self) -> None:
        """By a reload, since a start that is refused would end the other scenes."""
        ground = self.ground
        rule = Rule("2001:db8:63::/64", "static")
        done, words = ground.reload(interface(_PORT, rule, attach="tc", tc_order="last"))
        said = f"{_PORT}: attached at tc ingress" if done else f"{_PORT}: Linux "
        ground.check("it says how it is attached, or what it needs", said in words)
        if not done:
            for part in ("has no links at tc (tcx), which are there from 6.6 on", 'allow attach = "auto" or "generic"'):
                ground.check(f"it is refused: {part}", part in words)
        found = ground.wire(f"{_PORT}-ask").ask(_TARGET, ground.mac(_PORT), tries=3) == ANSWER
        ground.check("it answers by tc, where there is tcx", found, done)
        ground.check("and on no port as XDP", ground.program(_PORT), None)
        wire, mac = ground.wire(f"{_OTHER}-ask"), ground.mac(_OTHER)
        ground.check("another port answers as before", wire.ask(_TARGET, mac, tries=3), ANSWER)
        ground.reload()
        ground.check_auto(_OTHER, "native XDP_TX is lost on veth")
        ground.check_auto(_MACVLAN, "the driver refuses an XDP program in native mode")
        wire, mac = ground.wire(f"{_UNDER}-ask"), ground.mac(_MACVLAN)
        ground.check("a macvlan device answers", wire.ask(_TARGET, mac, tries=3), ANSWER)
