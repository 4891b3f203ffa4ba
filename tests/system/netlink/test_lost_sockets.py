# SPDX-License-Identifier: GPL-2.0-or-later
"""A netlink socket that gives nothing but errors: a reason that is raised, and never a loop without end."""

from __future__ import annotations

import errno
import math
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, NoReturn

import pytest

from npd6_xdp.core import link_messages, rtnetlink
from npd6_xdp.core.errors import BrokenSource, MachineError
from npd6_xdp.system.netlink.dumps import Dump
from npd6_xdp.system.netlink.host_routes import HostRouteWatch
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.netlink.neighbours import NeighbourWatch
from npd6_xdp.system.netlink.nlsocket import Overflow
from npd6_xdp.system.netlink.router import Router
from npd6_xdp.system.netlink.routes import RouteWatch


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    def too_long(*_: object) -> NoReturn:
        raise AssertionError("it goes on for ever")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, 120)
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
        monkeypatch.setattr(room._changes, "socket", broken)
        with pytest.raises(BrokenSource, match="Bad file descriptor"):
            read(room)


def test_a_group_that_is_broken_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (NeighbourWatch, HostRouteWatch):
        watch: Any = kind
        group = (watch() if kind is NeighbourWatch else watch(1))._changes
        group.socket.close()
        with pytest.raises(BrokenSource, match="Bad file descriptor"):
            list(group.take_messages(math.inf))


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
            monkeypatch.setattr(room._changes, "socket", Full())
            room.on_change()
    group = NeighbourWatch()._changes
    monkeypatch.setattr(group, "socket", Full())
    with pytest.raises(Overflow):
        list(group.take_messages(math.inf))


def test_what_was_lost_and_could_not_be_read_then_is_read_when_next_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Netlink, Router):
        with closing(kind()) as room:
            read = room._read
            refused: list[int] = []

            def refuse(refused: list[int] = refused) -> NoReturn:
                refused.append(1)
                raise MachineError("not now")

            monkeypatch.setattr(room, "_read", refuse)
            monkeypatch.setattr(room._changes, "lost", True)
            for _ in range(2):
                with pytest.raises(MachineError, match="not now"):
                    room.on_change()
            monkeypatch.setattr(room, "_read", lambda read=read, refused=refused: (read(), refused.append(1)))
            room.on_change()
            room.on_change()
            assert len(refused) == 3


def test_refusals_that_cannot_be_heard_are_a_broken_source_and_no_silence() -> None:
    watch = NeighbourWatch()
    watch._requests.close()
    with pytest.raises(BrokenSource, match="Bad file descriptor"):
        list(watch.take_refusals(math.inf))


def test_a_long_answer_comes_in_pieces() -> None:
    with closing(Dump()) as dump:
        with pytest.raises(BlockingIOError):
            dump.recv()
        for number in (1, 2):
            dump.send(link_messages.dump_links(number))
            found: list[rtnetlink.Message] = []
            while not found or found[-1].type != rtnetlink.Type.DONE:
                assert select.select([dump], [], [], 60.0)[0]
                with suppress(BlockingIOError):  # it has just been taken
                    found += rtnetlink.messages(dump.recv())
            assert {message.sequence for message in found} == {number}


def test_a_piece_that_comes_while_another_is_looked_for_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Dump()) as dump:
        read = os.eventfd_read

        def late(fd: int) -> int:
            if not dump._pieces:
                dump._pieces.extend([b"one", b"two"])  # as by the thread, between the look and this
                os.eventfd_write(dump._told, 2)
            return read(fd)

        monkeypatch.setattr(os, "eventfd_read", late)
        assert dump.recv() == b"one"
        monkeypatch.undo()
        assert select.select([dump], [], [], 0)[0], "there is another"
        assert dump.recv() == b"two"
        with pytest.raises(BlockingIOError):
            dump.recv()


class Broken:
    """A socket that nothing can be received from."""

    def __init__(self, whole: socket.socket, code: int) -> None:
        self.fileno, self.send, self.close = whole.fileno, whole.send, whole.close
        self.code = code

    def recv(self, _: int) -> NoReturn:
        raise OSError(self.code, os.strerror(self.code))


def test_a_long_answer_of_a_broken_socket_says_so_each_time_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    dump = Dump()
    with closing(dump):
        monkeypatch.setattr(dump, "_socket", Broken(dump._socket, errno.EIO))
        dump.send(link_messages.dump_links(1))
        for _ in range(3):
            assert select.select([dump], [], [], 60.0)[0]
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                dump.recv()
    for fd in (dump._told, dump._ending):
        assert fd == -1


def test_a_long_answer_that_the_kernel_had_no_memory_for_can_be_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dump = Dump()
    whole = dump._socket
    with closing(dump):
        monkeypatch.setattr(dump, "_socket", Broken(whole, errno.ENOBUFS))
        for number in (1, 2):
            dump.send(link_messages.dump_links(number))
            assert select.select([dump], [], [], 60.0)[0]
            with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
                dump.recv()
            with pytest.raises(BlockingIOError):
                dump.recv()
            assert not select.select([dump], [], [], 0)[0], "nothing that would have a loop spin"
        monkeypatch.setattr(dump, "_socket", whole)
        dump.send(link_messages.dump_links(3))
        assert select.select([dump], [], [], 60.0)[0]
        assert list(rtnetlink.messages(dump.recv()))
