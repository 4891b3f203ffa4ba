# SPDX-License-Identifier: GPL-2.0-or-later
"""A VLAN device as the port ("wan0.100"): an interface like any other, whether tags stand beside or in the frames."""

from __future__ import annotations

from tests.kernels.ground import Rule, interface
from tests.kernels.machine import kernel_asks, transmit_vlan_offload
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE

DATAPATHS = {"under0": "hybrid", "under1": "python"}
_PREFIX = "2001:db8:31"


class VlanDevices(Scene):
    kinds = ("vlan",)

    def build(self) -> str:
        ground = self.ground
        self.targets = 0
        for under in DATAPATHS:
            ground.cable(under, f"{under}-ask")
            for namespace, name in (("edge", under), ("upstream", f"{under}-ask")):
                ground.ip(
                    namespace,  # type: ignore[arg-type]
                    f"link add link {name} name {name}.100 type vlan id 100",
                    f"link set {name}.100 up",
                )
        ground.ip("upstream", *(f"address add {_PREFIX}:f{under[-1]}::1/48 dev {under}-ask.100" for under in DATAPATHS))
        return "".join(
            interface(f"{under}.100", Rule(f"{_PREFIX}::/64", "static"), datapath=datapath)
            for under, datapath in DATAPATHS.items()
        )

    def check(self) -> None:
        ground = self.ground
        for under in DATAPATHS:
            ground.check_auto(f"{under}.100", "the driver refuses an XDP program in native mode")
        for offload in (True, False):
            where = "beside" if offload else "in"
            for under, datapath in DATAPATHS.items():
                name, asker = f"{under}.100", f"{under}-ask"
                transmit_vlan_offload(ground.topology, "upstream", asker, offload)
                before, wire, mac = ground.answered(name), ground.wire(f"{asker}.100"), ground.mac(name)
                what = f"{datapath}, the tag {where} the frame"
                ground.check(f"{what}: VLAN 100's question", wire.ask(self._target(), mac), ANSWER)
                found = kernel_asks(ground.topology, f"{asker}.100", self._target())
                ground.check(f"{what}: the kernel's question", found, mac.hex(":"))
                found = ground.wire(asker).silent(self._target())
                ground.check(f"{what}: an untagged question", found, SILENCE)
                read = lambda name=name, before=before: ground.answered(name) - before  # noqa: E731
                ground.check_soon(f"{what}: answers are counted", read, 2)

    def after_growth(self) -> None:
        for under, datapath in DATAPATHS.items():
            wire, mac = self.ground.wire(f"{under}-ask.100"), self.ground.mac(f"{under}.100")
            self.ground.check(f"{datapath}: after growth", wire.ask(self._target(), mac), ANSWER)

    def _target(self) -> str:
        self.targets += 1
        return f"{_PREFIX}::{self.targets:x}"
