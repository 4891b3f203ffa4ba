# SPDX-License-Identifier: GPL-2.0-or-later
"""The real XDP program without an interface: BPF_PROG_TEST_RUN runs it on bytes, and its maps say what it did."""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from npd6_xdp.core.config import Config, InterfaceConfig, Limits, RuleConfig, Vlan
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.rules import Table, build
from npd6_xdp.core.verdict import Method, Outcome, Reason
from npd6_xdp.system.datapath import Datapath
from npd6_xdp.system.events import RING_PAGES, EventRing
from tests.frames import SETTING

PORT = "port0"
IFINDEX = 1  # without a context of its own, a test run's frames come in by the loopback interface
UNLIMITED = Limits(events_per_second=1_000_000_000)
XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX = range(4)


class _TestRunOpts(ct.Structure):
    """struct bpf_test_run_opts of libbpf."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("data_in", ct.c_char_p),
        ("data_out", ct.c_void_p),
        ("data_size_in", ct.c_uint32),
        ("data_size_out", ct.c_uint32),
        ("ctx_in", ct.c_void_p),
        ("ctx_out", ct.c_void_p),
        ("ctx_size_in", ct.c_uint32),
        ("ctx_size_out", ct.c_uint32),
        ("retval", ct.c_uint32),
        ("repeat", ct.c_int),
        ("duration", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("cpu", ct.c_uint32),
        ("batch_size", ct.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """What the program did with one frame: `counted` and `reasons` are the counters that went up, by one each."""

    action: int
    frame: bytes
    counted: tuple[Outcome, ...]
    reasons: tuple[Reason, ...]


class Bench:
    """A loaded program, the table it decides by, and its ring."""

    def __init__(self, table: Table, pages: int = RING_PAGES, limits: Limits = UNLIMITED) -> None:
        self.table = table
        self.datapath = Datapath(table, limits)
        self.ring = EventRing(self.datapath.program.bpf, pages)
        self._out = ct.create_string_buffer(1 << 14)
        self._opts = _TestRunOpts(sz=ct.sizeof(_TestRunOpts), data_out=ct.addressof(self._out), repeat=1)
        self._run: Any = self.datapath._lib.bpf_prog_test_run_opts
        self.use(table)

    def close(self) -> None:
        self.ring.close()
        self.datapath.close()

    def use(self, table: Table) -> None:
        """Decide by another table from now on; what is still in the ring is dropped."""
        self.table = table
        self.datapath.apply(table)
        self.responder = Responder(table)
        while self.ring.read():
            pass

    def run(self, frame: bytes) -> tuple[int, bytes]:
        """The action, and the frame as the program left it."""
        opts = self._opts
        opts.data_in, opts.data_size_in, opts.data_size_out = frame, len(frame), len(self._out)
        if self._run(self.datapath.program.fd, ct.byref(opts)) != 0:
            raise OSError(ct.get_errno(), os.strerror(ct.get_errno()), f"a frame of {len(frame)} bytes")
        return opts.retval, self._out.raw[: opts.data_size_out]

    def see(self, frame: bytes) -> Seen:
        """Run a frame and compare all counters before and after."""
        before = self.totals()
        action, out = self.run(frame)
        after = self.totals()
        grown: list[Any] = []
        for name, count in after.items():
            assert count - before[name] in (0, 1), name
            grown += [name] if count > before[name] else []
        return Seen(
            action,
            out,
            tuple(name for name in grown if isinstance(name, Outcome)),
            tuple(name for name in grown if isinstance(name, Reason)),
        )

    def totals(self) -> Mapping[Outcome | Reason, int]:
        """All counters, summed over the entries."""
        counters = [self.datapath.entry_counters(entry) for entry in self.table.entries]
        sums: dict[Outcome | Reason, int] = {}
        for outcome in Outcome:
            sums[outcome] = sum(each.outcomes[outcome] for each in counters)
        for reason in Reason:
            sums[reason] = sum(each.reasons[reason] for each in counters)
        return sums

    def events(self) -> list[NsEvent]:
        """All that is in the ring."""
        events: list[NsEvent] = []
        while batch := self.ring.read():
            events += map(NsEvent.unpack, batch)
        return events

    def answers(self) -> list[bytes]:
        """What Python answers to all that is in the ring."""
        return [self.responder.answer(event).frame for event in self.events()]


def rule(prefix: str, method: Method = Method.STATIC) -> RuleConfig:
    return RuleConfig(prefix, (Prefix.of(prefix),), method)


def entry(*rules: RuleConfig, vlan: Vlan = Vlan(), **keys: Any) -> InterfaceConfig:  # noqa: B008 (frozen)
    keys = {"events_per_source": 0, **keys}
    return InterfaceConfig(PORT, rules or (rule("2001:db8::/32"),), vlan=vlan, **keys)


def link(own: Iterable[str] = (), next_hops: Iterable[str] = (), mac: bytes = SETTING.mac) -> LinkFacts:
    return LinkFacts(
        PORT,
        IFINDEX,
        mac,
        addresses={(): tuple(OwnAddress(IPv6Address(address), 128) for address in own)},
        next_hops={(): frozenset(IPv6Address(hop) for hop in next_hops)},
    )


def table(*entries: InterfaceConfig, facts: LinkFacts | None = None) -> Table:
    facts = facts or link()
    return build(Config(entries), {PORT: facts})
