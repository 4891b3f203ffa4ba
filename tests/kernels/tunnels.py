# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts behind WireGuard and tun, which have no Neighbor Discovery: method route works, neighbour is refused."""

from __future__ import annotations

from tests.kernels.ground import Rule, beside, interface
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE

_PREFIX = "2001:db8:50"
_MAKE = {"wireguard": "link add wg0 type wireguard", "tun": "tuntap add tun0 mode tun"}
_NAMES = {"wireguard": "wg0", "tun": "tun0"}
_PORTS = {"tunnel0": "hybrid", "tunnel1": "python"}
_REFUSED = "tunnel2"


class Tunnels(Scene):
    kinds = ("veth",)

    def build(self) -> str:
        ground = self.ground
        self.names = {kind: name for kind, name in _NAMES.items() if ground.may(kind)}
        for port in (*_PORTS, _REFUSED):
            ground.cable(port, f"{port}-ask")
        for number, (kind, name) in enumerate(self.names.items(), 1):
            ground.ip("edge", _MAKE[kind], f"link set {name} up", f"route add {_PREFIX}:{number}::/64 dev {name}")
        return "".join(
            beside(port, Rule(f"{_PREFIX}::/48", "route"), datapath=datapath) for port, datapath in _PORTS.items()
        )

    def check(self) -> None:
        ground = self.ground
        # No more specific route: the packet would go back to where the topology's default route leads.
        ground.ip("edge", f"route add unreachable {_PREFIX}::/48")
        for port, datapath in _PORTS.items():
            wire, mac = ground.wire(f"{port}-ask"), ground.mac(port)
            for number, kind in enumerate(self.names, 1):
                found = wire.ask(f"{_PREFIX}:{number}::1", mac)
                ground.check(f"{datapath}: method route out of {kind}", found, ANSWER)
            ground.check(f"{datapath}: no route", wire.silent(f"{_PREFIX}:f::1"), SILENCE)
        for kind, name in self.names.items():
            more = interface(_REFUSED, Rule(f"{_PREFIX}::/48", "neighbour", f'via = ["{name}"]'))
            done, words = ground.reload(more)
            print(f"        reload {'done' if done else 'refused'}: {words}", flush=True)
            ground.check(f"method neighbour via {kind} is refused", done, False)
            said = any(name in line and "route" in line for line in words.splitlines())
            ground.check(f"method neighbour via {kind}: what is said names it, and method route", said)
        done, words = ground.reload()
        ground.check("the configuration without it is taken", (done, "" if done else words), (True, ""))
