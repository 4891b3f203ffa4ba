# SPDX-License-Identifier: GPL-2.0-or-later
"""Containers' devices on a port show by groups in its multicast filter that no interface here has joined."""

from __future__ import annotations

from pathlib import Path

import pytest

from npd6_xdp.core.steps import finish
from npd6_xdp.system.guests import ports_with_guests
from tests.core.test_steps import timed

FILTERS = """\
2    wan0            2     0     333300000001
2    wan0            2     0     01005e000001
2    wan0            1     0     3333ff7ca948
3    lan0            1     0     3333ff000001
"""
MEMBERSHIPS = """\
1    lo              ff020000000000000000000000000001     1 0000000C 0
2    wan0            ff0200000000000000000001ff7ca948     1 00000004 0
4    wan0.100        ff0200000000000000000001ff000001     1 00000004 0
"""


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (b"", set()),
        (b"2    wan0            1     0     3333ff000050\n", {2}),  # a container's
        (b"2    wan0            1     0     3333ff000001\n", set()),  # a VLAN device's of ours
        (b"2    wan0            1     0     3333000000fb\n", set()),  # mDNS, which a process here may listen to
        (b"cut short\n", set()),
        (b"7    a\xff\xc2\x85\xe2\x80\x83b 1     0     3333ff000050\n", {7}),  # a name that Linux takes
    ],
)
def test_a_port_with_groups_of_nobody_here_has_guests(tmp_path: Path, more: bytes, found: set[int]) -> None:
    filters, memberships = tmp_path / "dev_mcast", tmp_path / "igmp6"
    filters.write_bytes(FILTERS.encode() + more)
    memberships.write_text(MEMBERSHIPS)
    assert finish(ports_with_guests(filters, memberships)) == found


def test_where_the_kernel_does_not_tell_there_are_none(tmp_path: Path) -> None:
    assert finish(ports_with_guests(tmp_path / "no", tmp_path / "no")) == frozenset()


def test_what_is_left_or_joined_while_it_is_looked_for_is_ours(tmp_path: Path) -> None:
    """Between two bits, an address goes, or a link of many, and then the kernel tells of others by halves."""
    filters, memberships = tmp_path / "dev_mcast", tmp_path / "igmp6"
    filters.write_text(FILTERS)
    lines = MEMBERSHIPS.splitlines(keepends=True)
    for before, after in ((lines, lines[:2]), (lines[:2], lines)):
        memberships.write_text("".join(before))
        steps = ports_with_guests(filters, memberships)
        next(steps)
        memberships.write_text("".join(after))
        assert finish(steps) == set()


def test_of_many_groups_it_is_found_in_bits_wherever_a_piece_of_the_file_ends(tmp_path: Path) -> None:
    filters, memberships = tmp_path / "dev_mcast", tmp_path / "igmp6"
    groups = [(port, f"{port % 256:02x}{port // 256:02x}42") for port in range(2, 4_002)]
    filters.write_text("".join(f"{port}    p{port}    1     0     3333ff{group}\n" for port, group in groups).rstrip())
    joined = [f"{port} p{port} ff0200000000000000000001ff{group} 1 4 0\n" for port, group in groups if port % 100]
    memberships.write_text("".join(joined))
    _, (*bits, found) = timed(ports_with_guests(filters, memberships))
    assert found == {port for port, _ in groups if not port % 100}
    assert len(bits) >= 10
