# SPDX-License-Identifier: GPL-2.0-or-later
"""Which ports' cards may keep back frames that the configuration has entries for, and what mends that."""

from __future__ import annotations

from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.vlan_filter import Feature, KeptBack, Trunk, kept_back, unknown_trunks

MAC = bytes.fromhex("020000000002")
ENTRY = '[[interface]]\nname = "{}"\nvlan = {}\n[[interface.rule]]\nprefix = "2001:db8::/64"\nmethod = "static"\n'


def trunks(*vlans: str, name: str = "wan0", others: tuple[LinkFacts, ...] = (), **facts: Any) -> list[Trunk]:
    links = {each.name: each for each in (LinkFacts(name, 2, MAC, **facts), *others)}
    text = "".join(ENTRY.format(name, vlan) for vlan in vlans)
    return unknown_trunks(build(parse(text, "test"), links), links)


def found(trunk: Trunk, *, promiscuous: bool = False, **filters: Feature) -> KeptBack | None:
    return kept_back(trunk, lambda card: filters.get(card, Feature.OFF), lambda _: promiscuous)


@pytest.mark.parametrize(
    ("vlans", "devices", "ids"),
    [
        (('"untagged"',), (), None),
        (("100",), (), (100,)),
        (("100",), ((100,),), None),
        (("100",), ((7,),), (100,)),
        (("100", "7", '"untagged"'), ((7,),), (100,)),
        (('"100.7"',), (), (100,)),
        (('"100.7"', "100"), ((100,),), None),
        (('"7.100"',), ((100,),), (7,)),
        (('"any"',), (), ()),
        (('"any"',), ((100,),), None),
        (('"any"', "7"), ((100,),), (7,)),
    ],
)
def test_which_ids_no_device_has_told_the_card_of(
    vlans: tuple[str, ...], devices: tuple[tuple[int, ...], ...], ids: tuple[int, ...] | None
) -> None:
    its = trunks(*vlans, l3={(): 2, **{tags: 10 + number for number, tags in enumerate(devices)}})
    assert its == ([] if ids is None else [Trunk(2, "wan0", ids, ("wan0",))])


def test_of_bridges_ports_and_of_devices_without_a_card_there_is_nothing_to_say() -> None:
    assert trunks("100", bridge="br0") == []
    for kind in ("veth", "tun", "vlan", "macvlan"):
        assert trunks("100", kind=kind) == []


def test_a_bonds_slaves_are_the_cards_and_a_synthetic_devices_other_one_is_another() -> None:
    slaves = (LinkFacts("eth0", 3, MAC), LinkFacts("eth1", 4, MAC))
    assert trunks("100", kind="bond", lower=(3, 4), others=slaves)[0].cards == ("eth0", "eth1")
    assert trunks("100", lower=(3,), others=slaves)[0].cards == ("wan0", "eth0")
    (bond,) = trunks("100", kind="bond", lower=(3, 4), others=slaves)
    assert found(bond, wan0=Feature.ON) is None, "a bond has the switch, and no filter of its own"
    its = found(bond, eth1=Feature.FIXED)
    assert its is not None
    assert its.mend == ("ip link add link wan0 name wan0.100 up type vlan id 100",)


def test_nothing_is_kept_back_without_a_filter_or_by_a_promiscuous_card() -> None:
    (trunk,) = trunks("100")
    assert found(trunk) is None
    assert found(trunk, promiscuous=True, wan0=Feature.ON) is None
    its = found(trunk, wan0=Feature.ON)
    assert its is not None
    assert its.line == (
        "wan0: the card's VLAN filter is on (rx-vlan-filter), so it may keep back frames of VLAN 100, since there is no"
        " such VLAN device on wan0: ip link add link wan0 name wan0.100 up type vlan id 100"
    )


ALL_OFF = ("ethtool -K wan0 rx-vlan-filter off",)


@pytest.mark.parametrize(
    ("vlans", "card", "words", "mend"),
    [
        (('"any"',), Feature.ON, "keep back all frames with a tag, since there is no VLAN device on wan0", ALL_OFF),
        (('"any"',), Feature.FIXED, "all frames with a tag", ("ip link set dev wan0 promisc on",)),
        (
            ("100", "7"),
            Feature.FIXED,
            "frames of VLAN 7, 100, since",
            tuple(f"ip link add link wan0 name wan0.{vid} up type vlan id {vid}" for vid in (7, 100)),
        ),
        (tuple(map(str, range(1, 8))), Feature.ON, "frames of VLAN 1, 2, 3, 4, 5 and 2 more, since", ALL_OFF),
    ],
)
def test_what_mends_it(vlans: tuple[str, ...], card: Feature, words: str, mend: tuple[str, ...]) -> None:
    its = found(trunks(*vlans)[0], wan0=card)
    assert its is not None
    assert words in its.text
    assert its.mend == mend


def test_a_name_that_leaves_no_space_for_an_id_and_one_that_a_shell_would_run() -> None:
    its = found(trunks("100", name="a23456789012")[0], a23456789012=Feature.ON)
    assert its is not None
    assert its.mend == ("ip link add link a23456789012 name vlan100 up type vlan id 100",)
    its = kept_back(trunks("100", name="$(id)")[0], lambda _: Feature.ON, lambda _: False)
    assert its is not None
    assert its.mend == ("ip link add link '$(id)' name '$(id).100' up type vlan id 100",)
