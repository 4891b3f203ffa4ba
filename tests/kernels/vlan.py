# SPDX-License-Identifier: GPL-2.0-or-later
"""VLAN devices of the kernel's own at the other end of a veth, whose tags stand beside the frame, where XDP can't look.

In generic mode such a port is taken off, and says what to do; when the peer writes its tags into the frames, it comes
back. Under `auto`, where this kernel has tcx, the program sees them at tc.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.kernels.ground import Rule, interface, until
from tests.kernels.machine import kernel_asks, transmit_vlan_offload
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE, Wire


class Trunk(NamedTuple):
    name: str
    datapath: str
    own_device: bool
    number: int

    attach: str = "generic"

    @property
    def asker(self) -> str:
        return f"{self.name}-ask"

    @property
    def tagged_asker(self) -> str:
        return f"{self.asker}.100"

    def target(self, vlan: int, number: int) -> str:
        """A target of the rule for VLAN 100, or of the one for untagged frames (0)."""
        return f"2001:db8:30:{self.number:x}{vlan:03x}::{number:x}"

    def __str__(self) -> str:
        return f"{self.name} ({self.datapath}, {'with' if self.own_device else 'without'} a VLAN device here)"


TRUNKS = (
    Trunk("trunk1", "hybrid", False, 1),
    Trunk("trunk2", "hybrid", True, 2),
    Trunk("trunk3", "python", False, 3),
    Trunk("trunk4", "python", True, 4),
)
AUTO = (Trunk("trunk5", "hybrid", True, 5, "auto"), Trunk("trunk6", "python", False, 6, "auto"))
_MEND = "txvlan off"
_SOON = 15.0  # seconds until a port that can't be right is off, or one that is mended is back


class Vlans(Scene):
    kinds = ("vlan",)

    def build(self) -> str:
        ground = self.ground
        self.wires: dict[Trunk, Wire] = {}
        self.tagged: dict[Trunk, Wire] = {}
        text = ""
        for trunk in (*TRUNKS, *AUTO):
            ground.cable(trunk.name, trunk.asker)
            if trunk.own_device:
                ground.ip(
                    "edge",
                    f"link add link {trunk.name} name {trunk.name}.100 type vlan id 100",
                    f"link set {trunk.name}.100 up",
                )
            ground.ip(
                "upstream",
                f"link add link {trunk.asker} name {trunk.tagged_asker} type vlan id 100",
                f"link set {trunk.tagged_asker} up",
                # The kernel's own questions are for addresses on its link.
                f"route add {trunk.target(100, 0)}/64 dev {trunk.tagged_asker}",
            )
            self.wires[trunk] = ground.wire(trunk.asker)
            self.tagged[trunk] = ground.wire(trunk.tagged_asker)
            untagged, tagged = (Rule(f"{trunk.target(vlan, 0)}/64", "static") for vlan in (0, 100))
            text += interface(trunk.name, untagged, datapath=trunk.datapath, attach=trunk.attach)
            text += interface(trunk.name, tagged, datapath=trunk.datapath, vlan=100)
        return text

    def check(self) -> None:
        if self.ground.has_tcx:
            self._check_at_tc()
        for trunk in TRUNKS:
            self._ask(self.wires[trunk], trunk, 0, 1, f"{trunk}: an untagged question")
        for trunk in TRUNKS:
            self.tagged[trunk].silent(trunk.target(100, 1), seconds=0.1)
        self._check_off("")
        self._switch(False)
        self._check_back("mended")
        self._switch(True)
        for trunk in TRUNKS:
            # This time it is the kernel that sends such a frame.
            kernel_asks(self.ground.topology, trunk.tagged_asker, trunk.target(100, 2), seconds=0.1)
        self._check_off(", again")
        self._switch(False)
        self._check_back("mended again")

    def after_growth(self) -> None:
        for trunk in TRUNKS:
            self._ask(self.wires[trunk], trunk, 0, 9, f"{trunk}: an untagged question, after growth")
            self._ask(self.tagged[trunk], trunk, 100, 9, f"{trunk}: VLAN 100's question, after growth")

    def _check_at_tc(self) -> None:
        """Wherever a tag stands: an answer by the right entry, whoever asks, and nothing is taken off."""
        ground = self.ground
        for beside in (True, False):
            where = "beside the frame" if beside else "in the frame"
            for trunk in AUTO:
                transmit_vlan_offload(ground.topology, "upstream", trunk.asker, beside)
                wire, number = self.tagged[trunk], 1 + beside
                self._ask(wire, trunk, 100, number, f"{trunk}: VLAN 100's question, the tag {where}")
                found = wire.silent(trunk.target(0, number))
                ground.check(f"{trunk}: VLAN 100's, for what untagged frames' rule covers, {where}", found, SILENCE)
                self._ask(self.wires[trunk], trunk, 0, number, f"{trunk}: an untagged question")
                found = kernel_asks(ground.topology, trunk.tagged_asker, trunk.target(100, 6 + beside))
                ground.check(f"{trunk}: the kernel's question on VLAN 100", found, ground.mac(trunk.name).hex(":"))
                ground.check(f"{trunk}: it is up", ground.is_up(trunk.name))
        for trunk in AUTO:
            ground.check_auto(trunk.name, "native XDP_TX is lost on veth")

    def _check_off(self, again: str) -> None:
        """A frame has come with its tag beside it."""
        ground = self.ground
        until(lambda: not any(ground.is_up(trunk.name) for trunk in TRUNKS), _SOON)
        lines, status = ground.daemon.log.splitlines(), list(texts(ground.status()))
        for trunk in TRUNKS:
            off = not ground.is_up(trunk.name)
            ground.check(f"{trunk}: taken off when a tag stands beside the frame{again}", off)
            found = self.tagged[trunk].silent(trunk.target(0, 2))
            ground.check(f"{trunk}: VLAN 100's question by the rule for untagged frames{again}", found, SILENCE)
            said = any(_MEND in line and trunk.name in line for line in lines)
            ground.check(f"{trunk}: the log says what to do on the other side{again}", said)
            said = any(_MEND in line and trunk.name in line for line in status)
            ground.check(f"{trunk}: status says it{again}", said)

    def _check_back(self, when: str) -> None:
        """Tags are in the frames. Nothing but a question can show that to who sits on the other end."""
        ground = self.ground

        def back() -> bool:
            for trunk in TRUNKS:
                self.tagged[trunk].ask(trunk.target(100, 3), ground.mac(trunk.name), seconds=0.1)
            return all(ground.is_up(trunk.name) for trunk in TRUNKS)

        until(back, _SOON)
        for trunk in TRUNKS:
            wire, mac = self.tagged[trunk], ground.mac(trunk.name)
            ground.check(f"{trunk}: {when}, it is back", ground.is_up(trunk.name))
            self._ask(wire, trunk, 100, 4, f"{trunk}: {when}, VLAN 100's question")
            found = wire.silent(trunk.target(0, 3))
            ground.check(f"{trunk}: {when}, VLAN 100's question by the rule for untagged frames", found, SILENCE)
            self._ask(self.wires[trunk], trunk, 0, 4, f"{trunk}: {when}, an untagged question")
            ground.ip("upstream", f"neigh flush dev {trunk.tagged_asker}")
            found = kernel_asks(ground.topology, trunk.tagged_asker, trunk.target(100, 5))
            ground.check(f"{trunk}: {when}, the kernel's question on VLAN 100", found, mac.hex(":"))

    def _ask(self, wire: Wire, trunk: Trunk, vlan: int, number: int, what: str) -> None:
        found = wire.ask(trunk.target(vlan, number), self.ground.mac(trunk.name))
        self.ground.check(what, found, ANSWER)

    def _switch(self, on: bool) -> None:
        for trunk in TRUNKS:
            transmit_vlan_offload(self.ground.topology, "upstream", trunk.asker, on)


def texts(found: Any) -> Iterator[str]:
    """All text in what the control socket has answered, its keys with their values."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield f"{key}: {value}" if isinstance(value, str) else str(key)
            yield from texts(value)
    elif isinstance(found, list):
        for value in found:
            yield from texts(value)
    elif isinstance(found, str):
        yield found
