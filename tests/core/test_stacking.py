# SPDX-License-Identifier: GPL-2.0-or-later
"""Which interfaces are on top of which: bridges, VLAN devices, bonds and their slaves, others behind a port."""

from __future__ import annotations

from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, InterfaceConfig
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.stacking import Stack, Stacking


def mac(ifindex: int) -> bytes:
    return bytes((2, 0, 0, 0, 0, ifindex))


def links(**named: dict[str, Any]) -> dict[str, LinkEntry]:
    """Links by name; `master` and `parent` are names, indexes come in the order given, from 1."""
    indexes = {name: number for number, name in enumerate(named, 1)}
    found = {}
    for name, keys in named.items():
        entry = LinkEntry(indexes[name], name, mac(indexes[name]), True, "", 0, 0, 0)
        places = {key: indexes[keys[key]] for key in ("master", "parent") if key in keys}
        changed: dict[str, Any] = keys | places
        found[name] = entry._replace(**changed)
    return found


def stack(port: str, machine: dict[str, LinkEntry]) -> Stack:
    found = Stacking({link.ifindex: link for link in machine.values()}).of(machine[port])
    names = {link.ifindex: name for name, link in machine.items()}
    assert set(found.l3.values()) <= names.keys()
    return found


def test_a_port_alone_takes_its_frames_in_by_itself_and_nobody_else_gets_them() -> None:
    assert stack("wan0", links(wan0={})) == Stack({(): 1}, {}, frozenset(), {}, (), False, {}, {})


def test_a_bridges_port_speaks_with_the_bridges_mac_and_shares_its_frames() -> None:
    found = stack("wan0", links(wan0={"master": "br0"}, br0={"kind": "bridge"}))
    assert (found.l3, found.bridge_macs, found.shared) == ({(): 2}, {(): mac(2)}, frozenset({()}))


def test_the_bridge_itself_shares_nothing() -> None:
    found = stack("br0", links(wan0={"master": "br0"}, br0={"kind": "bridge"}))
    assert (found.l3, found.bridge_macs, found.shared, found.lower) == ({(): 2}, {}, frozenset(), ())


def test_a_vlan_device_on_the_bridge_is_behind_the_bridge() -> None:
    machine = links(wan0={"master": "br0"}, br0={"kind": "bridge"}, v={"kind": "vlan", "vlan": 100, "parent": "br0"})
    found = stack("wan0", machine)
    assert found.l3 == {(): 2, (100,): 3}
    assert found.bridge_macs == {(): mac(2), (100,): mac(3)}
    assert found.shared == {(), (100,)}


def test_a_vlan_device_on_a_bridges_port_takes_its_frames_before_the_bridge_does() -> None:
    machine = links(
        wan0={"master": "br0"},
        br0={"kind": "bridge"},
        upper={"kind": "vlan", "vlan": 100, "parent": "br0"},
        here={"kind": "vlan", "vlan": 100, "parent": "wan0"},
    )
    found = stack("wan0", machine)
    assert found.l3 == {(): 2, (100,): 4}
    assert found.bridge_macs == {(): mac(2)}
    assert found.shared == {()}


def test_a_bridge_for_each_vlan_is_where_that_vlans_frames_come_in() -> None:
    """Proxmox' vmbr0v100: the VLAN device is the bridge's port."""
    machine = links(
        wan0={},
        v100={"kind": "vlan", "vlan": 100, "parent": "wan0", "master": "br100"},
        br100={"kind": "bridge"},
        v7={"kind": "vlan", "vlan": 7, "parent": "v100"},
    )
    found = stack("wan0", machine)
    assert found.l3 == {(): 1, (100,): 3, (100, 7): 4}
    assert found.bridge_macs == {(100,): mac(3)}
    assert found.shared == {(100,)}


@pytest.mark.parametrize("kind", ["macvlan", "macvtap", "ipvlan", "ipvtap"])
def test_devices_on_a_port_get_its_frames_as_well(kind: str) -> None:
    machine = links(wan0={}, guest={"kind": kind, "parent": "wan0"}, v={"kind": "vlan", "vlan": 100, "parent": "wan0"})
    found = stack("wan0", machine)
    assert found.riders[()] == (2,)
    assert () in found.shared


def test_devices_on_a_vlan_device_get_that_vlans_frames_only() -> None:
    machine = links(
        wan0={}, v={"kind": "vlan", "vlan": 100, "parent": "wan0"}, guest={"kind": "macvlan", "parent": "v"}
    )
    found = stack("wan0", machine)
    assert (found.riders, found.shared) == ({(100,): (3,)}, frozenset({(100,)}))


def test_an_open_vswitch_port_shares_its_frames() -> None:
    found = stack("wan0", links(wan0={"master": "ovs-system"}, **{"ovs-system": {"kind": "openvswitch"}}))
    assert (found.l3, found.bridge_macs, found.shared) == ({(): 1}, {}, frozenset({()}))


def test_a_ports_vrf_is_no_interface_that_its_frames_come_in_by() -> None:
    found = stack("wan0", links(wan0={"master": "red"}, red={"kind": "vrf"}))
    assert (found.l3, found.shared) == ({(): 1}, frozenset())


def test_a_bonds_frames_come_in_by_its_slaves_but_not_by_those_that_it_does_not_use() -> None:
    machine = links(
        bond0={"kind": "bond"},
        s0={"master": "bond0", "slave_kind": "bond"},
        s1={"master": "bond0", "slave_kind": "bond", "backup": True},
        s2={"master": "bond0", "slave_kind": "bond"},
        other={},
    )
    assert stack("bond0", machine).lower == (2, 4)
    assert stack("s0", machine).lower == ()


def test_a_synthetic_devices_frames_come_in_by_its_virtual_function() -> None:
    assert stack("eth0", links(eth0={}, vf={"master": "eth0"})).lower == (2,)


@pytest.mark.parametrize("kind", ["bridge", "vrf", "team", "openvswitch"])
def test_a_master_that_hands_no_program_down_gets_no_frames_by_its_ports_indexes(kind: str) -> None:
    assert stack("m", links(m={"kind": kind}, p={"master": "m"})).lower == ()


@pytest.mark.parametrize(("kind", "lossy"), [("veth", True), ("", False)])
def test_what_xdp_sends_back_may_be_lost_on_veth_and_on_a_bond_of_them(kind: str, lossy: bool) -> None:
    machine = links(bond0={"kind": "bond"}, s0={"master": "bond0", "kind": kind, "slave_kind": "bond", "backup": True})
    assert stack("bond0", machine).lossy is lossy
    assert stack("s0", machine).lossy is lossy
    assert ("bond of veths" in LinkFacts("bond0", 7, mac(7), kind="bond", lossy=lossy).why_lossy) is lossy


@pytest.mark.parametrize("kind", ["ipvlan", "ipvtap"])
def test_an_ipvlan_device_is_no_port_and_the_reason_names_the_way(kind: str) -> None:
    """Its parent keeps what is sent to hosts behind it, so to answer for them would lead nowhere."""
    facts = LinkFacts("guest0", 7, mac(7), kind=kind)
    assert "name the parent" in facts.why_no_port
    assert build(Config((InterfaceConfig("guest0", ()),)), {"guest0": facts}).entry_ids == {}
    assert LinkFacts("guest0", 7, mac(7), kind="macvlan").why_no_port == ""


def test_the_tags_of_a_vlan_are_as_its_devices_make_them_the_outermost_first() -> None:
    machine = links(
        wan0={},
        outer={"kind": "vlan", "vlan": 100, "parent": "wan0", "tpid": 0x88A8},
        inner={"kind": "vlan", "vlan": 7, "parent": "outer"},
        other={"kind": "vlan", "vlan": 8, "parent": "wan0", "master": "br0"},
        br0={"kind": "bridge"},
    )
    assert stack("wan0", machine).tpids == {(100,): (0x88A8,), (100, 7): (0x88A8, 0x8100), (8,): (0x8100,)}
