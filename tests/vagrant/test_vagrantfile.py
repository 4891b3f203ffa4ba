# SPDX-License-Identifier: GPL-2.0-or-later
"""The Vagrantfile, as Vagrant itself reads it, against the lab's topology; test_machines.py runs what it says."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.lab import topology
from tests.roots import PROJECT
from tests.vagrant.machines import config, environment

SCRIPTS = PROJECT / "deploy/vagrant"
SHARED = {"common.sh", "demo.sh"}
"""What no machine is provisioned by."""

pytestmark = pytest.mark.skipif(shutil.which("vagrant") is None, reason="takes Vagrant: deploy/setup.sh --test")


@pytest.fixture(scope="module")
def machines() -> dict[str, Any]:
    return config()


def addresses() -> dict[str, str]:
    lines = (SCRIPTS / "topology.env").read_text().splitlines()
    return dict(line.split("=") for line in lines if "=" in line and not line.startswith("#"))


def wires(machines: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Who is on which network, with which MAC address."""
    found: dict[str, dict[str, str]] = {}
    for name, machine in machines.items():
        for network in machine["networks"]:
            if network["type"] == "private_network":
                found.setdefault(network["libvirt__network_name"], {})[name] = network["mac"]
    return found


def test_vagrant_finds_nothing_wrong() -> None:
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Vagrantfile validated successfully." in done.stdout


def test_the_wires_are_those_of_the_namespaces(machines: dict[str, Any]) -> None:
    mac = {key: value.replace(":", "") for key, value in addresses().items() if key.endswith("_MAC")}
    assert wires(machines) == {
        "npd6-xdp-wan": {"upstream": mac["UPSTREAM_MAC"], "edge": mac["EDGE_WAN_MAC"]},
        "npd6-xdp-lan": {"edge": mac["EDGE_LAN_MAC"], "host": mac["HOST_MAC"]},
        "npd6-xdp-mgmt": {"edge": mac["EDGE_MGMT_MAC"], "monitor": mac["MONITOR_MGMT_MAC"]},
    }


def test_the_addresses_are_those_of_the_namespaces() -> None:
    management = {key for key in addresses() if "MGMT" in key}
    assert {key: value for key, value in addresses().items() if key not in management} == {
        key: getattr(topology, key) for key in addresses() if key not in management
    }


def test_only_the_management_network_has_an_address_of_the_hypervisors(machines: dict[str, Any]) -> None:
    for name, machine in machines.items():
        for network in machine["networks"]:
            if network["type"] != "private_network":
                continue
            assert network["auto_config"] is False
            assert network["libvirt__dhcp_enabled"] is False
            if network["libvirt__network_name"] == "npd6-xdp-mgmt":
                assert network["ip"] == addresses()[f"{name.upper()}_MGMT_ADDRESS"]
                assert network["libvirt__forward_mode"] == "none"
            else:
                assert "ip" not in network
                assert network["virtualbox__intnet"] == network["libvirt__network_name"]
                assert network["libvirt__forward_mode"] == "veryisolated"


def test_virtualbox_passes_on_what_is_for_nobodys_address_on_the_wires_only(machines: dict[str, Any]) -> None:
    found = {
        name: [words[2:] for words in machine["customizations"] if words[2].startswith("--nicpromisc")]
        for name, machine in machines.items()
    }
    assert found == {
        "upstream": [["--nicpromisc2", "allow-vms"]],
        "edge": [["--nicpromisc2", "allow-vms"], ["--nicpromisc3", "allow-vms"]],
        "host": [["--nicpromisc2", "allow-vms"]],
        "monitor": [],
    }


def test_each_machine_has_its_script_and_each_script_its_machine(machines: dict[str, Any]) -> None:
    named = [line.removeprefix("bash /vagrant/") for machine in machines.values() for line in machine["scripts"]]
    assert sorted(named) == sorted(
        str(path.relative_to(PROJECT)) for path in SCRIPTS.glob("*.sh") if path.name not in SHARED
    )
    assert {name: machine["hostname"] for name, machine in machines.items()} == {name: name for name in machines}


def test_the_edge_has_its_metrics_where_the_monitor_asks() -> None:
    edge = tomllib.loads((SCRIPTS / "npd6-xdp.toml").read_text())
    assert edge["metrics"]["listen"] == f"{addresses()['EDGE_MGMT_ADDRESS']}:9846"


def test_the_manual_names_every_address() -> None:
    manual = Path(PROJECT / "docs/vagrant.md").read_text()
    assert [value for value in addresses().values() if value not in manual] == []
