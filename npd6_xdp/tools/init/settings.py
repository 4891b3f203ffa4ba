# SPDX-License-Identifier: GPL-2.0-or-later
"""Which sysctls a router takes: accept_ra first, and forwarding after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.names import word
from npd6_xdp.tools.init.machine import BareMachine
from npd6_xdp.tools.init.plan import Setting
from npd6_xdp.tools.init.uplinks import Uplink

_ALL = "conf/all/forwarding"


def settings(machine: BareMachine, ups: Sequence[Uplink], lans: Sequence[LinkEntry]) -> tuple[Setting, ...]:
    """What is to be set, in this order: while an interface forwards and its accept_ra is 1, the kernel throws away the
    default route that router advertisements gave there, and takes in no other (Documentation/networking/ip-sysctl.rst).
    """
    return tuple(setting for setting in lasting(machine, ups, lans) if setting.now != setting.value)


def lasting(machine: BareMachine, ups: Sequence[Uplink], lans: Sequence[LinkEntry]) -> tuple[Setting, ...]:
    """The same for the next boot, when what somebody has set by hand is as it was: forwarding without accept_ra = 2
    would cut this machine off then.
    """
    return (*_accepting(machine, ups), *_forwarding(machine, ups, lans))


def _accepting(machine: BareMachine, ups: Sequence[Uplink]) -> Iterator[Setting]:
    for up in ups:
        now = machine.sysctl(up.link, "accept_ra")
        # where they are ignored already, and nothing is lost by it, they stay so
        takes_in = machine.sysctl(up.link, "forwarding") != "1" and up.link.name in machine.heard
        if (now == "1" and (up.advertised or takes_in)) or (now == "2" and up.advertised):
            why = f"{up.link.name} goes on taking in router advertisements when it forwards"
            why += ": its default route comes by them" if up.advertised else ""
            yield Setting(f"conf/{up.link.name}/accept_ra", now, "2", why)


def _forwarding(machine: BareMachine, ups: Sequence[Uplink], lans: Sequence[LinkEntry]) -> Iterator[Setting]:
    now = machine.sysctls.get(_ALL, "")
    yield Setting(_ALL, now, "1", "this machine is a router: for its hosts, and for the proxy's method route")
    for link in (*(up.link for up in ups), *lans) if now == "1" else ():
        value = machine.sysctl(link, "forwarding")
        if value == "1":
            continue  # as all that appear, once the other one is set
        yield Setting(f"conf/{link.name}/forwarding", value, "1", f"{link.name} forwards as the others do")


def shown(key: str) -> str:
    """A sysctl's name, as sysctl(8) and sysctl.d(5) take it: with slashes, where an interface's name may have a dot."""
    return f"net/ipv6/{key}" if key != _ALL else "net.ipv6.conf.all.forwarding"


def ways_back(machine: BareMachine, done: Sequence[Setting]) -> list[str]:
    """The commands that undo settings, forwarding first."""
    back = [f"sysctl -w {word(f'{shown(setting.key)}={setting.now or 0}')}" for setting in reversed(done)]
    if any(setting.key == _ALL for setting in done):  # it is given to each interface, whatever that had before
        back += [
            f"sysctl -w {word(f'{shown(key)}=1')}"
            for key, value in sorted(machine.sysctls.items())
            if key.endswith("/forwarding") and value == "1" and key != _ALL
        ]
    return back
