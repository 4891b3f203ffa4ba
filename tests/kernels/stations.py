# SPDX-License-Identifier: GPL-2.0-or-later
"""A port with other stations on it (bridge, macvlan, ipvlan) on the very prefix of the hosts that are looked for.

Method neighbour doesn't know whether a target is behind `via` before it has asked there. Meanwhile the question has to
go on to those stations, one of which may be who is asked for.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.kernels.ground import Rule, interface
from tests.kernels.machine import kernel_asks
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE


class Port(NamedTuple):
    number: int
    kind: str
    datapath: str

    @property
    def name(self) -> str:
        return f"shared{self.number}"

    @property
    def asker(self) -> str:
        return f"{self.name}-ask"

    @property
    def station(self) -> str:
        return f"station{self.number}"

    @property
    def prefix(self) -> str:
        return f"2001:db8:60:{self.number:x}"

    def __str__(self) -> str:
        return f"{self.kind}, {self.datapath}"


_PORTS = tuple(
    Port(number, kind, datapath)
    for number, (kind, datapath) in enumerate(
        (kind, datapath) for kind in ("bridge", "macvlan", "ipvlan") for datapath in ("hybrid", "python")
    )
)
_MAKE = {"macvlan": "type macvlan mode bridge", "ipvlan": "type ipvlan mode l2"}


class Stations(Scene):
    kinds = ("veth",)

    def build(self) -> str:
        ground = self.ground
        self.ports = [port for port in _PORTS if ground.may(port.kind)]
        host = ground.topology.name("host")
        for port in self.ports:
            ground.cable(port.name, port.asker)
            ground.ip("upstream", f"address add {port.prefix}::1/64 dev {port.asker} nodad")
            if port.kind == "bridge":
                bridge, tap = f"br{port.number}", f"tap{port.number}"
                ground.ip(
                    "edge",
                    f"link add {bridge} type bridge mcast_snooping 0",
                    f"link add {tap} type veth peer name {port.station} netns {host}",
                    *(f"link set {each} master {bridge}" for each in (port.name, tap)),
                    *(f"link set {each} up" for each in (tap, bridge)),
                )
            else:
                words = f"link add link {port.name} name {port.station} netns {host} {_MAKE[port.kind]}"
                ground.ip("edge", words)
            ground.ip(
                "host", f"link set {port.station} up", f"address add {port.prefix}::50/64 dev {port.station} nodad"
            )
            ground.host(
                f"behind{port.number}",
                f"host{port.number}",
                f"address add {port.prefix}::42/128 dev host{port.number} nodad",
            )
            # The ground itself is right: nobody proxies yet.
            self._ask_for_station(port, "without the daemon")
            ground.ip("upstream", f"neigh flush dev {port.asker}")
        return "".join(
            interface(
                port.name,
                Rule(f"{port.prefix}::/64", "neighbour", f'via = ["behind{port.number}"]'),
                datapath=port.datapath,
            )
            for port in self.ports
        )

    def check(self) -> None:
        ground = self.ground
        for port in self.ports:
            # Answers are the bridge's, which is who receives what is sent to the host.
            edge = ground.mac(f"br{port.number}" if port.kind == "bridge" else port.name)
            wire = ground.wire(port.asker)
            ground.check(f"{port}: nobody", wire.silent(f"{port.prefix}::99"), SILENCE)
            self._ask_for_station(port, "beside the daemon")
            found = wire.ask(f"{port.prefix}::42", edge, tries=3, more=0.3)
            ground.check(f"{port}: the host behind us", found, ANSWER)
        if ground.may("ipvlan"):
            self._check_ipvlan_as_port()

    def _ask_for_station(self, port: Port, when: str) -> None:
        ground = self.ground
        (station,) = ground.topology.ip("host", "link", "show", "dev", port.station)
        found = kernel_asks(ground.topology, port.asker, f"{port.prefix}::50")
        ground.check(f"{port}: the station on the port, {when}", found, station["address"])

    def _check_ipvlan_as_port(self) -> None:
        """`name` = an ipvlan device: it is refused, or right."""
        ground, name = self.ground, "ipvlan0"
        ground.cable("lower0", "lower0-ask")
        ground.ip("edge", f"link add link lower0 name {name} type ipvlan mode l2", f"link set {name} up")
        done, words = ground.reload(interface(name, Rule("2001:db8:61::/64", "static")))
        print(f"        an ipvlan as the port: {'taken' if done else 'refused'}: {words}", flush=True)
        if done and ground.is_up(name):
            wire = ground.wire("lower0-ask")
            found = wire.ask("2001:db8:61::1", ground.mac(name), tries=2, seconds=1.0, more=0.3)
            ground.check("an ipvlan as the port: taken, so it answers", found, ANSWER)
            ground.check_soon("an ipvlan as the port: answers are counted", lambda: ground.answered(name), 1)
        else:
            ground.check("an ipvlan as the port: refused, with its name", name in words)
        ground.reload()
