# SPDX-License-Identifier: GPL-2.0-or-later
"""What `trace` tells of a VLAN that has a device here: what the kernel answers there, and the next hop behind it."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from ipaddress import IPv6Network

from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.trace_told import Told
from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.tools.named import Named
from npd6_xdp.tools.trace_session import Session
from tests.kernels.ground import Rule, interface, until
from tests.kernels.machine import transmit_vlan_offload
from tests.kernels.scene import Scene
from tests.kernels.wire import Wire

DATAPATHS = {"traced0": "hybrid", "traced1": "python"}
_SOON = 30.0  # seconds

Words = tuple[str, str, str | None, list[int]]
"""Outcome, reason, rule, and the VLAN ids."""


class TracedVlans(Scene):
    kinds = ("vlan",)

    def build(self) -> str:
        ground, text = self.ground, ""
        for number, (port, datapath) in enumerate(DATAPATHS.items()):
            asker, prefix = f"{port}-ask", f"2001:db8:3{number + 4}"
            ground.cable(port, asker)
            transmit_vlan_offload(ground.topology, "upstream", asker, False)
            ground.ip(
                "upstream",
                f"link add link {asker} name {asker}.100 type vlan id 100",
                f"link set {asker}.100 up",
            )
            ground.ip(
                "edge",
                f"link add link {port} name {port}.100 type vlan id 100",
                f"link set {port}.100 up",
                f"address add {prefix}::1/64 dev {port}.100 nodad",
                f"route add {prefix}:1::/64 via {prefix}::2 dev {port}.100",
            )
            text += interface(port, Rule(f"{prefix}:2::/64", "kernel"), datapath=datapath, vlan=100)
        return text

    def check(self) -> None:
        for number, (port, datapath) in enumerate(DATAPATHS.items()):
            prefix, wire = f"2001:db8:3{number + 4}", self.ground.wire(f"{port}-ask.100")
            first = "the first time; the kernel's proxy entry answers from then on, if it has got one"
            rule = f"{prefix}:2::/64"
            for what, target, outcome, why, covering in (
                ("own", f"{prefix}::1", Outcome.OWN, f"{port} holds this address itself; the kernel answers", None),
                (
                    "a next hop",
                    f"{prefix}::2",
                    Outcome.IGNORED,
                    f"it is a next hop of a route out of {port}; never impersonated",
                    None,
                ),
                ("kernel, the first time", f"{prefix}:2::1", Outcome.ANSWERED_PYTHON, first, rule),
                ("kernel", f"{prefix}:2::1", Outcome.KERNEL, "the kernel's proxy entry for it answers", rule),
            ):
                found = self._told(wire, target)
                self.ground.check(f"{datapath}: {what}", found, (outcome, why, covering, [100]))

    def _told(self, wire: Wire, target: str) -> Words | None:
        """What is told of a question for a target; None if nothing is."""
        control = self.ground.daemon.control
        with closing(Session(control, Filter(target=Prefix.of(IPv6Network(target))))) as session:
            wire.silent(target, seconds=0.0)
            came = list[Told]()
            until(partial(_read_into, came, session, Named(control)), _SOON)
        if not came:
            return None
        told = came[0]
        return str(told.traced.outcome), told.why, told.rule, list(told.asked.vlan)


def _read_into(came: list[Told], session: Session, named: Named) -> bool:
    several = session.read()
    named.learn(several)
    came += [Told.of(each, 0, named.entry(each), named.rule(each)) for each in several]
    return bool(came)
