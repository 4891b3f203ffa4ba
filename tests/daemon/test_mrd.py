# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon that ends says of the multicast routers that it has announced (RFC 4286 §5)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.mrd import advertisement, termination
from npd6_xdp.daemon.mrd import RouterDiscovery
from npd6_xdp.daemon.ports import Ports
from tests.core.tables import own
from tests.daemon.forces import go_by, in_force
from tests.frames import ip6

WAN = LinkFacts("wan0", 7, bytes((2, 0, 0, 0, 0, 7)), addresses={(): own("fe80::7")}, l3={(): 7})
RULE = '[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "static"\n'
CONFIG = parse(f'[[interface]]\nname = "wan0"\nmulticast_router = true\n{RULE}', "test")
MESSAGE = (WAN.mac, ip6("fe80::7"))


class Sent(Ports):
    """A port that is attached, and what was sent by it."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def get(self, ifindex: int) -> SimpleNamespace:  # type: ignore[override]
        assert ifindex == WAN.ifindex
        return SimpleNamespace(generation=WAN.generation, socket=SimpleNamespace(send=self._send))

    def _send(self, frame: bytes) -> bool:
        self.frames.append(frame)
        return True


@pytest.fixture
def announced() -> Iterator[tuple[RouterDiscovery, Sent]]:
    with closing(RouterDiscovery(ports := Sent())) as discovery:
        go_by(discovery, in_force(build(CONFIG, {"wan0": WAN}), {"wan0": WAN}, CONFIG))
        discovery._announce(time.monotonic() + 3.0)
        assert ports.frames == [advertisement(*MESSAGE)]
        yield discovery, ports


def test_i6_who_ends_says_so(announced: tuple[RouterDiscovery, Sent]) -> None:
    discovery, ports = announced
    discovery.end()
    assert ports.frames[1:] == [termination(*MESSAGE)]


def test_i6_who_has_a_successor_says_nothing(announced: tuple[RouterDiscovery, Sent]) -> None:
    discovery, ports = announced
    discovery.end(leave=True)
    discovery.end()
    assert ports.frames[1:] == []
