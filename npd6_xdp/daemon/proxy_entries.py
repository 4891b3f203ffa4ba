# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `kernel` at work: the kernel's own proxy entries, added when asked for, aged, capped and taken back."""

from __future__ import annotations

import errno
import logging
import time
from ipaddress import IPv6Address

from npd6_xdp.core.config import Limits
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.logged import about_host, fields
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.proxy_entries import proxying_interfaces, via_set_of
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import PresentFlag, Rule
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.daemon.lines import Once
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.clock import machine_ns
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.sysctl import ALL_PROXY_NDP, PROXY_DELAY, PROXY_NDP, Memory, Setting, Sysctls

log = logging.getLogger("npd6-xdp")

# The kernel tells nobody of proxy entries and sysctls that change, so they are looked at every so many seconds, sooner
# where entries live shorter; and seldom enough that it takes no more than the share of our time that it may.
_LOOK = 2.0
_SHARE = 0.005


class ProxyEntries(Follower):
    """The proxy entries of ours. `refused` counts those that limits.kernel_entries, or the kernel, had no space for."""

    def __init__(self, ns_filter: NsFilter, requests: Requests, memory: Memory) -> None:
        self._ns_filter = ns_filter
        self._requests = requests
        self._sysctls = Sysctls(memory)
        self._in_force = NOTHING
        self._entries: dict[Host, int] = {}
        self._foreign: set[Host] = set()
        self._once = Once()
        self._cost = 0.0  # seconds of the last look
        # a dead predecessor's are on whatever interfaces it had; but those of a living other are not ours to touch
        self._sweeps = not memory.others
        self.refused = 0
        self.due: float | None = None

    @property
    def _limits(self) -> Limits:
        return self._in_force.config.limits

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[Host]:
        """The entries of ours."""
        return list(self._entries)

    def close(self, *, leave: bool = False) -> None:
        """Remove our entries, and put the sysctls back; or leave both to a successor."""
        if leave:
            return
        for host in self._entries:
            self._requests.delete_proxy(host)
        self._entries.clear()
        self._sysctls.put_back()

    def join(self, loop: Loop) -> None:
        """Have the loop call when entries are to be looked after."""
        loop.at(lambda: self.due, self.tick, "proxies")

    def apply(self, new: InForce) -> None:
        """What the kernel needs for a table, and what of ours a predecessor has left there."""
        self._in_force = new
        wanted = proxying_interfaces(new.table)
        if not wanted and not self._entries:
            # our entries of a dead predecessor go, even if nobody wants any now
            self.due = None
            self._reconcile()
            self._sysctls.put_back()
            return
        values: dict[Setting, str] = {}
        for ifindex in wanted:
            if ifindex in new.names:
                values |= {Setting(PROXY_NDP, ifindex): "1", Setting(PROXY_DELAY, ifindex): "0"}
        if values:
            # unicast solicitations are looked up by this one (ip6_forward)
            values[Setting(ALL_PROXY_NDP)] = "1"
        for setting, value in values.items():
            self._sysctls.set(setting, value)
        self._sysctls.put_back(values.keys())
        self._reconcile()
        if self.due is None:
            self.due = time.monotonic() + self._pause()

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Entries that the table doesn't want go."""
        self._reconcile()
        yield from ()

    def handle(self, event: NsEvent, rule: Rule) -> Outcome | None:
        """An event of a rule of method kernel. None: its target is there, answer."""
        if event.flags & EventFlag.MISS:
            self.ask(event, rule)
        return None

    def ask(self, event: NsEvent, rule: Rule) -> None:
        """A target that the kernel doesn't proxy yet is asked for: from now on it does, if there is space."""
        entry = self._in_force.table.entries.get(rule.entry)
        if entry is None or entry.standby:
            return  # an event by the table before: of an interface that the one to come doesn't have, or leaves alone
        host = Host(entry.l3_ifindex, event.target)
        if host in self._entries or host in self._foreign:
            return
        if len(self._entries) >= self._limits.kernel_entries:
            self.refused += 1
            self._once.warn(
                f"limits.kernel_entries: {self._limits.kernel_entries} proxy entries are there;"
                " Python answers for further targets itself",
                **about_host(host, self._name(host)),
            )
            return
        try:
            if self._requests.has_proxy(host):
                self._foreign.add(host)  # to add what is there would make it ours (NDA_PROTOCOL is overwritten)
                return
        except MachineError as error:
            self.refused += 1
            self._once.warn(f"{error}; Python answers itself", **about_host(host, self._name(host), str(error)))
            return
        code = self._requests.add_proxy(host)
        if code:
            self.refused += 1
            why = str(errno.errorcode.get(code, code))
            self._once.warn(
                f"the kernel adds no proxy entry: {why}; Python answers itself",
                **about_host(host, self._name(host), why),
            )
            return
        self._set_present(host, rule.via_set)

    def _set_present(self, host: Host, via_set: int) -> None:
        try:
            self._ns_filter.set_present(via_set, host.address, PresentFlag(0))
        except MachineError as error:
            self.refused += 1
            self._requests.delete_proxy(host)
            self._once.warn(str(error), **about_host(host, self._name(host), str(error)))
        else:
            self._entries[host] = via_set

    def _forget(self, host: Host) -> None:
        self._ns_filter.forget(self._entries.pop(host), host.address)

    def tick(self, now: float) -> None:
        """Remove what nobody has asked for in limits.kernel_entry_age, and mend what others have changed."""
        began, clock = time.thread_time(), machine_ns() / 1e9
        for host, via_set in tuple(self._entries.items()):
            if clock - self._ns_filter.asked(via_set, host.address) > self._limits.kernel_entry_age:
                self._forget(host)  # first: what is asked now comes to us, not to a kernel that lets go
                self._requests.delete_proxy(host)
        self._reconcile()
        for name in self._sysctls.hold():
            self._once.warn(f"{name}: another process changes this sysctl, which method kernel needs; it is set again")
        self._cost = time.thread_time() - began
        self.due = now + self._pause() if self._entries or proxying_interfaces(self._in_force.table) else None

    def _pause(self) -> float:
        return max(min(_LOOK, self._limits.kernel_entry_age / 2), self._cost / _SHARE)

    def _reconcile(self) -> None:
        """Make what we hold for true what the kernel says, and put back what it has lost: it drops entries when an
        interface goes down, and when somebody else says so.
        """
        try:
            there = self._requests.proxy_entries()
        except MachineError as error:
            self._once.warn(f"{error}; trying again every {self._pause():.0f} s", error=str(error))
            self.due = time.monotonic() + self._pause()
            return
        foreign = {host for host, protocol in there.items() if protocol != PROTOCOL}
        interfaces = {entry.l3_ifindex for entry in self._in_force.table.entries.values()}
        ours = {
            host
            for host in there.keys() - foreign
            if self._sweeps or host.ifindex in interfaces or host in self._entries
        }
        self._sweeps = False
        for host in self._entries.keys() - ours:
            if host in foreign or not self._put_back(host):
                self._forget(host)
        for host in ours:
            via_set = via_set_of(self._in_force.table, host)
            known = self._entries.get(host)
            if known is not None and known != via_set:
                self._forget(host)
                known = None
            if via_set is None:
                self._requests.delete_proxy(host)
            elif known is None:
                if len(self._entries) < self._limits.kernel_entries:
                    self._set_present(host, via_set)
                else:
                    self._requests.delete_proxy(host)
        self._report(foreign)
        self._foreign = foreign

    def _put_back(self, host: Host) -> bool:
        """An entry of ours has gone, and not by us; whether it is there again."""
        if via_set_of(self._in_force.table, host) != self._entries[host] or self._requests.add_proxy(host) != 0:
            return False
        name = self._in_force.names.get(host.ifindex, str(host.ifindex))
        self._once.warn(
            f"{name}: our proxy entries are gone ({IPv6Address(host.address)}, for one): another process removes"
            " them, or the interface was down; they are put back",
            about=f"{host.ifindex} gone",
            **about_host(host, self._name(host)),
        )
        return True

    def _name(self, host: Host) -> str:
        return self._in_force.names.get(host.ifindex, "")

    def _report(self, foreign: set[Host]) -> None:
        ours = {entry.l3_ifindex for entry in self._in_force.table.entries.values()}
        for ifindex in sorted({host.ifindex for host in foreign - self._foreign} & ours):
            count = sum(host.ifindex == ifindex for host in foreign)
            name = self._in_force.names.get(ifindex, str(ifindex))
            log.warning(
                "%s: the kernel has %d proxy entr%s that %s not ours: who is asked there may answer twice"
                " (ip -6 neigh show proxy dev %s)",
                name,
                count,
                "y" if count == 1 else "ies",
                "is" if count == 1 else "are",
                name,
                extra=fields(interface=name, ifindex=ifindex),
            )
