# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon that has ended has left in the kernel, taken away where nobody is to take it over."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

from npd6_xdp.core.mrd_left import unpack
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.daemon import left_targets, mrd
from npd6_xdp.daemon.documents import samples_file
from npd6_xdp.system import claims
from npd6_xdp.system.mrd import end_announced
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.sysctl import Memory, Sysctls


class TakenAway(NamedTuple):
    """How many host routes, proxy entries and sysctls, and in how many segments a multicast router was announced.

    `others` are the processes of daemons that live, to whom all but the dead ones' sysctls and announcements was left.
    """

    routes: int
    proxy_entries: int
    sysctls: int
    routers: int
    others: list[int]


def clean() -> TakenAway:
    """Take it away in this network namespace. Raises MachineError where the kernel can't be asked.

    Routes and proxy entries bear our number, and not their daemon's: where another lives, they may be its.
    """
    routes = proxy_entries = 0
    left_targets.file().remove()
    samples_file().remove()
    claims.remove()
    announced = mrd.file()
    routers = end_announced(unpack(announced.read() or b""))
    announced.remove()
    with closing(Memory()) as memory, closing(Requests()) as requests:
        if not memory.others:
            for host, table in requests.host_routes().items():
                routes += requests.delete_host_route(host, table) == 0
            for host, protocol in requests.proxy_entries().items():
                if protocol == PROTOCOL:
                    proxy_entries += requests.delete_proxy(host) == 0
        sysctls = Sysctls(memory)
        count = len(sysctls)
        sysctls.put_back()
        return TakenAway(routes, proxy_entries, count, routers, memory.others)
