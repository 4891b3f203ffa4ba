# SPDX-License-Identifier: GPL-2.0-or-later
"""Bonds whose master the program sits at tc of, or at in generic mode: of 802.3ad with a bond at the other end, and of
slaves whose driver runs no XDP program. Answered once by whichever slave is there, as they come and go.
"""

from __future__ import annotations

from tests.kernels.ground import Rule, interface, until
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, Wire

_LACP, _PARTNER = "lacp0", "lacp0-up"
_SLOW, _SLOW_PARTNER = "slow0", "slow0-up"
_PREFIX = "2001:db8:26"
_CABLES = (0, 1)
_MORE = 0.3  # seconds for which a second answer is waited for
_FAIL_OVER = 90.0  # seconds; an aggregator that has lost a port is chosen anew within some


class Lacp(Scene):
    kinds = ("bond", "vlan")

    def build(self) -> str:
        ground = self.ground
        self.targets = 0
        mode = "mode 802.3ad lacp_rate fast miimon 100 xmit_hash_policy layer2"
        ground.ip("edge", f"link add {_LACP} type bond {mode}")
        ground.ip("upstream", f"link add {_PARTNER} type bond {mode}")
        ground.ip("edge", f"link add {_SLOW} type bond mode active-backup miimon 100")
        ground.ip("upstream", f"link add {_SLOW_PARTNER} type bond mode active-backup miimon 100")
        for number in _CABLES:
            ground.cable(f"{_LACP}-s{number}", f"{_LACP}-a{number}", up=False)
            ground.ip("edge", f"link set {_LACP}-s{number} master {_LACP}")
            ground.ip("upstream", f"link set {_LACP}-a{number} master {_PARTNER}")
            ground.cable(f"{_SLOW}-c{number}", f"{_SLOW}-p{number}")
            # VLAN devices have no native mode, so a bond of them has none; nor is one of veths seen in it.
            for namespace, under, device, master in (
                ("edge", f"{_SLOW}-c{number}", f"{_SLOW}-s{number}", _SLOW),
                ("upstream", f"{_SLOW}-p{number}", f"{_SLOW}-a{number}", _SLOW_PARTNER),
            ):
                ground.ip(
                    namespace,  # type: ignore[arg-type]
                    f"link add link {under} name {device} type vlan id 9",
                    f"link set {device} master {master}",
                )
        for namespace, bonds in (("edge", (_LACP, _SLOW)), ("upstream", (_PARTNER, _SLOW_PARTNER))):
            ground.ip(namespace, *(f"link set {bond} up" for bond in bonds))  # type: ignore[arg-type]
        self.wires = {_LACP: ground.wire(_PARTNER), _SLOW: ground.wire(_SLOW_PARTNER)}
        return "".join(interface(bond, Rule(f"{_PREFIX}::/64", "static")) for bond in self.wires)

    def check(self) -> None:
        ground = self.ground
        ground.check_auto(_LACP, "native XDP_TX is lost on a bond of veths")
        ground.check_auto(_SLOW, "the driver refuses an XDP program in native mode")
        ground.check("both aggregate", until(lambda: self._aggregated() == 2, _FAIL_OVER))
        self._ask("by both")
        for number in _CABLES:
            for bond in self.wires:
                slave = f"{bond}-s{number}"
                ground.ip("edge", f"link set {slave} nomaster")
            ground.ip("edge", f"link set {_SLOW}-c{number} down")  # LACP tells the other end; here its carrier does
            until(lambda: self._aggregated() == 1, _FAIL_OVER)
            self._ask(f"without slave {number}")
            ground.ip("edge", f"link set {_SLOW}-c{number} up")
            for bond in self.wires:
                slave = f"{bond}-s{number}"
                ground.ip("edge", f"link set {slave} down", f"link set {slave} master {bond}")
            until(lambda: self._aggregated() == 2, _FAIL_OVER)
            self._ask(f"with slave {number} again")
        for bond, wire in self.wires.items():
            read = lambda bond=bond, wire=wire: ground.answered(bond) >= wire.answered  # noqa: E731
            ground.check_soon(f"{bond}: answers are counted, also what a bond lost", read, True)

    def after_growth(self) -> None:
        self._ask("after growth")

    def _ask(self, when: str) -> None:
        """Once frames find their way again: a bond takes some moments to, and a lost question counts for nothing."""
        for bond, wire in self.wires.items():
            found = self._answer(wire, bond)
            self.ground.check(f"{bond}: {when}", found, ANSWER)

    def _answer(self, wire: Wire, bond: str) -> object:
        found: object = None
        mac = self.ground.mac(bond)

        def answered() -> bool:
            nonlocal found
            self.targets += 1
            try:
                found = wire.ask(f"{_PREFIX}::{self.targets:x}", mac, seconds=2.0, more=_MORE)
            except OSError as error:  # ENOBUFS: the bond that is asked by has nothing to send by yet
                found = str(error)
            return found == ANSWER

        until(answered, _FAIL_OVER)
        return found

    def _aggregated(self) -> int:
        """How many ports the bond of 802.3ad sends and receives by."""
        data = self.ground.link(_LACP)["linkinfo"]["info_data"]
        return int(data.get("ad_info", {}).get("num_ports", 0))
