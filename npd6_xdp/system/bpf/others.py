# SPDX-License-Identifier: GPL-2.0-or-later
"""Which programs the kernel has on an interface, by whomever, and whether one is another npd6-xdp's."""

from __future__ import annotations

import ctypes as ct
import os
import socket
from collections.abc import Set
from contextlib import suppress

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.link_messages import get_link, parse_link
from npd6_xdp.core.rtnetlink import Type, messages
from npd6_xdp.system.bpf.compiler import load_bcc

BPF_TCX_INGRESS = 46
"""tc's ingress, of enum bpf_attach_type."""
MOST_AT_TC = 63
"""Programs at one interface (BPF_MPROG_MAX, of which one place stays free)."""
OURS = frozenset({"ns_filter", "ns_filter_tc"})
"""Functions of the program, of which one sits on an interface."""
_LINK_BYTES = 1 << 16  # of what the kernel tells of one link: a few thousand
_PATIENCE = 1.0  # seconds; it answers at once


def other_of_us(ifindex: int, mode: AttachMode, ours: Set[int]) -> int:
    """The id of another npd6-xdp's program, where the kernel would let both sit on an interface and count the same
    frames: at least one of them by tc. 0: there is none, or names aren't told (without CAP_SYS_ADMIN). `ours` are this
    process's own, and its predecessor's.
    """
    xdp = filter(None, programs_on(ifindex)) if mode is AttachMode.TC else ()
    others = (program for program in (*xdp, *tc_programs(ifindex)) if program not in ours)
    return next((program for program in others if program_name(program) in OURS), 0)


def tc_programs(ifindex: int) -> list[int]:
    """The ids of the programs at the tc ingress of an interface, in their order; those of tc's filters (`tc filter`)
    come behind, and aren't among them. [] where the kernel doesn't tell.
    """
    ids, count = (ct.c_uint32 * MOST_AT_TC)(), ct.c_uint32(MOST_AT_TC)
    failed = load_bcc().lib.bpf_prog_query(ifindex, BPF_TCX_INGRESS, 0, ct.byref(ct.c_uint32()), ids, ct.byref(count))
    return [] if failed else list(ids[: count.value])


def program_name(program: int) -> str:
    """The name of a loaded program, by its id; "" without CAP_SYS_ADMIN, which looking at others' takes."""
    lib = load_bcc().lib
    fd = lib.bpf_prog_get_fd_by_id(program)
    if fd < 0:
        return ""
    info = ct.create_string_buffer(80)  # struct bpf_prog_info up to and with `name`
    length = ct.c_uint32(len(info))
    failed = lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(length))
    os.close(fd)
    return "" if failed else info.raw[64:80].rstrip(b"\0").decode(errors="replace")


def programs_on(ifindex: int) -> tuple[int, int, int]:
    """The ids of the programs that sit on an interface: native, generic, offloaded; 0 is none, or it isn't known.

    libbpf's bpf_xdp_query() has the kernel tell of all links for each that it is asked about: with 4,000 ports that
    took longer than a start may.
    """
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(_PATIENCE)
        asking.sendto(get_link(1, ifindex), (0, 0))
        for message in messages(asking.recv(_LINK_BYTES)):
            if message.type == Type.NEWLINK and (link := parse_link(message.body)) is not None:
                return link.xdp
    return 0, 0, 0
