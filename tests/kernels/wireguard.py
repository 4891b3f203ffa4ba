# SPDX-License-Identifier: GPL-2.0-or-later
"""A WireGuard client behind this router, as docs/recipes/wireguard.md has it: a real peer, and a real tunnel."""

from __future__ import annotations

import re
import shutil
import subprocess
from ipaddress import IPv6Interface
from pathlib import Path

from npd6_xdp.lab.topology import Namespace
from tests import recipes
from tests.kernels.ground import Rule, beside, until
from tests.kernels.machine import init, ping
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE

_PORTS = {"wgwan0": "hybrid", "wgwan1": "python"}
_NAME = "wg1"  # the page's wg0; the scene `tunnels` has one of that name
_SERVER, _CLIENT = "192.0.2.1", "192.0.2.2"  # the tunnel's outer addresses
_HANDSHAKE = 60.0  # seconds


class WireGuard(Scene):
    kinds = ("wireguard",)

    def build(self) -> str:
        ground = self.ground
        if shutil.which("wg") is None:
            raise FileNotFoundError("wg(8) is missing: apt-get install wireguard-tools")
        page = recipes.page("wireguard")
        (its,) = page.config.interfaces
        (rule,) = its.rules
        (self.target,) = page.pinged
        (self.server,) = (found[1] for step in page.setup if (found := re.match(r"ip -6 addr add (\S+) dev wg0", step)))
        (self.outside,) = recipes.SCENES["wireguard"].absent
        for port in _PORTS:
            ground.cable(port, f"{port}-ask")
        ground.host("wg-lower", "wg-client", f"address add {_CLIENT}/24 dev wg-client")
        ground.ip("edge", f"address add {_SERVER}/24 dev wg-lower")
        private, public = zip(*(self._keys() for _ in range(2)), strict=True)
        ground.ip("edge", f"link add {_NAME} type wireguard")
        self._set("edge", f"{private[0]}\nListenPort = 51820", f"{public[1]}\nAllowedIPs = {self.target}/128")
        ground.ip("edge", f"address add {self.server} dev {_NAME}", f"link set {_NAME} up")
        ground.ip("host", f"link add {_NAME} type wireguard")
        peer = f"{public[0]}\nAllowedIPs = ::/0\nEndpoint = {_SERVER}:51820\nPersistentKeepalive = 2"
        self._set("host", private[1], peer)
        ground.ip(
            "host",
            f"address add {self.target}/128 dev {_NAME}",
            f"link set {_NAME} up",
            f"route replace 2001:db8:70::/44 dev {_NAME}",
        )
        for number, port in enumerate(_PORTS):
            # Whose question it is, and where the client's answer goes.
            ground.ip("upstream", f"address add 2001:db8:7{number}::1/64 dev {port}-ask nodad")
            ground.ip("edge", f"address add 2001:db8:7{number}::2/64 dev {port} nodad")
        ours = Rule(rule.prefix, rule.method.value, f'via = ["{_NAME}"]')
        return "".join(beside(port, ours, datapath=datapath) for port, datapath in _PORTS.items())

    def check(self) -> None:
        ground = self.ground
        for port, datapath in _PORTS.items():
            ask, mac = f"{port}-ask", ground.mac(port)
            wire = ground.wire(ask)
            ground.check(f"{datapath}: the client's address", wire.ask(self.target, mac), ANSWER)
            ground.check(f"{datapath}: what no tunnel leads to", wire.silent(self.outside), SILENCE)
            ground.ip("upstream", f"route replace {self.target}/128 dev {ask}")
            pong = until(lambda ask=ask: ping(ground.topology, "upstream", self.target, ask), _HANDSHAKE)  # type: ignore[misc]
            ground.check(f"{datapath}: the upstream reaches the client through the tunnel", pong)
        transferred = ground.topology.run("edge", "wg", "show", _NAME, "transfer").stdout.split()
        ground.check("the tunnel has carried it, both ways", [int(each) > 0 for each in transferred[1:]], [True, True])
        behind = IPv6Interface(self.server).network
        rule = f'prefix = "{behind}"\nmethod = "route"\nvia = ["{_NAME}"]\n'
        ground.check(
            "init finds the clients' prefix, and that they are behind the tunnel", rule in init(ground.topology)
        )

    @staticmethod
    def _keys() -> tuple[str, str]:
        private = subprocess.run(("wg", "genkey"), capture_output=True, text=True, check=True).stdout
        public = subprocess.run(("wg", "pubkey"), input=private, capture_output=True, text=True, check=True).stdout
        return private.strip(), public.strip()

    def _set(self, namespace: Namespace, interface: str, peer: str) -> None:
        """What the page's `wg setconf wg0 /etc/wireguard/wg0.conf` does, with a file for each side."""
        file = Path(self.ground.topology.directory / f"wg-{namespace}.conf")
        file.write_text(f"[Interface]\nPrivateKey = {interface}\n[Peer]\nPublicKey = {peer}\n")
        self.ground.topology.run(namespace, "wg", "setconf", _NAME, str(file), check=True)
