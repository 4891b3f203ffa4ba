# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon seen from outside: counters and states of all its rooms, gathered into a Snapshot and a Status."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from ipaddress import IPv6Address
from itertools import count
from typing import Any, TypeVar

import npd6_xdp
from npd6_xdp.core.absent import finding_via_globs
from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import Config, InterfaceConfig
from npd6_xdp.core.judgement import LATE, Counted, Facts, Judgement, ProblemKind
from npd6_xdp.core.neighbour_messages import NeighbourState
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.proxy_entries import proxying_interfaces
from npd6_xdp.core.roles import role_text
from npd6_xdp.core.samples import Samples
from npd6_xdp.core.snapshot import (
    AnswerTimes,
    Details,
    HostSnapshot,
    InterfaceSnapshot,
    RuleSnapshot,
    Snapshot,
    Status,
)
from npd6_xdp.core.steps import Steps, finish, in_order, listed, pieces
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Limit, Outcome, Reason
from npd6_xdp.core.warnings import WarningKind, Warnings, first_of
from npd6_xdp.daemon.announcing import Announcing
from npd6_xdp.daemon.counts import Counts
from npd6_xdp.daemon.handover import HandOver
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.daemon.judging import Judging
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.proxy_entries import ProxyEntries
from npd6_xdp.daemon.recent_targets import RecentTargets
from npd6_xdp.daemon.remembering import Remembering
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.tables import Tables
from npd6_xdp.daemon.tags import Tags
from npd6_xdp.daemon.tx_errors import as_xdp, tx_errors
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.bpf.counters import EntryCounters, added
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.place import place

T = TypeVar("T")

_TRIES = 4  # to read counters, none of which gets another meaning meanwhile
_ENTRIES = 100  # whose counters are added up at once
_NOTHING = EntryCounters({}, {}, {})


class View(Follower):
    """Reads what the rooms know; changes nothing there.

    `changing` is held while counters may move from one program to another, or change their meaning. `file` is the
    configuration's path.
    """

    def __init__(
        self,
        ns_filter: NsFilter,
        ports: Ports,
        tags: Tags,
        counts: Counts,
        recent_targets: RecentTargets,
        resolution: Resolution,
        proxy_entries: ProxyEntries,
        announcing: Announcing,
        remembering: Remembering,
        hand_over: HandOver,
        changing: AbstractContextManager[object],
        file: str,
    ) -> None:
        self._ns_filter = ns_filter
        self._ports = ports
        self._tags = tags
        self._counts = counts
        self._recent_targets = recent_targets
        self._resolution = resolution
        self._proxy_entries = proxy_entries
        self._announcing = announcing
        self._tables = Tables(resolution, proxy_entries, remembering)
        self._judging = Judging(ports, tags, resolution, self._tables)
        self._hand_over = hand_over
        self._changing = changing
        self._file = file
        self._in_force = NOTHING
        self._warnings: Sequence[str] = ()
        self._by_kind: Warnings = {}
        self._warned: Mapping[str, int] = {}
        self._started = self._loaded_at = time.time()
        self._reload_failures = 0
        self._reload_error = ""
        self._place = place()
        self._build = {
            "version": npd6_xdp.__version__,
            "bcc": load_bcc().__version__,
            "kernel": os.uname().release,
        }

    def apply(self, new: InForce) -> None:
        """Show this from now on."""
        self._in_force = new

    def warn(self, warnings: Warnings, lines: Sequence[str]) -> None:
        """Show from now on that there is this to warn about, and nothing else; as lines, each once."""
        self._warnings, self._by_kind = lines, warnings
        self._warned = {str(kind): len(warnings.get(kind, ())) for kind in WarningKind}

    def reloaded(self) -> None:
        """A new configuration is in use."""
        self._loaded_at, self._reload_error = time.time(), ""

    def reload_failed(self, why: str) -> None:
        """A new configuration couldn't be used."""
        self._reload_failures += 1
        self._reload_error = why

    def in_use(self) -> dict[str, Any]:
        """How much is in use, in a few words; of the warnings the first ones."""
        table = self._in_force.table
        spoken = {table.entries[entry].label for entry in set(table.entry_ids.values())}
        return {"rules": len(table.rules), "interfaces": sorted(spoken), "warnings": first_of(self._warnings)}

    def snapshot(
        self, answer_times: AnswerTimes, internal_errors: Mapping[str, int], judgement: Judgement, unread: int = 0
    ) -> Steps[Snapshot]:
        """All counters, the kernel's read now, bit by bit; it may hold what is counted meanwhile. Another thread may
        ask.
        """
        taken = time.time()
        shown, (by_entry, by_rule) = yield from self._read(self._ns_filter.counters)
        table = shown.table
        for numbers in pieces(self._counts.rules()):
            for number in numbers:
                by_rule[number] = self._counts.rule(number) + Counter(by_rule.get(number))
            yield
        interfaces = yield from self._interfaces(shown, by_entry)
        _, remembered = yield from self._read(self._tables.counting)
        return Snapshot(
            interfaces,
            (yield from _rules(table, by_rule)),
            self._count_by_name(
                self._resolution.neighbours.by_interface(),
                {ifindex for via_set in table.vias.values() for ifindex in via_set},
            ),
            self._count_by_name((host.ifindex for host in self._proxy_entries.entries()), proxying_interfaces(table)),
            AnswerTimes(list(answer_times.counts), answer_times.total),
            self._loaded_at,
            self._reload_failures,
            self._build,
            taken,
            reload_failed=bool(self._reload_error),
            internal_errors=internal_errors,
            warnings=self._warned,
            log_lines_dropped=unread,
            handover_uncounted=self._hand_over.uncounted,
            tables=self._tables.snapshots(shown.config.limits, remembered),
            host_routes=len(self._resolution.routes),
            host_routes_missing=len(self._resolution.routes.displaced),
            tx_errors=(yield from tx_errors(as_xdp(interfaces))),
            judgement=judgement,
        )

    def _read(self, read: Callable[[], Steps[T]]) -> Steps[tuple[InForce, T]]:
        """What is in force, and what was counted of it: read anew where that gets another meaning meanwhile.

        The loop waits for the lock before each change, so it is held for a bit at a time; for all of it, where changes
        follow each other faster than this can be read.
        """
        for attempt in count(1):
            with self._changing:
                counted, changes = self._in_force, self._ns_filter.changes
                steps = read()
                if attempt == _TRIES:
                    return counted, finish(steps)
            while True:
                with self._changing:
                    if self._ns_filter.changes != changes:
                        break
                    try:
                        next(steps)
                    except StopIteration as done:
                        return counted, done.value
                yield
        raise AssertionError("there is always another attempt")

    def tally(self, failures: Mapping[str, int], unread: int) -> Steps[tuple[dict[str, int], list[Counted]]]:
        """How many solicitations there were of each outcome, and the counters whose growth is a problem. `failures` are
        mistakes of ours, by where, `unread` lines of the log that were dropped. It is cheaper than
        snapshot(): no rule is looked at.
        """
        shown, by_entry = yield from self._read(self._ns_filter.all_entry_counters)
        totals: Counter[str] = Counter()
        ill: dict[ProblemKind, Counter[str]] = {ProblemKind.LOST: Counter(), ProblemKind.FAILED: Counter()}
        for entries in pieces(shown.table.entries.values(), _ENTRIES):
            for entry in entries:
                outcomes = added(by_entry.get(entry.id, _NOTHING).outcomes, self._counts.entry(entry.id))
                totals.update({str(outcome): count for outcome, count in outcomes.items()})
                totals[LATE] += self._counts.late(entry.id)
                ill[ProblemKind.LOST][entry.label] += outcomes.get(Outcome.LOST, 0)
                ill[ProblemKind.FAILED][entry.label] += outcomes.get(Outcome.FAILED, 0)
            yield
        ports = (port for port, mode in self._modes() if mode is not AttachMode.TC)
        ill[ProblemKind.DRIVER] = Counter((yield from tx_errors(ports)))
        ill[ProblemKind.REFUSED] = Counter(self._tables.refused)
        ill[ProblemKind.INTERNAL_ERROR] = Counter(failures)
        ill[ProblemKind.LOG] = Counter({"log": unread})
        return dict(totals), [Counted(kind, name, n) for kind, each in ill.items() for name, n in each.items()]

    def _modes(self) -> Iterator[tuple[str, AttachMode]]:
        for port in dict.fromkeys(entry.port for entry in self._in_force.table.entries.values()):
            if (attached := self._ports.by_name(port)) is not None:
                yield port, attached.mode

    def _interfaces(self, now: InForce, counters: Mapping[int, EntryCounters]) -> Steps[list[InterfaceSnapshot]]:
        outcomes: dict[str, Mapping[Outcome, int]] = {}
        reasons: dict[str, Mapping[Reason, int]] = {}
        limits: dict[str, Mapping[Limit, int]] = {}
        late: Counter[str] = Counter()
        announced: Counter[str] = Counter()
        lacking: dict[str, str] = {}
        shown: dict[str, tuple[str, str, str]] = {}
        for entries in pieces(now.table.entries.values(), _ENTRIES):
            for entry in entries:
                label, counted = entry.label, counters.get(entry.id, _NOTHING)
                python = self._counts.entry(entry.id)
                outcomes[label] = added(added(outcomes.get(label, {}), counted.outcomes), python)
                reasons[label] = added(reasons.get(label, {}), counted.reasons)
                here = added(counted.limits, self._counts.limits(entry.id))
                limits[label] = added(limits.get(label, {}), here)
                late[label] += self._counts.late(entry.id)
                announced[label] += self._announcing.sent(entry.id)
                if entry.lacks_device:
                    lacking[label] = entry.role
                if entry.spoken or label not in shown:
                    shown[label] = (entry.port, entry.datapath, entry.active_with)
            yield
        for interface in _configured(now.config):  # it may not be there, or have gone before the file changed
            shown[interface.label] = (interface.name, interface.datapath, interface.active_with)
        interfaces = []
        for some in pieces(shown.items(), _ENTRIES):
            for label, (port, datapath, active_with) in some:
                attached, link = self._ports.by_name(port), now.links.get(port)
                counts, why = outcomes.get(label, {}), reasons.get(label, {})
                refused = limits.get(label, {})
                interfaces.append(
                    InterfaceSnapshot(
                        label,
                        port,
                        str(attached.mode) if attached else "",
                        datapath,
                        attached is not None and link is not None and link.up and link.ifindex not in self._tags.silent,
                        {name: counts.get(name, 0) for name in Outcome},
                        {name: why.get(name, 0) for name in Reason},
                        {
                            "xdp": counts.get(Outcome.ANSWERED_XDP, 0),
                            "python": counts.get(Outcome.ANSWERED_PYTHON, 0) + late[label],
                        },
                        {name: refused.get(name, 0) for name in Limit},
                        active_with,
                        label not in lacking and (not active_with or active_with in now.held),
                        announced[label],
                        lacking.get(label) or role_text(active_with, active=active_with in now.held),
                        attached.attached.why if attached else "",
                        link is not None and link.can_be_native,
                    )
                )
            yield
        return interfaces

    def _count_by_name(self, ifindexes: Iterable[int] | Mapping[int, int], possible: Iterable[int]) -> dict[str, int]:
        """How many there are of each (or how many each has); 0 of the possible ones that none is of."""
        counts = Counter(ifindexes)
        return {self._name(ifindex): counts[ifindex] for ifindex in {*possible, *counts}}

    def _name(self, ifindex: int) -> str:
        return self._in_force.names.get(ifindex, str(ifindex))

    def status(self, snapshot: Snapshot) -> Steps[Status]:
        """The snapshot, and what is too much for metrics, bit by bit. For the loop's own thread."""
        now, warnings = self._in_force, self._warnings
        globs = yield from finding_via_globs(now.config, now.links)
        state = self._resolution.neighbours.state
        hosts = yield from in_order(self._resolution.neighbours.covered())
        pending = yield from in_order(self._resolution.pending.targets(), key=lambda target: target[1])
        details = Details(
            self._file,
            (yield from listed(self._host(host, NeighbourState(state(host)).name or "") for host in hosts)),
            (yield from listed(IPv6Address(address) for _, address in pending)),
            (yield from self._hosts(self._proxy_entries.entries())),
            (yield from self._hosts(list(self._resolution.routes.hosts()))),
            (yield from self._hosts(list(self._resolution.routes.displaced))),
            (yield from self._recent_targets.all(now.table)),
            globs,
            self._resolution.capacity,
        )
        return replace(self.overview(snapshot), warnings=warnings, details=details)

    def overview(self, snapshot: Snapshot) -> Status:
        """The snapshot, and numbers. Another thread may ask: nothing that the loop changes is looped over."""
        return Status(
            snapshot,
            len(self._resolution.pending),
            len(self._resolution.routes),
            self._tables.refused,
            self._reload_error,
            self._warnings,
            self._started,
            os.getpid(),
            host=self._place.host,
            namespace=self._place.namespace,
        )

    def facts(self, samples: Samples, silent: float) -> Steps[Facts]:
        """What the daemon is judged by; the loop has been `silent` for so many seconds. Another thread may ask."""
        return self._judging.facts(self._in_force, self._by_kind, self._reload_error, samples, silent)

    def counted(self, samples: Samples) -> Steps[Facts]:
        """Those of them that say which problems are known by counting."""
        return self._judging.counted(self._in_force, self._by_kind, samples)

    def _host(self, host: Host, state: str = "") -> HostSnapshot:
        return HostSnapshot(self._name(host.ifindex), IPv6Address(host.address), state.lower())

    def _hosts(self, hosts: list[Host]) -> Steps[list[HostSnapshot]]:
        in_turn = yield from in_order(hosts)
        return (yield from listed(map(self._host, in_turn)))


def _configured(config: Config) -> list[InterfaceConfig]:
    """The interfaces that a configuration names."""
    return [interface for interface in config.interfaces if not interface.is_glob]


def _rules(table: Table, counters: Mapping[int, Mapping[Outcome, int]]) -> Steps[list[RuleSnapshot]]:
    """Rules of one prefix under one label (those of VLAN devices that share an [[interface]]) are one."""
    found: dict[tuple[str, str], RuleSnapshot] = {}
    for some in pieces(table.rules.values()):
        for rule in some:
            key = table.entries[rule.entry].label, rule.config.prefix
            counted, before = counters.get(rule.id, _NOTHING.outcomes), found.get(key)
            if before is not None and counted:
                counted = Counter(before.outcomes) + Counter(counted)
            elif before is not None:
                continue
            found[key] = RuleSnapshot(*key, rule.config.method, counted)
        yield
    return list(found.values())
