# SPDX-License-Identifier: GPL-2.0-or-later
"""The package in ndppd's place, under a real systemd: units in the shapes of VyOS and of NixOS, but for one path."""

from __future__ import annotations

import shutil

import pytest

from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from tests.netns.ndppd_program import SHAPES
from tests.netns.service import left
from tests.netns.wire import Wire, question, until
from tests.roots import Root, fresh_root

PROGRAM = "/usr/lib/npd6-xdp/ndppd"
UNKNOWN = "2001:db8:2::7"
DROP_IN = "/usr/share/doc/npd6-xdp/examples/systemd/ndppd.conf"
VYOS = f"""
[Unit]
Description=NDP proxy
ConditionPathExists=/run/ndppd/ndppd.conf
[Service]
Type=forking
ExecStart={PROGRAM} -d -p /run/ndppd/ndppd.pid -c /run/ndppd/ndppd.conf
PIDFile=/run/ndppd/ndppd.pid
Restart=on-failure
RestartSec=20
"""
NIXOS = f"""
[Unit]
Description=NDP proxy
[Service]
ExecStart={PROGRAM} -c /etc/ndppd.conf
CapabilityBoundingSet=CAP_NET_RAW CAP_NET_ADMIN
ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
PrivateDevices=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectControlGroups=true
RestrictAddressFamilies=AF_INET6 AF_PACKET AF_NETLINK
RestrictNamespaces=true
LockPersonality=true
MemoryDenyWriteExecute=true
RestrictRealtime=true
RestrictSUIDSGID=true
"""


@pytest.mark.needs_table
def test_units_of_ndppds_run_it_with_another_path_and_what_the_drop_in_grants(
    installed: Root, topology: Topology
) -> None:
    before = left(topology)
    with fresh_root(over=installed, namespace=topology.name("edge"), boot=True) as root, Wire(topology) as wire:
        unit = root.path / "etc/systemd/system/ndppd.service"
        (root.path / "run/ndppd").mkdir()
        shutil.copy(SHAPES / "vyos.conf", root.path / "run/ndppd/ndppd.conf")
        unit.write_text(VYOS)
        root.systemctl("start", "ndppd")
        pid = root.systemctl("show", "--value", "--property=MainPID", "ndppd")
        assert root.run("cat", f"/proc/{pid}/comm").stdout.strip() == "ndppd"
        assert (root.path / "run/ndppd/ndppd.pid").read_text().strip() == pid
        assert wire.ask(question(UNKNOWN)) is not None
        assert wire.ask(question(HOST_ADDRESS)) is not None
        root.run("journalctl", "--sync")
        said = root.run("journalctl", "-u", "ndppd", "-o", "cat").stdout
        # behind warnings, where other tests fill the kernel's neighbour table
        told = root.run("npd6-xdp", "reload").stdout.splitlines()[-1]
        assert told == "npd6-xdp: the new configuration is in use: 3 rules on wan0"
        assert "ready: 3 rules on wan0" in said
        root.systemctl("stop", "ndppd")
        assert left(topology) == before

        shutil.copy(SHAPES / "nixos.conf", root.path / "etc/ndppd.conf")
        unit.write_text(NIXOS)
        root.run("install", "-Dm644", DROP_IN, "/etc/systemd/system/ndppd.service.d/npd6-xdp.conf")
        root.systemctl("daemon-reload")
        root.systemctl("start", "ndppd")
        assert until(lambda: wire.ask(question(HOST_ADDRESS), 0.5) is not None), root.run(
            "journalctl", "-u", "ndppd"
        ).stdout
        assert wire.ask(question(UNKNOWN)) is not None
        assert root.run("npd6-xdp", "status").stdout.startswith("working\nnpd6-xdp ")
        root.systemctl("stop", "ndppd")
        assert left(topology) == before
