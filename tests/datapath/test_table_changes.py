# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables that follow each other in the maps."""

from __future__ import annotations

import ctypes as ct
import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, Datapath, InterfaceConfig, Limits, Vlan
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.layout import ENTRY, ENTRY_KEY, EXACT_KEY, FLAG, RULE, TRIE_KEY, VIA_KEY, Layout
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import Decision, Match, Table
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.system.bpf import sizes
from npd6_xdp.system.bpf.program import InDoubt
from tests.datapath.harness import (
    IFINDEX,
    PORT,
    XDP_DROP,
    XDP_PASS,
    XDP_TX,
    Bench,
    entry,
    link,
    rule,
    table,
)
from tests.datapath.present import HYBRID, PYTHON
from tests.frames import SETTING, TAGS_8021Q, ip6, solicited_node
from tests.kinds import solicit

NUMBERS = range(4)
PREFIXES = (
    ["2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::/64", "2001:db8:1::/112", "2001:db8:1::/126"]
    + [f"2001:db8:1::{n}/128" for n in NUMBERS]
    + ["2001:db8:1::2/127"]
)
TARGETS = ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3", "2001:db8:1::f", "2001:db8:1:1::1", "2001:db8:2::1"]
FRAMES: dict[tuple[tuple[int, ...], str], bytes] = {(tags, target): solicit(
    replace(SETTING, target=ip6(target), tags=TAGS_8021Q if tags else b""), destination=solicited_node(ip6(target))
) for tags in ((), (100,)) for target in TARGETS}  # fmt: skip

rule_lists = st.lists(
    st.builds(rule, st.sampled_from(PREFIXES), st.sampled_from([Method.STATIC, Method.IGNORE])),
    min_size=1,
    max_size=6,
    unique_by=lambda each: each.prefix,
)
addresses = st.lists(st.sampled_from(TARGETS), max_size=2, unique=True)
RULES = 24  # more than two tables have
VLANS = (Vlan(), Vlan(tags=(100,)), Vlan(any=True))
Half = tuple[tuple[InterfaceConfig, ...], LinkFacts]


@st.composite
def halves(draw: st.DrawFn, vlans: st.SearchStrategy[tuple[Vlan, ...]], datapath: Datapath) -> Half:
    """Entries, and what the machine says. Under hybrid, the short way has its own of what they say."""
    entries = tuple(entry(*draw(rule_lists), vlan=vlan, datapath=datapath) for vlan in draw(vlans))
    return entries, link(draw(addresses), draw(addresses))


def decided(using: Table, tags: tuple[int, ...], target: str) -> tuple[object, int | None]:
    """What becomes of a solicitation by a table: an outcome, or that it goes up, or is answered, by a rule."""
    speaking = using.entry_of(IFINDEX, tags)
    if speaking is None:
        return "unseen", None
    found = using.lookup(speaking.id, IPv6Address(target))
    if not isinstance(found, Match):
        return found, None
    if found.decision is Decision.STATIC:
        return "answered" if speaking.datapath is HYBRID else "up", found.rule
    return (Outcome.OWN if found.decision is Decision.OWN else Outcome.IGNORED), None


def observed(bench: Bench, tags: tuple[int, ...], target: str) -> tuple[object, int | None]:
    """What does become of it."""
    program = bench.ns_filter.program
    before = [program.entry_counters(number).outcomes for number in range(6)]
    answered = [program.rule_counters(number) for number in range(RULES)]
    action, _ = bench.run(FRAMES[tags, target])
    events = bench.events()
    if action == XDP_TX:
        (rule,) = (number for number in range(RULES) if program.rule_counters(number) != answered[number])
        return "answered", rule
    if action == XDP_DROP and events:
        (event,) = events
        return "up", event.rule
    grown = [
        outcome
        for number, counts in enumerate(before)
        for outcome, count in program.entry_counters(number).outcomes.items()
        if count > counts[outcome]
    ]
    assert (action, len(grown)) in ((XDP_PASS, 0), (XDP_PASS, 1))
    return (grown[0] if grown else "unseen"), None


class WithoutBatches:
    """libbpf on a kernel that knows no batches of map entries: they go one by one, in the same order."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: -errno.EINVAL) if name.endswith("_batch") else getattr(self._lib, name)


def watched_change(bench: Bench, old: Table, new: Table, *, batches: bool) -> int:
    """Go from one table to the next and look at every target after each step; the number of steps."""
    steps, _ = watched_try(bench, old, new, batches=batches)
    for key in FRAMES:
        assert observed(bench, *key) == decided(new, *key), key
    return steps


def watched_try(bench: Bench, old: Table, new: Table, *, batches: bool, refused: int = 0) -> tuple[int, bool]:
    """The same, where a map refuses what is put into it as the `refused`th; the number of steps, and whether it came to
    that.
    """
    program = bench.ns_filter.program
    steps = puts = 0
    allowed = {key: {decided(old, *key), decided(new, *key)} for key in FRAMES}

    def look() -> None:
        for key, either in allowed.items():
            assert observed(bench, *key) in either, (key, steps)

    def watching(step: Callable[..., None]) -> Callable[..., None]:
        def watched(*arguments: Any) -> None:
            nonlocal steps, puts
            puts += "update" in step.__name__
            if is_refused := puts == refused and "update" in step.__name__:
                name, *some = arguments
                arguments = name, *(each[: len(each) // 2] if isinstance(each, list) else each for each in some)
            if not is_refused or step.__name__ == "update_all":  # the first of them are in it then
                step(*arguments)
            steps += 1
            look()
            if is_refused:
                raise Full

        return watched

    with pytest.MonkeyPatch.context() as patch:
        places = WatchedPlaces(program._port_entries._places, look)
        patch.setattr(program._port_entries, "_places", places)
        for step in ("update", "delete", *(("update_all", "delete_all") if batches else ())):
            patch.setattr(program, step, watching(getattr(program, step)))
        if not batches:
            patch.setattr(program, "_lib", WithoutBatches(program._lib))
        try:
            bench.use(new)
        except Full:
            return steps, True
    return steps, False


class WatchedPlaces:
    """The places of ports, and a look after each store."""

    def __init__(self, places: memoryview, look: Callable[[], None]) -> None:
        self._places, self._look = places, look

    def __getitem__(self, place: int) -> int:
        return int(self._places[place])

    def __setitem__(self, place: int, value: int) -> None:
        self._places[place] = value
        self._look()


class Full(MachineError):
    """A map refuses something."""


MAPS: dict[str, tuple[Layout, Layout]] = {
    "entries": (ENTRY_KEY, ENTRY),
    "vias": (VIA_KEY, FLAG),
    "exact_matches": (EXACT_KEY, RULE),
    "prefix_trie": (TRIE_KEY, RULE),
}


def said(bench: Bench) -> dict[str, dict[bytes, bytes | None]]:
    """All that the maps of a table say."""
    program = bench.ns_filter.program
    return {
        name: {key: program.lookup(name, key, value.size) for key in keys(bench, name, layout.size)}
        for name, (layout, value) in MAPS.items()
    }


def keys(bench: Bench, name: str, size: int) -> Iterator[bytes]:
    """Those of a map."""
    program = bench.ns_filter.program
    key, last = ct.create_string_buffer(size), None
    while program._lib.bpf_get_next_key(program.maps[name], last, key) == 0:
        last = key.raw
        yield last


SPOKEN = st.lists(st.sampled_from(VLANS[:2]), min_size=1, unique=True).map(tuple)


@pytest.mark.parametrize(("batches", "datapath"), [(True, PYTHON), (False, PYTHON), (True, HYBRID)])
def test_while_one_table_follows_another_every_target_is_decided_by_one_of_the_two(
    bench: Bench, batches: bool, datapath: Datapath
) -> None:
    most = 0

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(halves(SPOKEN, datapath), halves(SPOKEN, datapath))
    def compare(before: Half, after: Half) -> None:
        nonlocal most
        old = build(Config(before[0]), {PORT: before[1]})
        new = build(Config(after[0]), {PORT: after[1]}, old)
        bench.ns_filter.apply(Table({}, {}, {}, {}, {}))
        bench.use(old)
        for key in FRAMES:
            assert observed(bench, *key) == decided(old, *key), key
        most = max(most, watched_change(bench, old, new, batches=batches))

    compare()
    assert most > (5 if batches else 10)


@pytest.mark.parametrize("back", [False, True], ids=["there", "and back"])
def test_a_target_that_gets_an_own_address_while_its_prefix_gets_answered_is_not_answered(
    bench: Bench, back: bool
) -> None:
    """Nor on the way back. The short way's filter knows of the address before its prefix is answered."""
    bench.ns_filter.apply(Table({}, {}, {}, {}, {}))
    prefixes = "2001:db8:1::2/127", "2001:db8:1::/48"
    old = build(Config((entry(*(rule(each, Method.IGNORE) for each in prefixes), datapath=HYBRID),)), {PORT: link()})
    new = build(Config((entry(*map(rule, prefixes), datapath=HYBRID),)), {PORT: link(["2001:db8:1::3"])}, old)
    tables = (new, old) if back else (old, new)
    bench.use(tables[0])
    assert watched_change(bench, *tables, batches=False) > 3
    bench.ns_filter.apply(Table({}, {}, {}, {}, {}))


@pytest.mark.parametrize(
    ("batches", "hashed", "datapath"),
    [(True, False, PYTHON), (False, False, PYTHON), (True, True, PYTHON), (False, False, HYBRID)],
)
def test_where_a_map_refuses_anything_all_is_as_before_and_no_target_was_lost_meanwhile(
    bench: Bench, batches: bool, hashed: bool, datapath: Datapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the way back, too, every target is decided by one of the two tables."""
    if hashed:  # prefixes of few lengths, which its entry has
        monkeypatch.setattr("npd6_xdp.system.bpf.pack._HASHED_FROM", 1)
    came_to_that = set[int]()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(halves(SPOKEN, datapath), halves(SPOKEN, datapath), st.integers(1, 10))
    def compare(before: Half, after: Half, refused: int) -> None:
        old = build(Config(before[0]), {PORT: before[1]})
        new = build(Config(after[0]), {PORT: after[1]}, old)
        bench.ns_filter.apply(Table({}, {}, {}, {}, {}))
        bench.use(old)
        there = said(bench)
        _, was_refused = watched_try(bench, old, new, batches=batches, refused=refused)
        if was_refused:
            came_to_that.add(refused)
            assert said(bench) == there
            for key in FRAMES:
                assert observed(bench, *key) == decided(old, *key), key
            watched_change(bench, old, new, batches=batches)

    compare()
    bench.ns_filter.apply(Table({}, {}, {}, {}, {}))
    assert max(came_to_that) > 3


LENGTHS = {
    "hash": ("2001:db8:1::/48", "2001:db8::/32"),
    "other hash": ("2001:db8:1::/64", "2001:db8:1:8000::/49", "2001:db8::/33", "2001::/16"),
    "trie": ("2001:db8:1::/64", "2001:db8:1::/56", "2001:db8:1::/48", "2001:db8::/40", "2001:db8::/32", "2001::/16"),
}


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize(("before", "after"), [(one, other) for one in LENGTHS for other in LENGTHS if one != other])
def test_prefixes_go_from_the_hash_to_the_trie_and_back_with_every_target_decided(
    bench: Bench, before: str, after: str, batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of few lengths of prefixes has them in the hash, one of many in the trie."""
    bench.ns_filter.apply(Table({}, {}, {}, {}))
    monkeypatch.setattr("npd6_xdp.system.bpf.pack._HASHED_FROM", 1)
    methods = (Method.STATIC, Method.IGNORE)
    tables: list[Table] = []
    for number, name in enumerate((before, after)):
        rules = [rule(prefix, methods[(number + place) % 2]) for place, prefix in enumerate(LENGTHS[name])]
        tables.append(build(Config((entry(*rules, datapath=PYTHON),)), {PORT: link()}, tables[0] if tables else None))
    bench.use(tables[0])
    assert watched_change(bench, *tables, batches=batches) >= 3
    bench.ns_filter.apply(Table({}, {}, {}, {}))


# --- many at once ---


@pytest.mark.parametrize("batches", [True, False])
def test_many_lines_go_into_the_maps_and_out_again_and_what_they_count_is_read_at_once(
    fresh: Callable[..., Bench], batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one system call takes, of both kinds."""
    many = [rule(f"2001:db8:{number:x}::/48") for number in range(5000)]
    many += [rule(f"2001:db9::{number:x}") for number in range(5000)]
    using = table(entry(*many))
    bench = fresh(using)
    program = bench.ns_filter.program
    if not batches:
        monkeypatch.setattr(program, "_lib", WithoutBatches(program._lib))
        bench.ns_filter.apply(Table({}, {}, {}, {}))
        bench.use(using)
    asked = {0: "2001:db8::7", 4999: "2001:db8:1387::1", 5000: "2001:db9::", 9999: "2001:db9::1387"}
    for number, target in asked.items():
        for _ in range(1 + number % 3):
            assert bench.run(solicit(SETTING, target=ip6(target)))[0] == XDP_TX
    wanted = {number: bench.ns_filter.rule_counters(number) for number in asked}
    assert bench.ns_filter.all_rule_counters() == wanted
    assert [sum(counts.values()) for counts in wanted.values()] == [1, 2, 3, 1]
    fewer = build(Config((entry(*many[1:-1]),)), {PORT: link()}, using)
    bench.use(fewer)
    for number, target in asked.items():
        answered = bench.run(solicit(SETTING, target=ip6(target)))[0] == XDP_TX
        assert answered == (number in (4999, 5000))


def test_where_a_map_is_full_all_lines_are_as_before(fresh: Callable[..., Bench]) -> None:
    old = table(entry(rule("2001:db8::/32"), rule("2001:db8:1::/48", Method.IGNORE)))
    bench = fresh(old)
    too_many = [rule(f"2001:db9:{number >> 16:x}:{number & 0xFFFF:x}::/64") for number in range(20_000)]
    new = build(Config((entry(rule("2001:db8::/32", Method.IGNORE), *too_many),)), {PORT: link()}, old)
    assert not bench.ns_filter.has_space(new, Limits())
    with pytest.raises(MachineError, match="kernel map exact_matches: can't add an entry: it is full"):
        bench.ns_filter.apply(new)
    for target, action in (("2001:db8::1", XDP_TX), ("2001:db8:1::1", XDP_PASS), ("2001:db9::1", XDP_PASS)):
        assert bench.run(solicit(SETTING, target=ip6(target)))[0] == action
    after = build(
        Config(
            (
                entry(
                    rule("2001:db9::/64"),
                ),
            )
        ),
        {PORT: link()},
        old,
    )
    bench.use(after)
    for target, action in (("2001:db8::1", XDP_PASS), ("2001:db9::1", XDP_TX), ("2001:db9:0:1::1", XDP_PASS)):
        assert bench.run(solicit(SETTING, target=ip6(target)))[0] == action


FEW = (rule("2001:db8::/32"), rule("2001:db8:1::/48", Method.IGNORE))
OTHER = (rule("2001:db8::/32", Method.IGNORE), rule("2001:db8:1::/48"))
TOO_MANY = {
    "prefix_trie": (entry(*OTHER, rule("2001:db8:2::/48"), rule("2001:db8:3::/64")),),
    "entries": tuple(entry(*OTHER, vlan=Vlan(tags=tags)) for tags in ((), (100,), (200,), (300,))),
}


@pytest.mark.parametrize("full", TOO_MANY)
def test_what_the_kernel_has_no_room_for_comes_to_nothing_and_counts_as_before(
    fresh: Callable[..., Bench], full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "_size", lambda name, wanted: wanted + 64 * (name != f"{full.upper()}_MAX"))
    old = table(entry(*FEW))
    bench = fresh(old)
    answered = solicit(SETTING, target=ip6("2001:db8::1"))
    assert bench.run(answered)[0] == XDP_TX
    new = build(Config(TOO_MANY[full]), {PORT: link()}, old)
    there = said(bench)
    assert not bench.ns_filter.has_space(new, Limits())
    with pytest.raises(MachineError, match=f"kernel map {full}: can't add an entry: it is full"):
        bench.ns_filter.apply(new)
    assert said(bench) == there
    assert bench.run(answered)[0] == XDP_TX
    assert sum(bench.ns_filter.entry_counters(0).outcomes.values()) == 2
    assert sum(bench.ns_filter.all_rule_counters()[0].values()) == 2
    assert bench.ns_filter.program.entries == old.entries.keys()


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
def test_a_line_that_cannot_be_written_back_is_tried_once_more_and_then_all_is_in_doubt(
    fresh: Callable[..., Bench], again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no memory for it: the kernel writes no line over, but puts another in its place."""
    old = table(entry(*FEW))
    bench = fresh(old)
    there, program = said(bench), bench.ns_filter.program
    update, update_all, refused = program.update, program.update_all, 0

    def first_of(name: str, keys: list[bytes], values: list[bytes]) -> None:
        update_all(name, keys[:1], values[:1])
        if values[0] == RULE.pack(*new.decisions[0].lines[Prefix.of("2001:db8::/32")]):  # the last of all
            raise Full

    def refuse(name: str, key: bytes, value: bytes) -> None:
        nonlocal refused
        if name == "prefix_trie" and (again or not refused):
            refused += 1
            raise Full("no memory")
        update(name, key, value)

    new = build(Config((entry(*OTHER, rule("2001:db8:2::/48")),)), {PORT: link()}, old)
    with monkeypatch.context() as patch:
        patch.setattr(program, "update_all", first_of)
        patch.setattr(program, "update", refuse)
        with pytest.raises(InDoubt if again else Full):
            bench.ns_filter.apply(new)
    assert refused > again
    assert (said(bench) == there) is not again
