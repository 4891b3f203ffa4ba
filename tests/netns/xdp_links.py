# SPDX-License-Identifier: GPL-2.0-or-later
"""Which link, as XDP or at tc, and which program by it, is on an edge's ports: what a hand-over keeps and replaces."""

from __future__ import annotations

import ctypes as ct
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.bpf.others import program_name, tc_programs
from tests.netns.wire import until

_KINDS = (6, 11)  # BPF_LINK_TYPE_XDP, BPF_LINK_TYPE_TCX
_INFO = struct.Struct("=III4xI4x")  # struct bpf_link_info: type, id, prog_id, xdp.ifindex or tcx.ifindex


def _links() -> Iterator[tuple[int, int, int]]:
    """All such links of this machine: the id, the program's, and the interface's index in whatever namespace."""
    lib = load_bcc().lib
    number, info, length = ct.c_uint32(0), ct.create_string_buffer(_INFO.size), ct.c_uint32(_INFO.size)
    while lib.bpf_link_get_next_id(number, ct.byref(number)) == 0:
        fd = lib.bpf_link_get_fd_by_id(number)
        if fd < 0:
            continue  # it has gone
        failed = lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(length))
        os.close(fd)
        kind, link, program, ifindex = _INFO.unpack(info.raw)
        if not failed and kind in _KINDS:
            yield link, program, ifindex


def link_ids(topology: Topology) -> dict[str, int]:
    """The link's id by the port's name. An index may be that of another namespace's, a program's id is this one's."""
    veths = topology.ip("edge", "link", "show", "type", "veth")
    ports = {(each["ifindex"], each["xdp"]["prog"]["id"]): each["ifname"] for each in veths if _has_xdp(each)}
    with topology.inside("edge"):
        for each in veths:
            ports |= {(each["ifindex"], program): each["ifname"] for program in _ours_at_tc(each["ifindex"])}
    return {ports[ifindex, program]: link for link, program, ifindex in _links() if (ifindex, program) in ports}


def _has_xdp(link: dict[str, Any]) -> bool:
    return bool(link.get("xdp", {}).get("prog"))


def _ours_at_tc(ifindex: int) -> list[int]:
    return [program for program in tc_programs(ifindex) if program_name(program) == "ns_filter_tc"]


def program_id(topology: Topology) -> int:
    """The id of our program on wan0."""
    (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
    with topology.inside("edge"):
        at_tc = _ours_at_tc(socket.if_nametoindex("wan0"))
    return at_tc[0] if at_tc else int(link["xdp"]["prog"]["id"])


@contextmanager
def handed_over(topology: Topology) -> Iterator[None]:
    """Within, another program comes to wan0, by the very link that was there before."""
    program, links = program_id(topology), link_ids(topology)
    assert "wan0" in links
    yield
    assert until(lambda: program_id(topology) != program)
    assert link_ids(topology) == links, "the program went, and came back"
