# SPDX-License-Identifier: GPL-2.0-or-later
"""The loaded program beside the reference: chunks of frames, single ones, and what differs."""

from __future__ import annotations

import ctypes as ct
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from ipaddress import IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any, NamedTuple

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Limits
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.event import RECORD_SIZE, NsEvent
from npd6_xdp.core.frames import Frames
from npd6_xdp.core.hidden import Tapped
from npd6_xdp.core.icmpv6 import NeighborSolicitation
from npd6_xdp.core.layout import ADDRESS_KEY, ANSWERED, BUDGET, INDEX
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import PresentFlag, Table
from npd6_xdp.core.verdict import Limit, Outcome, Reason
from npd6_xdp.system.bpf import compiler
from npd6_xdp.system.bpf.events import EventRing
from npd6_xdp.system.bpf.ns_filter import NsFilter
from tests.fuzz.configurations import BRIDGE_MAC, LARGEST, MACS, PORTS, VLAN_DEVICE, Configuration
from tests.fuzz.scene import NONE, Drawn, Program, Report, Told
from tests.hooks import Pusher

CHUNK = 8192
"""Frames for which a configuration is in force; then the program and the reference begin anew. The ring holds them."""
STRIDE = 256
"""Frames between two looks at the counters. Where those differ, the chunk is run once more with a look at each."""
SAMPLE = 64
"""Frames of a chunk that Python's parser reads, too."""
_UNLIMITED = Limits(events_per_second=1_000_000_000)


class Difference(NamedTuple):
    """A frame of which program and reference say different things; `number` is its place in the chunk."""

    configuration: Configuration
    number: int
    port: str
    frame: bytes
    what: str
    wanted: str
    got: str

    @property
    def kind(self) -> str:
        """What differs, in whatever frame."""
        return re.sub(r"-?\b\w*[0-9]\w*", "", self.what)


class _Upward(NamedTuple):
    """What differs in what Python is told, or in what it answers."""

    what: str
    wanted: str
    got: str


@dataclass(frozen=True)
class _InForce:
    """One configuration, as the program has it and as the reference has it."""

    configuration: Configuration
    table: Table
    drawn: Drawn
    known: tuple[tuple[int, bytes, PresentFlag], ...]
    refused_askers: frozenset[tuple[int, bytes]]
    here: int


def facts(configuration: Configuration, indexes: Mapping[str, int]) -> dict[str, LinkFacts]:
    """The machine of a configuration, as npd6_xdp is told of it."""

    def held(own: tuple[str, ...]) -> tuple[OwnAddress, ...]:
        interfaces = map(IPv6Interface, own)
        return tuple(OwnAddress(each.ip, each.network.prefixlen) for each in interfaces)

    links = {name: LinkFacts(name, indexes[name], MACS[name]) for name in PORTS if name != "wan0.100"}
    sides = configuration.sides.items()
    shared: dict[str, Any] = (
        {"bridge_macs": {(): BRIDGE_MAC}, "shared": frozenset({()})} if configuration.is_bridge_port else {}
    )
    links["wan0"] = replace(
        links["wan0"],
        addresses={tags: held(side.own) for tags, side in sides},
        next_hops={tags: frozenset(map(IPv6Address, side.next_hops)) for tags, side in sides},
        l3={VLAN_DEVICE: indexes["wan0.100"]} if configuration.has_vlan_device else {},
        **shared,
    )
    links["lan0"] = replace(links["lan0"], addresses={(): held(configuration.lan)})
    return links


def chunk_seed(seed: int, configuration: str, number: int) -> int:
    """The generator's seed for one chunk: each has frames of its own."""
    return int.from_bytes(blake2b(f"{seed}/{configuration}/{number}".encode(), digest_size=8).digest())


class _Loaded:
    """The program in the kernel, with its ring if somebody is to read it."""

    def __init__(self, largest: Table, *, is_read: bool, by_tc: bool) -> None:
        self.ns_filter = NsFilter(largest, _UNLIMITED)
        self.pusher = Pusher() if by_tc else None
        if self.pusher is not None:
            self.pusher.run_into(self.ns_filter.program.tc_fd)
        self.ring = EventRing(self.ns_filter.program.maps) if is_read else None
        self.in_force: _InForce | None = None

    def close(self) -> None:
        if self.pusher is not None:
            self.pusher.close()
        if self.ring is not None:
            self.ring.close()
        self.ns_filter.close()

    def records(self) -> bytes:
        """All that is in the ring, in the order in which it was put there."""
        runs: list[bytes] = []
        while self.ring is not None and (more := self.ring.read(watched=False)):
            runs += more
        return b"".join(runs)


@contextmanager
def sources(directory: Path | None = None) -> Iterator[None]:
    """Within it, programs are loaded from the C files of another directory than bpf/."""
    home = compiler.BPF_DIRECTORY
    if directory is None:
        yield
        return
    compiler.BPF_DIRECTORY = directory
    try:
        yield
    finally:
        compiler.BPF_DIRECTORY = home


@contextmanager
def copied_sources() -> Iterator[Path]:
    """A copy of bpf/, to be changed."""
    with tempfile.TemporaryDirectory(prefix="npd6-xdp-fuzz-") as directory:
        yield Path(shutil.copytree(compiler.BPF_DIRECTORY, Path(directory) / "bpf"))


class Subject:
    """The program under test, and the reference. It is loaded when it is needed, once with a ring and once without.
    Frames go in by its function for XDP, or `by_tc`.
    """

    def __init__(
        self, lib: Any, indexes: Mapping[str, int], directory: Path | None = None, *, by_tc: bool = False
    ) -> None:
        self._lib, self._indexes, self._directory, self._by_tc = lib, indexes, directory, by_tc
        self._loaded: dict[bool, _Loaded] = {}
        self._ready: dict[str, _InForce] = {}
        self._told = (Told * CHUNK)()
        self._frames = Frames(CHUNK)
        self._largest = build(parse(LARGEST, "the largest"), facts(Configuration("largest", LARGEST), indexes))
        self.report = Report()
        self.names = {index: name for name, index in indexes.items()}

    def close(self) -> None:
        """Give back what was loaded."""
        for loaded in self._loaded.values():
            loaded.close()

    @property
    def counts(self) -> Counter[str]:
        """How often each outcome and reason came, by the reference, and each limit (with `by_` before it); `handed_up`
        are those that went up to Python.
        """
        counts = Counter({str(name): n for name, n in zip(Outcome, self.report.outcomes, strict=True)})
        counts.update({str(name): n for name, n in zip(Reason, self.report.reasons, strict=True)})
        counts.update({f"by_{name}": n for name, n in zip(Limit, self.report.limits, strict=True)})
        counts["handed_up"] = self.report.handed_up
        return +counts

    def chunk(self, configuration: Configuration, seed: int, frames: int = CHUNK) -> Difference | None:
        """Run a chunk's frames; what differs first, if anything does."""
        before = self.report.frames
        loaded, failed = self._run(configuration, seed, frames, STRIDE)
        if failed and b"counter" in self.report.difference:
            # once more, from the first on, with a look at the counters after each of them
            self.report.frames = before
            loaded, failed = self._run(configuration, seed, frames, 1)
        difference = self._difference(configuration, self.report.frames - before - 1) if failed else None
        if self._upward(loaded, is_complete=not failed) is not None:
            difference = self._first(configuration, seed, difference.number if difference else frames)
        return difference or self._read_by_python(configuration, loaded, seed, min(frames, SAMPLE))

    def single(self, configuration: Configuration, port: str, frame: bytes) -> Difference | None:
        """Run one frame, by itself."""
        loaded, drawn, program = self._start(configuration)
        report = self.report
        ct.memmove(report.frame, frame, len(frame))
        report.length, report.port = len(frame), self._indexes[port]
        pointers = ct.addressof(program), ct.addressof(drawn.scene), ct.addressof(report), ct.addressof(self._told)
        if self._lib.run_one(*pointers):
            loaded.records()
            return self._difference(configuration, 0)
        upward = self._upward(loaded, is_complete=True)
        if upward is not None:
            return Difference(configuration, 0, port, frame, *upward)
        return self._read_otherwise(configuration, 0)

    def _read_by_python(
        self, configuration: Configuration, loaded: _Loaded, seed: int, frames: int
    ) -> Difference | None:
        """What Python's parser reads of the first frames of a chunk."""
        assert loaded.in_force is not None
        scene, report = ct.addressof(loaded.in_force.drawn.scene), ct.addressof(self.report)
        for number in range(frames):
            self._lib.verdict_of(scene, seed, number, report)
            difference = self._read_otherwise(configuration, number)
            if difference is not None:
                return difference
        return None

    def _read_otherwise(self, configuration: Configuration, number: int) -> Difference | None:
        """Whether Python's parser reads the last frame as the reference does: the same reason, or the same parts."""
        report, verdict = self.report, self.report.verdict
        frame = bytes(report.frame[: report.length])
        said = NeighborSolicitation.parse(frame)
        if verdict.entry == NONE:
            agrees = said is None
        elif verdict.reason != NONE:
            agrees = said is tuple(Reason)[verdict.reason]
        elif verdict.goes_up and isinstance(said, NeighborSolicitation):
            event = NsEvent.unpack(bytes(verdict.event))
            here = said.target, said.source, said.tags, said.link_layer_address or said.eth_source
            agrees = here == (event.target, event.source, event.vlan_tags(), event.answer_mac)
        else:
            agrees = isinstance(said, NeighborSolicitation)
        if agrees:
            return None
        what = "Python's parser reads it otherwise"
        return Difference(configuration, number, self.names[report.port], frame, what, self._verdict_text(), repr(said))

    def _run(self, configuration: Configuration, seed: int, frames: int, stride: int) -> tuple[_Loaded, bool]:
        """Run the frames of a chunk until something shows at once, and whether it does."""
        loaded, drawn, program = self._start(configuration)
        report, told = ct.addressof(self.report), ct.addressof(self._told)
        pointers = ct.addressof(program), ct.addressof(drawn.scene)
        return loaded, bool(self._lib.run_chunk(*pointers, seed, frames, stride, report, told))

    def verdict(self) -> str:
        """What the reference says of the last frame."""
        return self._verdict_text()

    def numbers(self, configuration: Configuration) -> str:
        """Which entries and rules the numbers in what is said stand for."""
        table = self._ready[configuration.name].table
        entries = (
            f"entry {entry.id} {entry.label if entry.spoken else f'{entry.port} otherwise'}"
            for entry in table.entries.values()
        )
        return ", ".join((*entries, *(f"rule {rule.id} {rule.prefix}" for rule in table.rules.values())))

    # --- between configurations ---

    def _start(self, configuration: Configuration) -> tuple[_Loaded, Drawn, Program]:
        """Put a configuration in force, as if nothing had been seen yet."""
        loaded = self._loaded.get(configuration.is_read)
        if loaded is None:
            with sources(self._directory):
                loaded = self._loaded[configuration.is_read] = _Loaded(
                    self._largest, is_read=configuration.is_read, by_tc=self._by_tc
                )
        ready = self._ready.get(configuration.name)
        if ready is None:
            ready = self._ready[configuration.name] = self._prepare(configuration)
        if loaded.in_force is not ready:
            self._use(loaded, ready)
        for via_set, target, flags in ready.known:
            loaded.ns_filter.set_present(via_set, target, flags)
        if any(entry.new_target_limit for entry in ready.table.entries.values()):
            self._spend(loaded, ready)
        program = self._program(loaded, ready)
        loaded.records()
        if loaded.ring is not None:
            loaded.ring._flag[0] = 0  # nobody is to be woken: so all goes into one ring, in its order
        if self._lib.start(ct.addressof(program)):
            raise OSError(ct.get_errno(), "the program's counters can't be read")
        return loaded, ready.drawn, program

    def _prepare(self, configuration: Configuration) -> _InForce:
        indexes = self._indexes
        config = parse(configuration.toml, configuration.name)
        table = build(config, facts(configuration, indexes), held=set(configuration.held))
        rules = {(rule.entry, rule.prefix): rule.id for rule in table.rules.values()}

        def entry_number(port: str, outer: int, inner: int) -> int | None:
            vids = (0xFFFF, 0xFFFF) if outer == NONE else (outer, inner)
            return table.entry_ids.get((indexes[port], *vids))

        def rule_number(port: str, outer: int, inner: int, prefix: str) -> int:
            entry = entry_number(port, outer, inner)
            assert entry is not None
            return rules[entry, prefix]

        drawn = Drawn(configuration, indexes, entry_number, rule_number, CHUNK)
        known = {}
        for rule in table.rules.values():
            for text in configuration.known.get(rule.prefix, ()):
                flags = PresentFlag.STALE if text.endswith("?") else PresentFlag(0)
                known[rule.via_set, IPv6Address(text.rstrip("?")).packed] = flags
        here = table.entry_ids.get((indexes["wan0"], 0, 0), 0)
        refused_askers = frozenset((here, mac or bytes(6)) for mac in configuration.refused_askers)
        return _InForce(
            configuration, table, drawn, tuple((*at, flags) for at, flags in known.items()), refused_askers, here
        )

    def _use(self, loaded: _Loaded, ready: _InForce) -> None:
        path, configuration = loaded.ns_filter, ready.configuration
        if not path.has_space(ready.table, _UNLIMITED):
            raise RuntimeError(f"the program has no space for configuration {configuration.name}")
        for via_set, target, _ in loaded.in_force.known if loaded.in_force else ():
            path.forget(via_set, target)
        ports = frozenset({self._indexes["wan0"]})
        if configuration.is_guarded or configuration.is_silent:
            guarded, silent = configuration.is_guarded, configuration.is_silent
            path.tap(Tapped(ports, silent=ports if silent else frozenset(), guarded=ports if guarded else frozenset()))
        else:
            path.tap(Tapped())
        path.apply(ready.table)
        path.refuse_askers(ready.refused_askers)
        path.set_routing(RoutingFlag.ALL if configuration.kept else RoutingFlag(0))
        path.keep_routes(1 if configuration.kept else 0)
        for kept, there in configuration.kept.items():
            path.keep_route(ready.here, IPv6Address(kept).packed, 1, there=there)
        loaded.in_force = ready

    @staticmethod
    def _spend(loaded: _Loaded, ready: _InForce) -> None:
        """Spend the budgets of new targets for good; the targets that were answered before are those of the
        configuration.
        """
        program = loaded.ns_filter.program
        finish(loaded.ns_filter.forgetting(ready.table.entries.keys()))
        for target in ready.configuration.answered:
            key = ADDRESS_KEY.pack(ready.here, IPv6Address(target).packed)
            program.update("answered", key, ANSWERED.pack(0, bytes(4), 0))
        for entry in ready.table.entries:
            program.update("target_budgets", INDEX.pack(entry), BUDGET.pack(1 << 62))

    def _program(self, loaded: _Loaded, ready: _InForce) -> Program:
        owner = loaded.ns_filter.program
        fds, cpus = owner._fds, owner.cpus
        entries, rules = max(ready.table.entries) + 1, max(ready.table.rules) + 1
        program = Program(
            *((owner.fd, NONE) if loaded.pusher is None else (owner.tc_fd, loaded.pusher.fd)),
            *(fds["entry_counters"], fds["rule_counters"], fds["heard_addresses"]),
            *(cpus, entries, rules),
        )
        columns = {"entry": len(Outcome) + len(Reason) + len(Limit), "rule": len(Outcome)}
        sizes = {"entry": entries * columns["entry"], "rule": rules * columns["rule"]}
        for name, size in {
            **{f"{kind}_{what}": sizes[kind] for kind in sizes for what in ("base", "wanted")},
            "values": cpus * max(sizes.values()),
        }.items():
            setattr(program, name, ct.cast((ct.c_uint64 * size)(), ct.POINTER(ct.c_uint64)))
        return program

    # --- what went up to Python ---

    def _upward(self, loaded: _Loaded, *, is_complete: bool) -> _Upward | None:
        """What differs in the events since the last look, or in Python's answers to them.

        Not `is_complete`: the last frame's event isn't among those that were to come.
        """
        records, told, wanted = loaded.records(), self._told, self.report.events
        came = len(records) // RECORD_SIZE
        both = min(came, wanted)
        at = self._lib.events_agree(records, ct.addressof(told), both)
        if at < both:
            here, there = NsEvent.unpack(records[at * RECORD_SIZE + 12 :]), NsEvent.unpack(bytes(told[at].event))
            return _Upward("what Python is told differs", _event_text(there), _event_text(here))
        if came != wanted and (is_complete or came < wanted):
            return _Upward("what goes up to Python differs", f"{wanted} events by now", f"{came} events by now")
        assert loaded.in_force is not None
        found = self._answers_differ(Responder(loaded.in_force.table), records[: both * RECORD_SIZE], both)
        if found is None:
            return None
        at, answer = found
        wanted_answer = bytes(told[at].answer)[: told[at].answer_length]
        return _Upward("Python's answer differs", wanted_answer.hex(), answer.hex())

    def _first(self, configuration: Configuration, seed: int, frames: int) -> Difference:
        """The frame of a chunk with which what goes up begins to differ: by halves, since the ring doesn't tell."""
        agree, differ = 0, frames
        loaded, failed = self._run(configuration, seed, differ, STRIDE)
        found = self._upward(loaded, is_complete=not failed)
        while found is not None and differ - agree > 1:
            middle = (agree + differ) // 2
            loaded, failed = self._run(configuration, seed, middle, STRIDE)
            upward = self._upward(loaded, is_complete=not failed)
            if upward is None:
                agree = middle
            else:
                differ, found = middle, upward
        if found is None:
            found = _Upward("what goes up to Python differed, and not when the chunk was run again", "", "")
        assert loaded.in_force is not None
        self._lib.frame_of(ct.addressof(loaded.in_force.drawn.scene), seed, differ - 1, ct.addressof(self.report))
        frame = bytes(self.report.frame[: self.report.length])
        return Difference(configuration, differ - 1, self.names[self.report.port], frame, *found)

    def _answers_differ(self, responder: Responder, records: bytes, count: int) -> tuple[int, bytes] | None:
        """The first answer of Python's that isn't as it should be, by its number."""
        frames, told = self._frames, self._told
        frames.clear()
        others = iter(responder.answer_run(records, frames))
        other, plain = next(others, None), 0
        for number in range(count):
            wanted = bytes(told[number].answer)[: told[number].answer_length]
            start = number * RECORD_SIZE + 12
            if other is not None and other.pack() == records[start : start + RECORD_SIZE - 12]:
                answer = responder.answer(other).frame
                other = next(others, None)
            else:
                answer = frames.frame(plain)
                plain += 1
            if answer != wanted:
                return number, answer
        return None

    # --- in words ---

    def _difference(self, configuration: Configuration, number: int) -> Difference:
        report = self.report
        frame = bytes(report.frame[: report.length])
        what = report.difference.decode()
        got = _action(report.action)
        out = bytes(report.out[: report.out_length])
        if out != frame:
            got += f", {out.hex()}"
        return Difference(
            configuration, number, self.names[report.port], frame, what, self._verdict_text(), f"{got}; {what}"
        )

    def _verdict_text(self) -> str:
        verdict = self.report.verdict
        words = [_action(verdict.action)]
        if verdict.outcome != NONE:
            words.append(f"counted as {tuple(Outcome)[verdict.outcome]}")
        if verdict.reason != NONE:
            words.append(f"({tuple(Reason)[verdict.reason]})")
        if verdict.limit != NONE:
            words.append(f"({tuple(Limit)[verdict.limit]})")
        if verdict.entry != NONE:
            words.append(f"of entry {verdict.entry}")
        if verdict.rule != NONE:
            words.append(f"and rule {verdict.rule}")
        text = " ".join(words)
        if verdict.goes_up:
            text += f"; to Python: {_event_text(NsEvent.unpack(bytes(verdict.event)))}"
        if verdict.answer_length:
            text += f"; answer {bytes(verdict.answer)[: verdict.answer_length].hex()}"
        return text


def _action(number: int) -> str:
    names = ("XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
    return names[number] if 0 <= number < len(names) else f"action {number}"


def _event_text(event: NsEvent) -> str:
    return (
        f"{IPv6Address(event.target)} asked by {IPv6Address(event.source)} ({event.answer_mac.hex(':')}), rule"
        f" {event.rule}, flags {event.flags:#x} {event.tci.hex()}"
    )
