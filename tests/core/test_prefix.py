# SPDX-License-Identifier: GPL-2.0-or-later
"""Prefixes as numbers: the same as the standard library's."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npd6_xdp.core.prefix import Prefix, of_range, read_plain

numbers = st.integers(0, 2**128 - 1) | st.integers(0, 40) | st.integers(2**128 - 40, 2**128 - 1)
networks = st.builds(lambda n, length: IPv6Network((n, length), strict=False), numbers, st.integers(0, 128))


@given(
    st.text("0123456789abcdefABCDEFxg:/._-+% ", max_size=45)
    | st.from_regex(r"([0-9a-fA-F]{1,5}:|::?){1,9}[0-9a-f]{0,4}(/[0-9]{1,3})?", fullmatch=True)
    | networks.map(str)
    | networks.map(lambda network: network.exploded.upper())
    | numbers.map(lambda number: str(IPv6Address(number)))
)
@example("1:2:3:4:5:6:7::")
@example("1:2:3:4:5:6:7:8::")
@example("::/0")
@example("0x1::")
@example("١::")
@example("")
@example("::1/")
@example("::1/064")
@example("2001:db8::1/64")
def test_what_is_read_in_a_hurry_is_what_ipaddress_reads(text: str) -> None:
    found = read_plain(text)
    try:
        wanted = IPv6Network(text)
    except ValueError:
        assert found is None
    else:
        assert found in (None, Prefix.of(wanted))


@given(networks, st.booleans())
def test_what_is_written_as_usual_is_read_in_a_hurry(network: IPv6Network, compressed: bool) -> None:
    assert read_plain(str(network) if compressed else network.exploded) == Prefix.of(network)


@given(numbers, numbers)
def test_a_range_is_summarized_as_by_ipaddress(one: int, other: int) -> None:
    first, last = sorted((one, other))
    wanted = ipaddress.summarize_address_range(IPv6Address(first), IPv6Address(last))
    assert list(of_range(first, last)) == [Prefix.of(network) for network in wanted]


@given(networks, networks)
def test_prefixes_hold_one_another_and_sort_as_networks_do(one: IPv6Network, other: IPv6Network) -> None:
    a, b = Prefix.of(one), Prefix.of(other)
    assert a.covers(b) == other.subnet_of(one)
    assert (a < b) == (one < other)
    assert a.ends == (int(one.network_address), int(one.broadcast_address))
    assert (str(a), a.network) == (str(one), one)


@pytest.mark.parametrize(
    ("text", "why"), [("2001:db8::1/64", "has host bits set"), ("wan0", "3 parts"), ("::/129", "not a valid netmask")]
)
def test_what_is_no_prefix_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Prefix.of(text)
