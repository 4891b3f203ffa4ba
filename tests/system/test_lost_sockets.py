# SPDX-License-Identifier: GPL-2.0-or-later
"""A netlink socket that gives nothing but errors: a reason that is raised, and never a loop without end."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NoReturn

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.system.netlink import Netlink
from npd6_xdp.system.router import Router
from npd6_xdp.system.routes import RouteWatch
from npd6_xdp.system.rtnetlink import HostRouteWatch, NeighbourWatch, Overflow


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    def too_long(*_: object) -> NoReturn:
        raise AssertionError("it goes on for ever")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (Netlink, Netlink.on_change),
        (Router, Router.on_change),
        (RouteWatch, RouteWatch.on_change),
    ],
)
def test_a_socket_of_announcements_that_is_broken_is_a_machine_error(
    kind: type[Any], read: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(kind()) as room:
        broken = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        broken.close()
        monkeypatch.setattr(room, "_changes", broken)
        with pytest.raises(MachineError, match="Bad file descriptor"):
            read(room)


def test_a_group_that_is_broken_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (NeighbourWatch, HostRouteWatch):
        group = (kind() if kind is NeighbourWatch else kind(1))._changes
        group.socket.close()
        with pytest.raises(MachineError, match="Bad file descriptor"):
            list(group.messages(math.inf))


def test_announcements_that_were_dropped_are_no_error_but_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """Some were dropped; then nothing waits."""

        said = 0

        def recv(self, _: int) -> bytes:
            self.said += 1
            raise OSError(105, "No buffer space available") if self.said == 1 else BlockingIOError

        def close(self) -> None:
            """Nothing to close."""

    for kind in (Netlink, Router, RouteWatch):
        with closing(kind()) as room:
            monkeypatch.setattr(room, "_changes", Full())
            room.on_change()
    group = NeighbourWatch()._changes
    monkeypatch.setattr(group, "socket", Full())
    with pytest.raises(Overflow):
        list(group.messages(math.inf))
