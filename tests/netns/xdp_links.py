# SPDX-License-Identifier: GPL-2.0-or-later
"""Which XDP link, and which program by it, is on an edge's ports: what a hand-over keeps, and what it replaces."""

from __future__ import annotations

import ctypes as ct
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.compiler import load_bcc
from tests.netns.wire import until

_XDP = 6  # BPF_LINK_TYPE_XDP
_INFO = struct.Struct("=III4xI4x")  # struct bpf_link_info: type, id, prog_id, xdp.ifindex


def _links() -> Iterator[tuple[int, int, int]]:
    """All XDP links of this machine: the id, the program's, and the interface's index in whatever namespace."""
    lib = load_bcc().lib
    number, info, length = ct.c_uint32(0), ct.create_string_buffer(_INFO.size), ct.c_uint32(_INFO.size)
    while lib.bpf_link_get_next_id(number, ct.byref(number)) == 0:
        fd = lib.bpf_link_get_fd_by_id(number)
        if fd < 0:
            continue  # it has gone
        failed = lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(length))
        os.close(fd)
        kind, link, program, ifindex = _INFO.unpack(info.raw)
        if not failed and kind == _XDP:
            yield link, program, ifindex


def link_ids(topology: Topology) -> dict[str, int]:
    """The link's id by the port's name. An index may be that of another namespace's, a program's id is this one's."""
    ports = {
        (each["ifindex"], each["xdp"]["prog"]["id"]): each["ifname"]
        for each in topology.ip("edge", "link", "show", "type", "veth")
        if each.get("xdp", {}).get("prog")
    }
    return {ports[ifindex, program]: link for link, program, ifindex in _links() if (ifindex, program) in ports}


def program_id(topology: Topology) -> int:
    """The id of the program on wan0."""
    (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
    return int(link["xdp"]["prog"]["id"])


@contextmanager
def handed_over(topology: Topology) -> Iterator[None]:
    """Within, another program comes to wan0, by the very link that was there before."""
    program, links = program_id(topology), link_ids(topology)
    assert "wan0" in links
    yield
    assert until(lambda: program_id(topology) != program)
    assert link_ids(topology) == links, "the program went, and came back"
