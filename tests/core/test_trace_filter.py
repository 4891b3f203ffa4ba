# SPDX-License-Identifier: GPL-2.0-or-later
"""What `trace` is asked for on the command line: what is taken, and what to write instead of what isn't."""

from __future__ import annotations

from typing import Any

import pytest

from npd6_xdp.core.errors import UsageError
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.trace_filter import filter_of, number
from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.core.verdict import Outcome

KEYS = ("interface", "vlan", "target", "source", "outcome", "rule", "sample")


def asked(**given: str) -> Filter:
    return filter_of(**{key: given.get(key) for key in KEYS})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {}),
        ({"interface": "wan0", "rule": "interface:lan0"}, {"interface": "wan0", "rule": "interface:lan0"}),
        ({"interface": "a\\b"}, {"interface": r"a\x5cb"}),  # as core/names.py has it, however it is written
        ({"interface": r"a\x5cb"}, {"interface": r"a\x5cb"}),
        ({"interface": "a\udcff\x1b"}, {"interface": r"a\xff\x1b"}),
        ({"vlan": "untagged"}, {"vlan": ()}),
        ({"vlan": "any"}, {}),
        ({"vlan": "100.7"}, {"vlan": (100, 7)}),
        ({"target": "2001:db8:1::/64"}, {"target": Prefix.of("2001:db8:1::/64")}),
        ({"target": "2001:DB8::1"}, {"target": Prefix.of("2001:db8::1/128")}),
        ({"source": "::"}, {"source": Prefix.of("::/128")}),
        ({"source": "fe80::/10"}, {"source": Prefix.of("fe80::/10")}),
        ({"source": "02:00:00:00:AB:02"}, {"source_mac": bytes.fromhex("02000000ab02")}),
        (
            {"outcome": "absent, answered_xdp,absent"},
            {"outcomes": frozenset({Outcome.ABSENT, Outcome.ANSWERED_XDP})},
        ),
        ({"sample": "64"}, {"sample": 64}),
    ],
)
def test_a_value_is_read_into_the_filter(given: dict[str, str], wanted: dict[str, Any]) -> None:
    assert asked(**given) == Filter(**wanted)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"vlan": "4095"}, "--vlan 4095: VLAN 4095 is reserved (IEEE 802.1Q); write 1 to 4094"),
        ({"vlan": "blue"}, '--vlan blue: must be "untagged", "any", a VLAN such as 100, or two such as "100.7"'),
        ({"target": "2001:db8"}, "--target 2001:db8: write an IPv6 address or prefix, such as 2001:db8:1::/64"),
        ({"target": "192.0.2.1"}, "--target 192.0.2.1: write an IPv6 address or prefix"),
        ({"target": ""}, "--target : write an IPv6 address or prefix"),
        ({"target": "2001:db8::/129"}, "--target 2001:db8::/129: write an IPv6 address or prefix"),
        ({"target": "fe80::1%wan0"}, "--target fe80::1%wan0: leave the zone out, and name the --interface"),
        (
            {"target": "2001:db8:1::42/64"},
            "--target 2001:db8:1::42/64: its address has bits set behind its length: write 2001:db8:1::/64, or"
            " 2001:db8:1::42 for that alone",
        ),
        (
            {"source": "02:00:00:00:00"},
            "--source 02:00:00:00:00: write a MAC address such as 02:00:00:00:00:01, an IPv6 address or a prefix, such",
        ),
        ({"source": "02-00-00-00-00-01"}, "write a MAC address such as 02:00:00:00:00:01"),
        ({"source": "0200.0000.0001"}, "write a MAC address such as 02:00:00:00:00:01"),
        ({"outcome": "absent,gone"}, "--outcome absent,gone: 'gone' is none: name some of answered_xdp, "),
        ({"outcome": ""}, "--outcome : '' is none: name some of answered_xdp, "),
        ({"sample": "0"}, "--sample 0: write a number from 1 to 2,147,483,647"),
        ({"sample": "2147483648"}, "--sample 2147483648: write a number from 1 to 2,147,483,647"),
        ({"sample": "1e3"}, "--sample 1e3: write a number from 1 to 2,147,483,647"),
        ({"sample": "9" * 5000}, "write a number from 1 to 2,147,483,647"),
    ],
)
def test_a_bad_value_is_one_line_that_says_what_to_write(given: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(**given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_of_lines_is_from_1_on() -> None:
    assert number("--count", "1", 10) == 1
    for text in ("0", "11", "-1", "+1", "١", ""):
        with pytest.raises(UsageError, match=r"^--count .*: write a number from 1 to 10$"):
            number("--count", text, 10)
