# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host's addresses are good for: as the source of an answer, and as prefixes that a rule may follow."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.build import build
from npd6_xdp.core.links import OwnAddress, SourceFlag, advert_sources, choose_source, followed_prefixes, own_link_local
from npd6_xdp.core.prefix import Prefix
from tests.core.tables import config, facts, link, own, rule, side

SOURCES = (
    ("a link-local asker", "fe80::9", ("fe80::1", "2001:db8::1"), "fe80::1"),
    ("a probe's answer goes to all nodes", "ff02::1", ("2001:db8::1", "fe80::1"), "fe80::1"),
    ("a global asker", "2001:db8::9", ("fe80::1", "2001:db8::1"), "2001:db8::1"),
    ("the nearest of several", "2001:db8:2::9", ("2001:db8:1::1", "2001:db8:2::1"), "2001:db8:2::1"),
    ("none of the scope", "2001:db8::9", ("fe80::1",), "fe80::1"),
    ("no link-local one", "fe80::9", ("2001:db8::1",), None),
    ("none at all", "fe80::9", (), None),
)


@pytest.mark.parametrize(("what", "destination", "held", "wanted"), SOURCES, ids=[what for what, *_ in SOURCES])
def test_the_source_is_of_the_destinations_scope(
    what: str, destination: str, held: tuple[str, ...], wanted: str | None
) -> None:
    chosen = choose_source(own(*held), IPv6Address(destination))
    assert chosen == (IPv6Address(wanted) if wanted else None)


def test_a_tentative_address_is_no_source_and_a_deprecated_one_the_last() -> None:
    old = OwnAddress(IPv6Address("2001:db8::1"), deprecated=True)
    tentative = OwnAddress(IPv6Address("2001:db8::2"), usable=False)
    fresh = OwnAddress(IPv6Address("2001:db8:ffff::3"))
    destination = IPv6Address("2001:db8::9")
    assert choose_source([old, tentative, fresh], destination) == fresh.address
    assert choose_source([old, tentative], destination) == old.address


VIRTUAL, EUI64 = OwnAddress(IPv6Address("fe80::1")), OwnAddress(IPv6Address("fe80::ff:fe00:1"))
HOST_ROUTE = OwnAddress(IPv6Address("fe80::1"), 128)
KERNELS = OwnAddress(IPv6Address("fe80::abcd:1"), by_kernel=True)
OWN_LINK_LOCALS: tuple[tuple[str, tuple[OwnAddress, ...], OwnAddress | None], ...] = (
    ("the kernel's before all", (VIRTUAL, EUI64, KERNELS), KERNELS),
    ("without one, that of the MAC address", (VIRTUAL, EUI64), EUI64),
    ("else one with a prefix", (HOST_ROUTE, replace(KERNELS, by_kernel=False)), KERNELS),
    ("else the lowest", (replace(KERNELS, by_kernel=False), VIRTUAL), VIRTUAL),
    ("the only one", (HOST_ROUTE,), HOST_ROUTE),
    ("none that isn't confirmed", (VIRTUAL, replace(KERNELS, usable=False)), VIRTUAL),
    ("no global one", (OwnAddress(IPv6Address("2001:db8::1")),), None),
    ("none at all", (), None),
)


@pytest.mark.parametrize(("what", "held", "wanted"), OWN_LINK_LOCALS, ids=[what for what, *_ in OWN_LINK_LOCALS])
def test_an_interfaces_own_link_local_address_is_not_one_that_moves_between_machines(
    what: str, held: tuple[OwnAddress, ...], wanted: OwnAddress | None
) -> None:
    mac = bytes.fromhex("020000000001")
    for addresses in (held, held[::-1]):
        assert own_link_local(addresses, mac) == (wanted.address if wanted else None)


held_addresses = st.builds(
    OwnAddress,
    st.sampled_from(["fe80::1", "fe80::2", "2001:db8::1", "2001:db8:1::1", "fd00::1"]).map(IPv6Address),
    usable=st.booleans(),
    deprecated=st.booleans(),
)


@given(
    st.lists(held_addresses, max_size=5, unique_by=lambda held: held.address),
    st.sampled_from(["fe80::9", "2001:db8::9", "2001:db8:1::9", "fd00::9", "3000::1"]).map(IPv6Address),
)
def test_what_xdp_may_use_by_itself_is_what_would_have_been_chosen(
    held: list[OwnAddress], destination: IPv6Address
) -> None:
    table = build(config(rule("::/0")), {"wan0": link(tuple(held))})
    flags, link_local, other = advert_sources(table.entries[0].addresses)
    chosen = choose_source(held, destination)
    if destination.is_link_local and flags & SourceFlag.LINK_LOCAL:
        assert link_local == chosen
    if not destination.is_link_local and flags & SourceFlag.GLOBAL:
        assert other == chosen


def test_a_followed_interface_means_its_global_prefixes_each_once() -> None:
    links = facts(
        side("lan0", 8, "fe80::1/64", "2001:db8:1::1/64", "2001:db8:1::2/64", "fd00::1/48"), side("lan1", 9), link()
    )
    assert followed_prefixes(links) == {
        "wan0": (),
        "lan0": (Prefix.of("2001:db8:1::/64"), Prefix.of("fd00::/48")),
        "lan1": (),
    }
