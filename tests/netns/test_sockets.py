# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet sockets for more ports than there are sockets: each frame leaves by its own port."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.frames import STRIDE, Frames, Shape
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.sender import Outbox, Port, Sockets
from tests.bench.many_ports import make

COUNT = 40
SIZES = (86, 90, 94)


@pytest.fixture
def ports(topology: Topology) -> Iterator[tuple[Sockets, dict[int, Port], dict[int, str]]]:
    """Open ports by index, of one's own socket and of shared ones, and their names."""
    make(topology, COUNT)
    with topology.inside("edge"), closing(Sockets()) as sockets:
        names = {socket.if_nametoindex(f"sub{n}"): f"sub{n}" for n in range(COUNT)}
        yield sockets, {ifindex: sockets.open(name, ifindex) for ifindex, name in names.items()}, names


def receiver(topology: Topology) -> socket.socket:
    """Takes in all frames of one EtherType at the other ends of the cables."""
    with topology.inside("upstream"):
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
    found.settimeout(10.0)
    return found


def test_each_frame_of_an_outbox_leaves_by_its_port_whoever_shares_the_socket(
    topology: Topology, ports: tuple[Sockets, dict[int, Port], dict[int, str]]
) -> None:
    _, opened, names = ports
    assert len({port.way.fileno() for port in opened.values()}) < COUNT
    frames = Frames(COUNT)
    outbox = Outbox(frames)
    with receiver(topology) as arriving:
        for turn in range(2):  # the second time, each place is another port's
            order = [*opened] if turn else [*reversed(opened)]
            frames.clear()
            for place, ifindex in enumerate(order):
                size = SIZES[place % len(SIZES)]
                frames.shapes.append(Shape(0, ifindex, size))
                frame = bytes(12) + b"\x88\xb5" + struct.pack("=Ii", turn, ifindex)
                frames.buffer[place * STRIDE : place * STRIDE + size] = frame.ljust(size, b"\0")
            outbox.prepare()
            for place, ifindex in enumerate(order):
                assert outbox.send(opened[ifindex].way, place, place + 1) == []
            for _ in order:
                frame, (name, *_) = arriving.recvfrom(256)
                sent_in, ifindex = struct.unpack_from("=Ii", frame, 14)
                assert (sent_in, names[ifindex]) == (turn, name)
                assert len(frame) == SIZES[order.index(ifindex) % len(SIZES)]


def test_a_single_frame_leaves_by_its_port_and_what_is_down_refuses_it(
    topology: Topology, ports: tuple[Sockets, dict[int, Port], dict[int, str]]
) -> None:
    _, opened, names = ports
    first, *_, last = opened
    with receiver(topology) as arriving:
        for ifindex in (first, last):
            assert opened[ifindex].send(bytes(12) + b"\x88\xb5" + bytes(72))
            assert arriving.recvfrom(256)[1][0] == names[ifindex]
    for ifindex in (first, last):
        topology.run("edge", "ip", "link", "set", names[ifindex], "down", check=True)
        assert not opened[ifindex].send(bytes(86))


def test_each_port_has_one_hold_on_multicast_and_gives_it_back_alone(
    topology: Topology, ports: tuple[Sockets, dict[int, Port], dict[int, str]]
) -> None:
    sockets, opened, _ = ports

    def holds() -> list[int]:
        links = {link["ifindex"]: link["allmulti"] for link in topology.ip("edge", "link", "show")}
        return [links[ifindex] for ifindex in opened]

    assert holds() == [1] * COUNT
    first, *_, last = opened
    opened[last].hold_again("last")
    assert holds() == [1] * COUNT
    for ifindex in (first, last):
        sockets.close_port(opened[ifindex])
    assert holds() == [0, *[1] * (COUNT - 2), 0]
    opened[first] = sockets.open("first", first)
    assert opened[first].way.bound == first, "a socket of its own is free again"
    count = len({port.way.fileno() for port in opened.values()})
    began = time.monotonic()
    sockets.close()
    took = time.monotonic() - began
    assert took < 1.0 or took < one_by_one(topology, count) / 2, "the sockets wait for the kernel together"
    assert holds() == [0] * COUNT


def one_by_one(topology: Topology, count: int) -> float:
    """How long it takes now to close so many sockets in turn, each of which waits for the kernel."""
    with topology.inside("edge"):
        sockets = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in range(count)]
    began = time.monotonic()
    for each in sockets:
        each.close()
    return time.monotonic() - began


def test_where_an_interface_is_gone_the_reason_names_it_and_no_socket_stays(topology: Topology) -> None:
    with topology.inside("edge"), closing(Sockets()) as sockets:
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(MachineError, match="gone0: can't open a packet socket on it: No such device"):
            sockets.open("gone0", 4711)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
