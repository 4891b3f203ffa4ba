# SPDX-License-Identifier: GPL-2.0-or-later
"""Bonds as ports: answered once, with the bond's MAC and counted, while slaves fail, go and come.

The upstream's ends stand for a switch's ports. To an active-backup bond a switch that floods sends a copy by each, of
which the bond takes one; to a bond that balances it sends one, by any.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.kernels.ground import Rule, interface, until
from tests.kernels.machine import xdp_pass
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE, Wire


class Bond(NamedTuple):
    name: str
    mode: str
    attach: str
    datapath: str
    more: str = ""

    @property
    def slaves(self) -> tuple[str, str]:
        return f"{self.name}-s0", f"{self.name}-s1"

    @property
    def askers(self) -> tuple[str, str]:
        return f"{self.name}-a0", f"{self.name}-a1"

    def __str__(self) -> str:
        return f"{self.name} ({self.mode} {self.more}, {self.attach}, {self.datapath})".replace(" ,", ",")


BONDS = (
    Bond("bond0", "active-backup", "auto", "hybrid"),
    Bond("bond1", "active-backup", "native", "hybrid", "fail_over_mac active"),
    Bond("bond2", "active-backup", "generic", "python"),
    Bond("bond3", "balance-xor", "auto", "hybrid"),
    Bond("bond4", "balance-xor", "generic", "hybrid"),
    Bond("bond5", "balance-xor", "native", "python"),
)
_MORE = 0.3  # seconds for which a second answer is waited for
_FAIL_OVER = 30.0  # seconds; miimon is 100 ms


class Bonds(Scene):
    kinds = ("bond",)

    def build(self) -> str:
        ground = self.ground
        self.wires: dict[Bond, Wire] = {}
        self.targets = 0
        for bond in BONDS:
            ground.ip("edge", f"link add {bond.name} type bond mode {bond.mode} miimon 100 {bond.more}")
            for slave, asker in zip(bond.slaves, bond.askers, strict=True):
                ground.cable(slave, asker, up=False)
                # Real NICs send what native XDP_TX gives them; veth does if its peer has a program, too.
                xdp_pass(ground.topology, "upstream", asker)
                ground.ip("upstream", f"link set {asker} up")
                ground.ip("edge", f"link set {slave} master {bond.name}")
            ground.ip("edge", f"link set {bond.name} up")
            self.wires[bond] = ground.wire(*bond.askers)
        return "".join(
            interface(bond.name, Rule("2001:db8:20::/64", "static"), attach=bond.attach, datapath=bond.datapath)
            for bond in BONDS
        )

    def check(self) -> None:
        ground = self.ground
        for bond in BONDS:
            until(lambda bond=bond: len(self._ways(bond)) == 2, _FAIL_OVER)  # type: ignore[misc]
        for bond in BONDS:
            if bond.attach == "auto":
                ground.check_auto(bond.name, "native XDP_TX is lost on a bond of veths")
        self._ask_all("at first")

        # The active slave's cable is cut, or the first one's where all are active.
        lost = {bond: self._active(bond) for bond in BONDS}
        for bond in BONDS:
            ground.ip("upstream", f"link set {bond.askers[lost[bond]]} down")
        for bond in BONDS:
            left = 1 - lost[bond]
            until(lambda bond=bond, left=left: self._ways(bond) == [left], _FAIL_OVER)  # type: ignore[misc]
            self._ask(bond, (left,), "when a slave has lost its carrier")
        for bond in BONDS:
            ground.ip("upstream", f"link set {bond.askers[lost[bond]]} up")
        for bond in BONDS:
            until(lambda bond=bond: len(self._ways(bond)) == 2, _FAIL_OVER)  # type: ignore[misc]
        self._ask_all("when it has its carrier again")

        for bond in BONDS:
            ground.ip("edge", f"link set {bond.slaves[0]} nomaster", f"link set {bond.slaves[0]} up")
        for bond in BONDS:
            until(lambda bond=bond: self._active(bond) == 1, _FAIL_OVER)  # type: ignore[misc]
            self._ask(bond, (1,), "when a slave is released")
        for bond in BONDS:
            found = self.wires[bond].silent(self._target(), by=(0,))
            ground.check(f"{bond}: what a released slave receives", found, SILENCE)
        for bond in BONDS:
            ground.ip("edge", f"link set {bond.slaves[0]} down", f"link set {bond.slaves[0]} master {bond.name}")
        for bond in BONDS:
            until(lambda bond=bond: len(self._ways(bond)) == 2, _FAIL_OVER)  # type: ignore[misc]
        self._ask_all("when it is enslaved again")
        for bond, wire in self.wires.items():
            # A copy that the bond drops is no solicitation of its; so the answers are compared, not the questions.
            read = lambda bond=bond: ground.answered(bond.name)  # noqa: E731
            ground.check_soon(f"{bond}: answers are counted", read, wire.answered)

    def after_growth(self) -> None:
        self._ask_all("after growth")

    def _ask_all(self, when: str) -> None:
        for bond in BONDS:
            if bond.mode == "active-backup":
                self._ask(bond, (0, 1), f"{when}, by both")
            else:
                self._ask(bond, (0,), f"{when}, by the first")
                self._ask(bond, (1,), f"{when}, by the second")

    def _ask(self, bond: Bond, by: tuple[int, ...], when: str) -> None:
        found = self.wires[bond].ask(self._target(), self.ground.mac(bond.name), by=by, more=_MORE)
        self.ground.check(f"{bond}: {when}", found, ANSWER)

    def _target(self) -> str:
        self.targets += 1
        return f"2001:db8:20::{self.targets:x}"

    def _active(self, bond: Bond) -> int:
        """The number of the slave by which the bond sends; of one that balances, the first that it can send by."""
        name = self.ground.link(bond.name)["linkinfo"]["info_data"].get("active_slave")
        return bond.slaves.index(name) if name in bond.slaves else (self._ways(bond) or [0])[0]

    def _ways(self, bond: Bond) -> list[int]:
        """The numbers of the slaves that the bond holds for usable."""
        links = [self.ground.link(slave).get("linkinfo", {}) for slave in bond.slaves]
        found = [link.get("info_slave_data", {}) for link in links]
        return [number for number, data in enumerate(found) if data.get("mii_status") == "UP"]
