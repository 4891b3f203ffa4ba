# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a multicast router is announced, and from which address (I1): of a configuration and the links' facts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

from npd6_xdp.core.build import build
from npd6_xdp.core.explain import table_text
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.mrd_segments import Segment, Segments, Sender, finding_segments
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from tests.core.tables import side, text
from tests.frames import ether, ip6

MAC, OTHER = ether("02:00:00:00:00:01"), ether("02:00:00:00:00:09")
RULE = 'prefix = "2001:db8:1::/64"; method = "static"'


def port(*addresses: str, **more: object) -> LinkFacts:
    return replace(side("wan0", 7, *addresses, mac=MAC), **more)  # type: ignore[arg-type]


def table(link: LinkFacts, *heads: str) -> Table:
    return build(text(*[f'name = "wan0"; {head}\n{RULE}' for head in heads]), {"wan0": link})


def found(link: LinkFacts, *heads: str) -> Segments:
    return finish(finding_segments(table(link, *heads), {"wan0": link}))


def test_i1_an_entry_with_the_key_is_announced_from_its_interfaces_link_local_address() -> None:
    link = port("2001:db8::1", "fe80::1", generation=3)
    assert found(link, "multicast_router = true") == Segments(
        {Segment(7, ()): Sender("wan0", MAC, ip6("fe80::1"), b"", 3)}, {}
    )
    assert found(link, "multicast_router = false") == found(link, 'vlan = "any"') == Segments({}, {})


def test_each_vlan_that_has_the_key_is_a_segment_of_its_own_with_its_tags_and_its_devices_addresses() -> None:
    link = port("fe80::1")
    own = (OwnAddress(IPv6Address("fe80::100")),)
    link = replace(link, addresses={**link.addresses, (200,): own}, l3={(): 7, (200,): 9}, tpids={(200,): (0x88A8,)})
    heads = [f"vlan = {vlan}; multicast_router = true" for vlan in ("100", '"100.7"', "200")]
    assert found(link, *heads).senders == {
        Segment(7, (100,)): Sender("wan0:100", MAC, ip6("fe80::1"), bytes.fromhex("81000064"), 0),
        Segment(7, (100, 7)): Sender("wan0:100.7", MAC, ip6("fe80::1"), bytes.fromhex("88a8006481000007"), 0),
        Segment(7, (200,)): Sender("wan0:200", MAC, ip6("fe80::100"), bytes.fromhex("88a800c8"), 0),
    }


def test_under_any_vlan_it_is_announced_untagged_and_in_each_vlan_that_has_a_device() -> None:
    link = port("fe80::1")
    own = (OwnAddress(IPv6Address("fe80::100")),)
    link = replace(link, addresses={**link.addresses, (100,): own}, l3={(): 7, (100,): 9})
    assert found(link, 'vlan = "any"; multicast_router = true').senders.keys() == {Segment(7, ()), Segment(7, (100,))}
    heads = ('vlan = "any"; multicast_router = true', "vlan = 100")
    assert found(link, *heads).senders.keys() == {Segment(7, ())}, "what an entry speaks for is left to it"


def test_a_bridges_port_is_announced_by_the_bridge() -> None:
    assert found(port("fe80::1", bridge_macs={(): OTHER}), "multicast_router = true").senders == {
        Segment(7, ()): Sender("wan0", OTHER, ip6("fe80::1"), b"", 0)
    }


def test_under_monitor_nothing_is_announced_and_that_is_said() -> None:
    head = 'datapath = "monitor"; multicast_router = true'
    assert found(port("fe80::1"), head) == Segments({}, {})
    assert table(port("fe80::1"), head).notes == (
        'wan0: multicast_router has no effect under datapath = "monitor": nothing is sent',
    )


def test_i1_a_virtual_address_that_comes_and_goes_changes_nothing_of_who_announces_himself() -> None:
    """As keepalived puts it on the port itself: each change of roles would begin all anew."""
    key, own = "multicast_router = true", OwnAddress(IPv6Address("fe80::ff:fe00:1"), by_kernel=True)
    backup, master = ((own,), (OwnAddress(IPv6Address("fe80::1")), own))
    assert found(port(addresses={(): master}), key) == found(port(addresses={(): backup}), key)
    assert found(port(addresses={(): master}), key).senders[Segment(7, ())].source == own.address.packed


def test_i6_without_an_address_or_a_link_it_waits_and_says_so_only_where_no_address_is_on_its_way() -> None:
    here, key = Segment(7, ()), "multicast_router = true"
    line = "wan0: no link-local address, so multicast_router announces nothing; it does once there is one"
    assert found(port("2001:db8::1"), key) == Segments({}, {here: line})
    tentative = (OwnAddress(IPv6Address("fe80::1"), usable=False),)
    assert found(port(addresses={(): tentative}), key) == Segments({}, {here: ""})
    assert found(port("fe80::1", up=False), key) == Segments({}, {here: ""})
    assert found(port(up=False), key) == Segments({}, {here: ""})


def test_check_says_where_a_router_is_announced() -> None:
    config = text(f'name = "wan0"; multicast_router = true\n{RULE}', f'name = "lan0"\n{RULE}')
    said = [line.endswith(", multicast_router yes") for line in table_text(config, {}).splitlines()]
    assert said[0]
    assert sum(said) == 1


def test_an_interface_that_is_away_is_no_segment() -> None:
    before = table(port("fe80::1"), "multicast_router = true")
    config = text(f'name = "wan0"; multicast_router = true\n{RULE}')
    away = build(config, {"lan0": side("lan0", 8)}, before)
    assert finish(finding_segments(away, {"lan0": side("lan0", 8)})) == Segments({}, {})
