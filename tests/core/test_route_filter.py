# SPDX-License-Identifier: GPL-2.0-or-later
"""The filter of route announcements, in the kernel: on a pair of sockets that carry what the kernel would announce."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Sequence

import pytest

from npd6_xdp.core import route_filter
from npd6_xdp.core.route_filter import Instruction, routes_that_concern
from npd6_xdp.core.rtnetlink import Flag, Type
from tests.core.test_routes import KERNEL, LAN, LOCAL, SAID, STATIC, WAN, Given, message

SO_ATTACH_FILTER = 26


def passing(program: Sequence[Instruction], sent: Iterable[bytes]) -> list[bytes]:
    """Which of some datagrams pass, each as far as it does."""
    code = route_filter.pack(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        right.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
        right.setblocking(False)
        found = []
        for datagram in sent:
            left.send(datagram)
            try:
                found.append(right.recv(65536))
            except BlockingIOError:
                continue
        return found


def announced(given: Given, kind: Type = Type.NEWROUTE, flags: int = 0) -> bytes:
    return message(kind, given.body(), 0, flags)


@pytest.mark.parametrize(("what", "route", "wanted", "flags"), SAID, ids=[what for what, *_ in SAID])
def test_a_route_passes_if_it_says_something_of_a_watched_interface_or_of_the_machine(
    what: str, route: Given, wanted: set[tuple[int, int]], flags: int
) -> None:
    for kind in (Type.NEWROUTE, Type.DELROUTE):
        datagram = announced(route, kind)
        passed = passing(routes_that_concern({WAN}), [datagram])
        assert passed == ([datagram] if wanted or flags else [])


def test_a_route_in_anothers_place_passes_whatever_it_says_and_so_does_what_is_no_route() -> None:
    replaced = announced(Given(1, ((LAN, 0),)), flags=Flag.REPLACE)
    others = [message(kind, bytes(12), 0) for kind in (Type.NEWRULE, Type.DELRULE, Type.NEWNEXTHOP, Type.DELNEXTHOP)]
    assert passing(routes_that_concern(()), [replaced, *others]) == [replaced, *others]


def test_several_paths_pass_since_the_filter_does_not_look_into_them() -> None:
    datagram = announced(Given(1, ((LAN, 1), (LAN, 2))))
    assert passing(routes_that_concern({WAN}), [datagram]) == [datagram]


MANY: tuple[tuple[str, Sequence[int], Sequence[int]], ...] = (
    # what, the watched ones, and others of which none may pass
    ("none", (), (0, 1, 2, 65535, 1 << 30)),
    ("one", (7,), (6, 8, 7 + 32, 7 << 8, 7 << 24)),
    ("large numbers", (1 << 30, (1 << 31) - 1), (1, (1 << 30) + 1, (1 << 30) - 1)),
    ("4,000 in a row", range(100, 4100), (1, 2, 99, 4100, 4101, 70_000)),
    ("4,000 of pairs", range(101, 8101, 2), (1, 2, 100, 102, 8100, 8102)),
    ("4,000 far apart", range(1000, 401_000, 100), (1, 2, 900, 401_000, 1 << 24)),
)


@pytest.mark.parametrize(("what", "watched", "others"), MANY, ids=[what for what, *_ in MANY])
def test_all_of_many_interfaces_pass_and_the_program_stays_small(
    what: str, watched: Sequence[int], others: Sequence[int]
) -> None:
    program = routes_that_concern(watched)
    assert len(program) < 900, "some kernels grant 20 KiB for the old and the new one"
    mine = [announced(Given(number, ((ifindex, 1),))) for number, ifindex in enumerate(watched)]
    assert passing(program, mine) == mine
    assert passing(program, [announced(Given(1, ((ifindex, 1),))) for ifindex in others]) == []


def test_signs_are_cut_to_a_header_and_nothing_is_nothing() -> None:
    datagram = announced(Given(1))
    assert passing(route_filter.SIGNS, [datagram, bytes(200)]) == [datagram[:16], bytes(16)]
    assert passing(route_filter.NOTHING, [datagram]) == []


def test_addresses_of_interfaces_never_pass_though_they_come_with_each_link() -> None:
    assert passing(routes_that_concern({WAN}), [announced(Given(1, ((1, 0),), 128, 0, LOCAL, KERNEL))]) == []
    assert passing(routes_that_concern({WAN}), [announced(Given(1, ((1, 0),), 128, 0, LOCAL, STATIC))]) != []
