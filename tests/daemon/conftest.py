# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports on a kernel and a card that are made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from npd6_xdp.daemon import attached_ports, ways
from npd6_xdp.daemon.ports import Ports
from tests.daemon.port_machine import Card, Machine, Netlink, NsFilter, Sockets


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    found = Card()
    monkeypatch.setattr(ways, "receive_vlan_offload", found)
    monkeypatch.setattr(attached_ports, "Sockets", Sockets)
    return found


@pytest.fixture
def attached(card: Card) -> Iterator[Ports]:
    with closing(Ports(NsFilter(), lambda: Netlink())) as found:  # type: ignore[arg-type,return-value]
        yield found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)
