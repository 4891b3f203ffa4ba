# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon seen from outside: counters and states of all its rooms, gathered into a Snapshot and a Status."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from ipaddress import IPv6Address
from typing import Any

import npd6_xdp
from npd6_xdp.core.config import Config, InterfaceConfig
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.proxies import proxying_interfaces
from npd6_xdp.core.rtnetlink import NeighbourState
from npd6_xdp.core.rules import Table, via_globs
from npd6_xdp.core.snapshot import (
    AnswerTimes,
    HostSnapshot,
    InterfaceSnapshot,
    Overview,
    RuleSnapshot,
    Snapshot,
    Status,
    TargetSnapshot,
)
from npd6_xdp.core.verdict import Outcome, Reason
from npd6_xdp.core.warnings import WarningKind, Warnings, all_lines
from npd6_xdp.daemon.counts import Counts
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.proxies import Proxies
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.tags import Tags
from npd6_xdp.system.clock import machine_ns
from npd6_xdp.system.datapath import Datapath, EntryCounters, load_bcc
from npd6_xdp.system.netlink import xdp_tx_errors

_MOST_NAMED = 5  # interfaces in one line


class View:
    """Reads what the rooms know; changes nothing there.

    `changing` is held while counters may move from one program to another, or change their meaning. `file` is the
    configuration's path.
    """

    def __init__(
        self,
        datapath: Datapath,
        ports: Ports,
        tags: Tags,
        counts: Counts,
        resolution: Resolution,
        proxies: Proxies,
        changing: AbstractContextManager[object],
        file: str,
    ) -> None:
        self._datapath = datapath
        self._ports = ports
        self._tags = tags
        self._counts = counts
        self._resolution = resolution
        self._proxies = proxies
        self._changing = changing
        self._file = file
        self._table = Table({}, {}, {}, {}, {})
        self._config = Config(())
        self._configured: Sequence[InterfaceConfig] = ()
        self._links: Mapping[str, LinkFacts] = {}
        self._warnings: Sequence[str] = ()
        self._warned: Mapping[str, int] = {}
        self._names: Mapping[int, str] = {}
        self._started = self._loaded_at = time.time()
        self._reload_failures = 0
        self._reload_error = ""
        self._build = {
            "version": npd6_xdp.__version__,
            "bcc": load_bcc().__version__,
            "kernel": os.uname().release,
        }

    def use(
        self,
        config: Config,
        table: Table,
        links: Mapping[str, LinkFacts],
    ) -> None:
        """Show this table from now on."""
        self._config, self._table, self._links = config, table, links
        self._configured = [interface for interface in config.interfaces if not interface.is_glob]
        self._names = {link.ifindex: link.name for link in links.values()}

    def warn(self, warnings: Warnings) -> None:
        """Show from now on that there is this to warn about, and nothing else."""
        self._warnings = all_lines(warnings)
        self._warned = {str(kind): len(warnings.get(kind, ())) for kind in WarningKind}

    def reloaded(self) -> None:
        """A new configuration is in use."""
        self._loaded_at, self._reload_error = time.time(), ""

    def reload_failed(self, why: str) -> None:
        """A new configuration couldn't be used."""
        self._reload_failures += 1
        self._reload_error = why

    def in_use(self) -> dict[str, Any]:
        """How much is in use, in a few words."""
        spoken = {self._table.entries[entry].label for entry in set(self._table.slots.values())}
        return {"rules": len(self._table.rules), "interfaces": sorted(spoken), "warnings": list(self._warnings)}

    def snapshot(self, answer_times: AnswerTimes, internal_errors: Mapping[str, int]) -> Snapshot:
        """All counters at this moment, the kernel's read now."""
        taken = time.time()
        with self._changing:  # no longer than it takes: the loop waits for it before each change
            table = self._table
            by_entry = {entry: self._datapath.entry_counters(entry) for entry in table.entries}
            by_rule = self._datapath.all_rule_counters()
            for number in self._counts.rules():
                by_rule[number] = self._counts.rule(number) + Counter(by_rule.get(number))
        return Snapshot(
            self._interfaces(table, by_entry),
            _rules(table, by_rule),
            self._count_by_name(
                self._resolution.neighbours.by_interface(),
                {ifindex for group in table.vias.values() for ifindex in group},
            ),
            self._count_by_name((host.ifindex for host in self._proxies.entries()), proxying_interfaces(table)),
            AnswerTimes(list(answer_times.counts), answer_times.total),
            self._loaded_at,
            self._reload_failures,
            self._build,
            taken,
            reload_failed=bool(self._reload_error),
            internal_errors=internal_errors,
            warnings=self._warned,
        )

    def _interfaces(self, table: Table, counters: Mapping[int, EntryCounters]) -> list[InterfaceSnapshot]:
        outcomes: defaultdict[str, Counter[Outcome]] = defaultdict(Counter)
        reasons: defaultdict[str, Counter[Reason]] = defaultdict(Counter)
        late: Counter[str] = Counter()
        shown: dict[str, tuple[str, str]] = {}
        for entry in table.entries.values():
            counted = counters[entry.id]
            outcomes[entry.label].update(counted.outcomes)
            outcomes[entry.label].update(self._counts.entry(entry.id))
            reasons[entry.label].update(counted.reasons)
            late[entry.label] += self._counts.late(entry.id)
            if entry.spoken or entry.label not in shown:
                shown[entry.label] = (entry.port, entry.datapath)
        for interface in self._configured:  # it may not be there, or have gone before the file changed
            shown[interface.label] = (interface.name, interface.datapath)
        found = []
        for label, (port, datapath) in shown.items():
            attached, link = self._ports.by_name(port), self._links.get(port)
            found.append(
                InterfaceSnapshot(
                    label,
                    port,
                    attached.mode.name.lower() if attached else "",
                    datapath,
                    attached is not None and link is not None and link.up and link.ifindex not in self._tags.silent,
                    {name: outcomes[label][name] for name in Outcome},
                    {name: reasons[label][name] for name in Reason},
                    {
                        "xdp": outcomes[label][Outcome.ANSWERED_XDP],
                        "python": outcomes[label][Outcome.ANSWERED_PYTHON] + late[label],
                    },
                )
            )
        return found

    def _count_by_name(self, ifindexes: Iterable[int] | Mapping[int, int], possible: Iterable[int]) -> dict[str, int]:
        """How many there are of each (or how many each has); 0 of the possible ones that none is of."""
        counts = Counter(ifindexes)
        return {self._name(ifindex): counts[ifindex] for ifindex in {*possible, *counts}}

    def _name(self, ifindex: int) -> str:
        return self._names.get(ifindex, str(ifindex))

    def status(self, snapshot: Snapshot) -> Status:
        """The snapshot, and what is too much for metrics."""
        states = self._resolution.neighbours.hosts()
        return Status(
            snapshot,
            self._file,
            [self._place(host, NeighbourState(state).name or "") for host, state in sorted(states.items())],
            sorted(IPv6Address(address) for _, address in self._resolution.pending.targets()),
            [self._place(host) for host in sorted(self._proxies.entries())],
            [self._place(host) for host in sorted(self._resolution.routes.hosts())],
            self._targets(),
            self._refused(),
            self._reload_error,
            self._warnings,
            self._started,
            os.getpid(),
            _tx_errors(snapshot),
            via_globs(self._config, self._links),
            self._resolution.room,
        )

    def overview(self, snapshot: Snapshot) -> Overview:
        """The snapshot, and numbers. Another thread may ask: nothing that the loop changes is looped over."""
        return Overview(
            snapshot,
            len(self._resolution.pending),
            len(self._resolution.routes),
            self._refused(),
            self._reload_error,
            self._warnings,
            self._started,
            os.getpid(),
            _tx_errors(snapshot),
        )

    def ailing(self) -> str:
        """Why nothing is answered: no interface is attached and up. "" if one is. Another thread may ask."""
        table, links, states = self._table, self._links, []
        configured = [interface.name for interface in self._configured]
        for port in dict.fromkeys([*(entry.port for entry in table.entries.values()), *configured]):
            link = links.get(port)
            if link is None:
                states.append(f"{port} is not there")
            elif self._ports.by_name(port) is None:
                states.append(f"{port} is not attached")
            elif not link.up:
                states.append(f"{port} is down")
            elif link.ifindex in self._tags.silent:
                states.append(f"{port} has VLAN tags beside its frames")
            else:
                return ""
        return f"no interface is attached and up: {', '.join(states[:_MOST_NAMED]) or 'none is there'}"

    def _refused(self) -> dict[str, int]:
        return {
            "neighbours": self._resolution.neighbours.refused,
            "kernel proxy entries": self._proxies.refused,
        }

    def _place(self, host: Host, state: str = "") -> HostSnapshot:
        return HostSnapshot(self._name(host.ifindex), IPv6Address(host.address), state.lower())

    def _targets(self) -> list[TargetSnapshot]:
        """Of each entry as many as it collects, those that were asked for last first."""
        to_epoch = time.time_ns() - machine_ns()
        left = {entry.id: entry.collect for entry in self._table.entries.values()}
        found = []
        for recent in sorted(self._datapath.recents(), key=lambda recent: recent.last, reverse=True):
            if left.get(recent.entry, 0) <= 0:
                continue
            left[recent.entry] -= 1
            first, last = ((moment + to_epoch) / 1e9 for moment in (recent.first, recent.last))
            label = self._table.entries[recent.entry].label
            found.append(TargetSnapshot(label, IPv6Address(recent.target), first, last, recent.count))
        return found


def _tx_errors(snapshot: Snapshot) -> dict[str, int]:
    ports = {interface.port for interface in snapshot.interfaces}
    return {port: errors for port in ports if (errors := xdp_tx_errors(port)) is not None}


def _rules(table: Table, counters: Mapping[int, Mapping[Outcome, int]]) -> list[RuleSnapshot]:
    """Rules of one prefix under one label (those of VLAN devices that share an [[interface]]) are one."""
    found: dict[tuple[str, str], RuleSnapshot] = {}
    for rule in table.rules.values():
        key = table.entries[rule.entry].label, rule.config.prefix
        counted, before = counters.get(rule.id, {}), found.get(key)
        if before is not None and counted:
            counted = Counter(before.outcomes) + Counter(counted)
        elif before is not None:
            continue
        found[key] = RuleSnapshot(*key, rule.config.method, counted)
    return list(found.values())
