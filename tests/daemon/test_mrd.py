# SPDX-License-Identifier: GPL-2.0-or-later
"""Multicast routers that are announced (RFC 4286): what a daemon that ends says of them, and one that can't listen."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Set
from contextlib import closing
from types import SimpleNamespace

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.mrd import advertisement, termination
from npd6_xdp.daemon.loop import Loop
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


def test_i5_a_socket_that_is_refused_is_tried_again_and_that_is_said_once(
    announced: tuple[RouterDiscovery, Sent], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    discovery, _ = announced
    followed: list[Set[int]] = []
    refused = [True, True, False, True]

    def follow(ports: Set[int]) -> None:
        followed.append(ports)
        if refused[len(followed) - 1]:
            raise MachineError("can't listen for Multicast Router Solicitations: No buffer space available")

    monkeypatch.setattr(discovery._heard, "follow", follow)
    caplog.set_level(logging.WARNING, "npd6-xdp")
    discovery._follow(100.0)
    with closing(Loop()) as loop:
        discovery.join(loop)
        assert discovery._follow_at == 110.0
        again = next(timer for timer in loop._timers if timer.due() == 110.0)
        again.call(110.0)
        assert discovery._follow_at == 120.0
        again.call(120.0)
        assert discovery._follow_at is None
    line = (
        "can't listen for Multicast Router Solicitations: No buffer space available; announcing by time only there, and"
        " trying again every 10 s"
    )
    assert [record.getMessage() for record in caplog.records] == [line]
    discovery._follow(200.0)
    assert len(caplog.records) == 2, "after it had worked it is news again"
    assert followed == [{WAN.ifindex}] * 4
