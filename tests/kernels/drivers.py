# SPDX-License-Identifier: GPL-2.0-or-later
"""Network cards as QEMU has them, and a bond of two: in which mode the program runs, whether it answers, what is said;
a virtio_net card that begins with an MTU for which its driver refuses the program; one of vmxnet3 that takes tags out
of the frames, and has a VLAN; and cards that keep back frames of a VLAN that they weren't told of.

deploy/kernels.sh puts the cards in, in pairs on a cable: 02:00:00:d0:NUMBER:0e is the edge's end, :0a the asker's,
whose driver is always virtio_net. The last two cables are the bond's.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from npd6_xdp.core.attached import attached_words
from npd6_xdp.lab.topology import Namespace
from tests.kernels.ground import Rule, interface, until
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE, Wire

_CARDS = Path("/sys/class/net")
_BOND = "cardbond"
_PREFIX, _TAGGED, _UNKNOWN = "2001:db8:60", "2001:db8:60:100", "2001:db8:60:200"
_TAKES_TAGS = "vmxnet3"  # has native XDP, and takes tags out of the frames unless it is told not to
_FILTER = "vmxnet3"  # keeps back VLANs that it wasn't told of; e1000e's driver says so, too, and QEMU's card doesn't
_CARRIER = 30.0  # seconds
_SOON = 120.0  # seconds in which a port is looked at again: at once, or a minute after it has moved before
_LARGE = 9000  # bytes: an MTU that takes a frame of several pages, for which a program would have to be made
_MORE = 0.3  # seconds for which a second answer is waited for


class Card(NamedTuple):
    """An end of a cable: which cable, the interface's name, its driver's."""

    cable: int
    name: str
    driver: str


class Drivers(Scene):
    kinds = ("bond", "vlan")

    def build(self) -> str:
        ground = self.ground
        self.targets = 0
        edge, upstream = self._cards("0e"), self._cards("0a")
        if len(edge) < 3 or len(edge) != len(upstream):
            raise RuntimeError("the cards are missing: deploy/kernels.sh --scene drivers puts them in")
        self.cards, slaves = edge[:-2], edge[-2:]
        for card in edge:
            self._move(card, "edge", self._name(card))
        for card in upstream:
            self._move(card, "upstream", f"a{card.cable}")
        self.large = next(self._name(card) for card in self.cards if card.driver == "virtio_net")
        ground.ip("edge", f"link set {self.large} mtu {_LARGE}")
        ground.ip("edge", *(f"link set {self._name(card)} up" for card in self.cards))
        self.trunk = next((self._name(card) for card in self.cards if card.driver == _TAKES_TAGS), "")
        if self.trunk:  # a device, or the card's filter would keep back what isn't of a VLAN that it knows
            ground.ip("edge", f"link add link {self.trunk} name {self.trunk}.100 up type vlan id 100")
        ground.ip("edge", f"link add {_BOND} type bond mode active-backup miimon 100")
        ground.ip("edge", *(f"link set {self._name(card)} master {_BOND}" for card in slaves), f"link set {_BOND} up")
        # Last: what a card sends to one that isn't up yet would wait in QEMU's hub, and what comes after it, too.
        # Promiscuous, since a bond is asked by one MAC address on both of its cables, and cards have filters.
        ground.ip("upstream", *(f"link set a{card.cable} promisc on up" for card in upstream))
        if self.trunk:
            under = self.trunk.replace("e", "a")
            ground.ip("upstream", f"link add link {under} name {under}.100 up type vlan id 100")
            self.untagged, self.tagged = ground.wire(under), ground.wire(f"{under}.100")
        self.filtering = {card: f"a{card.cable}.200" for card in self.cards if card.driver == _FILTER}
        for card, asker in self.filtering.items():
            ground.ip("upstream", f"link add link a{card.cable} name {asker} up type vlan id 200")
        self.bond = ground.wire(*(f"a{card.cable}" for card in slaves))
        self.slaves = [self._name(card) for card in slaves]
        ports = [*(self._name(card) for card in self.cards), _BOND]
        text = "".join(interface(port, Rule(f"{_PREFIX}::/64", "static")) for port in ports)
        rule = Rule(f"{_UNKNOWN}::/64", "static")
        text += "".join(interface(self._name(card), rule, vlan=200) for card in self.filtering)
        return text + (interface(self.trunk, Rule(f"{_TAGGED}::/64", "static"), vlan=100) if self.trunk else "")

    def check(self) -> None:
        ground = self.ground
        self._check_mtu()
        for card in self.cards:
            port = self._name(card)
            self._ask(f"{card.driver}", port, ground.wire(f"a{card.cable}"), (0,))
        self._ask("a bond of two virtio_net", _BOND, self.bond, (0, 1))
        active = ground.link(_BOND)["linkinfo"]["info_data"].get("active_slave")
        lost = self.slaves.index(active) if active in self.slaves else 0
        ground.ip("edge", f"link set {self.slaves[lost]} down")
        until(
            lambda: ground.link(_BOND)["linkinfo"]["info_data"].get("active_slave") == self.slaves[1 - lost], _CARRIER
        )
        self._ask("a bond of two virtio_net, one of them down", _BOND, self.bond, (1 - lost,))
        ground.ip("edge", f"link set {self.slaves[lost]} up")
        if self.trunk and ground.has_tcx:
            self._check_tags(self.trunk)
        for card, asker in self.filtering.items():
            self._check_filter(self._name(card), card.driver, ground.wire(asker))
        for line in ground.daemon.log.splitlines():
            if any(word in line for word in (*(f"e{card.cable}:" for card in self.cards), _BOND, *self.slaves)):
                print(f"        {line}", flush=True)

    def _check_mtu(self) -> None:
        ground = self.ground
        ground.check_auto(self.large, "the driver refuses an XDP program in native mode: Invalid argument")
        ground.ip("edge", f"link set {self.large} mtu 1500")
        ground.check_soon("native, once its MTU is one of a page", lambda: self._attach(self.large), "native", _SOON)

    def _check_tags(self, port: str) -> None:
        """The first tagged question goes unanswered, and shows where its tag stands."""
        ground, mac = self.ground, self.ground.mac(port)
        ground.check("with a VLAN: native at first", self._attach(port), "native")
        self.tagged.silent(f"{_TAGGED}::1", seconds=1.0)
        ground.check_soon("with a VLAN: by tc, once a tag is seen beside a frame", lambda: self._attach(port), "tc")
        for what, wire, prefix in (("tagged", self.tagged, _TAGGED), ("untagged", self.untagged, _PREFIX)):
            ground.check(f"with a VLAN: a {what} question by tc", wire.ask(f"{prefix}::77", mac, tries=3), ANSWER)
        ground.topology.run("edge", "ethtool", "-K", port, "rxvlan", "off", check=True)
        ground.check_soon(
            "with a VLAN: native, once the card leaves tags in the frames", lambda: self._attach(port), "native", _SOON
        )
        found = self.tagged.ask(f"{_TAGGED}::78", mac, tries=3)
        ground.check("with a VLAN: a tagged question in native mode", found, ANSWER)

    def _check_filter(self, port: str, driver: str, wire: Wire) -> None:
        """What the card keeps back comes once it is promiscuous, and for good with the device that the warning says."""
        ground, mac, words = self.ground, self.ground.mac(port), "the card's VLAN filter is on (rx-vlan-filter)"

        def warned() -> list[str]:
            return [line for line in ground.status()["warnings"] if line.startswith(f"{port}: {words}")]

        def ask(number: int) -> object:
            return wire.ask(f"{_UNKNOWN}::{number:x}", mac, tries=3)

        ground.check(
            f"{driver}: a VLAN that the card wasn't told of: silence",
            wire.silent(f"{_UNKNOWN}::1", seconds=3.0),
            SILENCE,
        )
        ground.check(f"{driver}: the log says why", f"{port}: {words}" in ground.daemon.log)
        (line,) = warned()
        ground.ip("edge", f"link set {port} promisc on")
        ground.check(f"{driver}: promiscuous, it is answered", ask(2), ANSWER)
        ground.check_soon(f"{driver}: promiscuous, nothing is warned of", warned, [])
        ground.ip("edge", f"link set {port} promisc off")
        ground.check_soon(f"{driver}: and as before, as before", warned, [line])
        ground.check(f"{driver}: silence again", wire.silent(f"{_UNKNOWN}::3", seconds=3.0), SILENCE)
        ground.topology.run("edge", "sh", "-c", line.rpartition(": ")[2], check=True)
        ground.check_soon(f"{driver}: nothing is warned of, once there is a device", warned, [])
        ground.check(f"{driver}: it is answered, once there is a device", ask(4), ANSWER)

    def _attach(self, port: str) -> str:
        return str(next(row["attach"] for row in self.ground.status()["interfaces"] if row["port"] == port))

    def _ask(self, what: str, port: str, wire: Wire, by: tuple[int, ...]) -> None:
        ground = self.ground
        until(lambda: "LOWER_UP" in ground.link(port)["flags"], _CARRIER)
        before, mac, found = ground.answered(port), ground.mac(port), SILENCE
        for _ in range(3):  # a card's first frames may be lost while its link comes up
            self.targets += 1
            found = wire.ask(f"{_PREFIX}::{self.targets:x}", mac, by=by, seconds=5.0, more=_MORE)
            if found != SILENCE:
                break
        ground.check(f"{what}: answered, {attached_words(self._attach(port))}", found, ANSWER)
        ground.check_soon(f"{what}: the answer is counted", lambda: ground.answered(port) - before, 1)

    @staticmethod
    def _cards(side: str) -> list[Card]:
        found = []
        for card in _CARDS.glob("*/"):  # bonding_masters is a file
            mac = (card / "address").read_text().strip().split(":")
            if mac[:4] == ["02", "00", "00", "d0"] and mac[5] == side:
                driver = (card / "device/driver").resolve().name
                found.append(Card(int(mac[4], 16), card.name, driver))
        return sorted(found)

    @staticmethod
    def _name(card: Card) -> str:
        return f"e{card.cable}"

    def _move(self, card: Card, namespace: Namespace, name: str) -> None:
        to = self.ground.topology.name(namespace)
        subprocess.run(("ip", "link", "set", card.name, "down", "netns", to, "name", name), check=True, timeout=60)
