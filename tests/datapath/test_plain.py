# SPDX-License-Identifier: GPL-2.0-or-later
"""The short way of plain solicitations: which frames of which entries go it, and that its maps are always right.

That it decides as the long one does is for the fuzzer (tests/fuzz) to see.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, NaSource, Vlan
from npd6_xdp.core.hidden import Tapped
from npd6_xdp.core.layout import ENTRY, INDEX, PLACE
from npd6_xdp.core.table import PresentFlag, Table
from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.system.bpf import compiler, load, port_entries
from npd6_xdp.system.bpf.maps import Maps
from npd6_xdp.system.bpf.port_entries import PLACES, PortEntries
from npd6_xdp.system.bpf.trace import Looking, TraceRing
from tests.datapath.harness import IFINDEX, PORT, XDP_DROP, XDP_PASS, XDP_TX, Bench, Hook, entry, link, rule, table
from tests.datapath.present import KERNEL, LAN, MONITOR, NEIGHBOUR, PYTHON, QUESTION, TARGET, one, question
from tests.frames import FOREIGN_MAC, MULTICAST_MAC, SETTING, TAGS_8021Q, TAGS_PRIORITY, TAGS_QINQ, ip6
from tests.kinds import HBH, solicit
from tests.netns.wire import until

HOOKS = tuple(Hook)
OPTION = b"\x01\x01" + SETTING.asker_mac
NONCE = b"\x0e\x01" + bytes(6)
TAGGED = solicit(replace(SETTING, tags=TAGS_8021Q))
QINQ = solicit(replace(SETTING, tags=TAGS_QINQ))
PRIORITY = solicit(replace(SETTING, tags=TAGS_PRIORITY))
GLOBAL = question(source=ip6("2001:db8:9::1"))


@pytest.fixture(scope="module")
def program() -> Iterator[Bench]:
    """The program, but that frames which the short way has answered are dropped then."""
    if os.geteuid() != 0:
        pytest.skip("loading an XDP program needs root")
    source, end = load._source(compiler.BPF_DIRECTORY), "\trule_counter->outcome[OUTCOME_ANSWERED_XDP]++;\n"
    marked = source.replace(f"{end}\treturn XDP_TX;", f"{end}\treturn XDP_DROP;")
    assert marked != source
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_DIRECTORY", os.devnull)
        patch.setattr(load, "_source", lambda _: marked)
        bench = Bench(table(entry()))
    yield bench
    bench.close()


def static(**keys: Any) -> Table:
    return one(Method.STATIC, **keys)


SHORT = {
    "untagged": (static(), QUESTION),
    "one tag": (static(vlan=Vlan(tags=(100,))), TAGGED),
    "two tags": (static(vlan=Vlan(any=True)), QINQ),
    "any VLAN, untagged": (static(vlan=Vlan(any=True)), QUESTION),
    "a priority tag": (static(), PRIORITY),
    "a global source": (static(), GLOBAL),
    "a rule for one address": (table(entry(rule("2001:db8::/32", Method.IGNORE), rule("2001:db8:1::42"))), QUESTION),
    "two prefixes": (table(entry(rule("2001:db8::/32"), rule("2001:db8:1::/48"))), QUESTION),
    "an address of the host's elsewhere": (
        build(
            Config((entry(rule("2001:db8::/32", Method.ROUTE)),)),
            {PORT: link(), "lan0": replace(LAN, addresses=link(["2001:db8:1::42"]).addresses)},
        ),
        QUESTION,
    ),
}
LONG: dict[str, tuple[Table, bytes, int]] = {
    "datapath python": (static(datapath=PYTHON), QUESTION, XDP_DROP),
    "datapath monitor": (static(datapath=MONITOR), QUESTION, XDP_PASS),
    "targets are collected": (static(collect_targets=10), QUESTION, XDP_TX),
    "a budget of new targets": (static(new_targets_per_second=1000), QUESTION, XDP_TX),
    "one of two edges": (static(active_with="192.0.2.1"), QUESTION, XDP_TX),
    "the source is an interface's": (
        table(entry(na_source=NaSource.INTERFACE), facts=link(["fe80::7"])),
        QUESTION,
        XDP_TX,
    ),
    "an own address": (table(entry(), facts=link(["2001:db8:1::42"])), QUESTION, XDP_PASS),
    "a next hop": (table(entry(), facts=link(next_hops=["2001:db8:1::42"])), QUESTION, XDP_PASS),
    "ignored": (one(Method.IGNORE), QUESTION, XDP_PASS),
    "no rule": (table(entry(rule("2001:db9::/32"))), QUESTION, XDP_PASS),
    "a link-local target": (table(entry(rule("fe80::42"))), question(ip6("fe80::42")), XDP_TX),
    "no option": (static(), question(options=b""), XDP_TX),
    "a Nonce": (static(), question(options=OPTION + NONCE), XDP_TX),
    "a group's address in the option": (static(), question(options=b"\x01\x01" + MULTICAST_MAC), XDP_TX),
    "an options header": (static(), question(headers=[HBH]), XDP_DROP),
    "a trailer": (static(), QUESTION + bytes(4), XDP_TX),
    "another station's": (static(), FOREIGN_MAC + QUESTION[6:], XDP_PASS),
    "a wrong checksum": (static(), QUESTION[:57] + bytes([QUESTION[57] ^ 1]) + QUESTION[58:], XDP_PASS),
    "an unknown host": (one(NEIGHBOUR), QUESTION, XDP_DROP),
    "the kernel's proxy": (one(KERNEL), QUESTION, XDP_DROP),
}


def answered_short(bench: Bench, frame: bytes) -> bool:
    """Whether the short way answers: the frame is an answer then, and counted as one of XDP's."""
    seen = bench.see(frame)
    events = bench.events()
    if seen.action != XDP_DROP or events or seen.frame == frame:
        return False
    assert seen.counted == ("answered_xdp",)
    return True


@pytest.mark.parametrize(("using", "frame"), SHORT.values(), ids=SHORT)
def test_a_plain_solicitation_is_answered_by_the_short_way(bench: Bench, using: Table, frame: bytes) -> None:
    bench.use(using)
    assert answered_short(bench, frame)
    assert sum(sum(each.values()) for each in bench.ns_filter.all_rule_counters().values()) > 0


@pytest.mark.parametrize(("using", "frame", "action"), LONG.values(), ids=LONG)
def test_what_is_not_plain_goes_the_long_way(bench: Bench, using: Table, frame: bytes, action: int) -> None:
    bench.use(using)
    assert not answered_short(bench, frame)
    assert bench.run(frame)[0] == action
    bench.events()


@pytest.mark.parametrize(("flags", "is_short"), [(PresentFlag(0), True), (PresentFlag.STALE, False)])
def test_a_known_host_is_plain_until_it_is_stale(bench: Bench, flags: PresentFlag, is_short: bool) -> None:
    using = one(NEIGHBOUR)
    bench.use(using)
    bench.ns_filter.set_present(using.rules[0].via_set, TARGET, flags)
    asked = bench.ns_filter.asked(using.rules[0].via_set, TARGET)
    assert answered_short(bench, QUESTION) is is_short
    assert 0 <= bench.ns_filter.asked(using.rules[0].via_set, TARGET) - asked <= 2
    bench.ns_filter.forget(using.rules[0].via_set, TARGET)
    assert not answered_short(bench, QUESTION)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("which", ["guarded", "sampled"])
def test_what_may_have_a_hidden_tag_goes_the_long_way(program: Bench, hook: Hook, which: str) -> None:
    """By XDP it may be held; and by tc, XDP may have held it. A tag that is seen is believed."""
    program.hook = hook
    program.ns_filter.tap(Tapped(frozenset({IFINDEX}), **{which: frozenset({IFINDEX})}))
    program.use(static(vlan=Vlan(any=True)))
    assert not answered_short(program, QUESTION)
    assert answered_short(program, TAGGED)
    program.ns_filter.tap(Tapped(frozenset(), silent=frozenset({IFINDEX})))
    program.use(static(vlan=Vlan(any=True)))
    assert not answered_short(program, QUESTION)
    assert answered_short(program, TAGGED)
    program.ns_filter.tap(Tapped())
    program.use(static())
    program.hook = Hook.XDP


def test_who_traces_sees_what_goes_the_short_way_and_others_go_it_too(bench: Bench) -> None:
    bench.use(static())
    ring = TraceRing()
    for wanted, seen in ((Filter(), 1), (Filter(outcomes=frozenset({Outcome.OWN})), 0)):
        bench.ns_filter.look(Looking(ring.fileno(), wanted.pack(), ""), frozenset())
        assert answered_short(bench, QUESTION)
        assert bench.ns_filter.looked().matched == seen
        bench.ns_filter.look_away()
    ring.close()


# --- the entries of untagged frames ---


def shown(program: Maps) -> dict[int, bytes]:
    """By interface index, what the program finds at the places."""
    found = {}
    for place in range(PLACES):
        value = program.lookup("port_places", INDEX.pack(place), PLACE.size)
        assert value is not None
        (word,) = PLACE.unpack(value)
        if word:
            assert (word >> 32) % PLACES == place
            entry = program.lookup("port_entries", INDEX.pack(word & 0xFFFFFFFF), ENTRY.size)
            assert entry is not None
            found[word >> 32] = entry
    return found


def shown_at(program: Maps, ifindex: int) -> bytes:
    """The same of one port."""
    value = program.lookup("port_places", INDEX.pack(ifindex % PLACES), PLACE.size)
    (word,) = PLACE.unpack(value or bytes(PLACE.size))
    assert word >> 32 == ifindex
    return program.lookup("port_entries", INDEX.pack(word & 0xFFFFFFFF), ENTRY.size) or b""


@pytest.fixture
def places(fresh: Callable[..., Bench]) -> PortEntries:
    """Those of a program that has no table."""
    return fresh(Table({}, {}, {}, {}, {})).ns_filter.program._port_entries


def said(number: int) -> bytes:
    return ENTRY.replaced(bytes(ENTRY.size), "id", number)


def test_each_port_is_shown_its_own_and_one_whose_place_is_taken_waits_until_that_is_free(places: PortEntries) -> None:
    program = places._maps
    places.follow({7: said(1), PLACES + 8: said(2), PLACES + 7: said(3)})
    assert shown(program) == {7: said(1), PLACES + 8: said(2)}
    places.follow({PLACES + 8: said(4), PLACES + 7: said(3)})
    assert shown(program) == {PLACES + 8: said(4), PLACES + 7: said(3)}
    places.leave({PLACES + 7: said(3)})
    assert shown(program) == {PLACES + 7: said(3)}


class Cpus:
    """They go on once somebody says so; how often that was waited for, and what was let go of by then."""

    def __init__(self, places: PortEntries, monkeypatch: pytest.MonkeyPatch) -> None:
        self._places, self._real = places, port_entries._every_cpu_went_on
        self.go_on, self.waited, self.known = threading.Event(), 0, True
        monkeypatch.setattr(port_entries, "_every_cpu_went_on", self._wait)

    def _wait(self) -> bool:
        self.waited += 1
        assert self.go_on.wait(20.0)
        return self._real() and self.known

    def have_gone_on(self) -> bool:
        waiting = self._places._waiting
        return until(lambda: waiting is None or waiting.is_over)


def test_a_copy_is_written_over_only_once_every_cpu_has_gone_on_and_nobody_waits_for_that(
    places: PortEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, cpus = places._maps, Cpus(places, monkeypatch)
    space = program.size("port_entries")
    for number in range(space):
        places.follow({7: said(number)})
    copies = [program.lookup("port_entries", INDEX.pack(each), ENTRY.size) for each in range(space)]
    assert sorted(ENTRY.get(each or b"", "id") for each in copies) == list(range(space)), "none was written over"
    assert places.due is None
    places.follow({7: said(space)})
    assert shown(program) == {}, "the map has it"
    assert places.due is not None
    copies = [program.lookup("port_entries", INDEX.pack(each), ENTRY.size) for each in range(space)]
    assert sorted(ENTRY.get(each or b"", "id") for each in copies) == list(range(space)), "none was written over"
    assert cpus.waited == 1
    first = {*places._waiting.numbers} if places._waiting else set()

    cpus.go_on.set()
    assert cpus.have_gone_on()
    places.follow({7: said(space)})
    assert shown(program) == {7: said(space)}
    copies = [program.lookup("port_entries", INDEX.pack(each), ENTRY.size) for each in range(space)]
    (written,) = (each for each, copy in enumerate(copies) if copy == said(space))
    assert written in first, "of those that were let go of before the wait began"
    assert places.due is None


def test_where_changes_are_no_storm_a_port_always_has_a_copy(
    places: PortEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = Cpus(places, monkeypatch)
    cpus.go_on.set()
    for number in range(5 * places._maps.size("port_entries")):
        places.follow({7: said(number)})
        assert shown_at(places._maps, 7) == said(number)
        assert cpus.have_gone_on()
    assert 5 <= cpus.waited <= 15


def test_where_it_cannot_be_known_whether_a_copy_is_read_a_port_has_none(
    places: PortEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = Cpus(places, monkeypatch)
    cpus.known = False
    cpus.go_on.set()
    for number in range(places._maps.size("port_entries") + 1):
        places.follow({7: said(number)})
        assert cpus.have_gone_on()
    assert shown(places._maps) == {}
    places.follow({7: said(4)})
    tried = cpus.waited
    while places.due is not None:
        assert cpus.have_gone_on()
        places.follow({7: said(4)})
    assert cpus.waited <= tried + 1, "it isn't tried for ever"
    cpus.known = True
    for number in (4, 5):
        places.follow({7: said(number)})
        assert cpus.have_gone_on()
    places.follow({7: said(5)})
    assert shown(places._maps) == {7: said(5)}


def test_the_loop_shows_what_a_storm_of_changes_has_left_unshown(
    fresh: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = static()
    program = fresh(old).ns_filter.program
    cpus = Cpus(program._port_entries, monkeypatch)
    before = shown(program)
    assert [*before] == [IFINDEX]
    for number in range(program.size("port_entries")):
        program._port_entries.follow({IFINDEX: said(number)})
    program._port_entries.leave({})
    program.show()
    assert shown(program) == {}
    assert program.show_due is not None
    cpus.go_on.set()
    assert cpus.have_gone_on()
    program.show()
    assert shown(program) == before
    assert not program.show_due


def test_while_lines_change_their_entry_is_not_shown_though_it_stays_the_same(
    fresh: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefixes = "2001:db8::/32", "2001:db8:1::/48"
    old = table(entry(rule(prefixes[0]), rule(prefixes[1], Method.IGNORE)))
    new = build(Config((entry(rule(prefixes[0], Method.IGNORE), rule(prefixes[1])),)), {PORT: link()}, old)
    bench = fresh(old)
    program, meanwhile = bench.ns_filter.program, list[dict[int, bytes]]()
    before, update_all = dict(program._entries), program.update_all

    def watched(*what: Any) -> None:
        meanwhile.append(shown(program))
        update_all(*what)

    monkeypatch.setattr(program, "update_all", watched)
    bench.use(new)
    assert program._entries == before
    assert meanwhile
    assert not any(meanwhile)
    assert shown(program) == {IFINDEX: next(iter(before.values()))}


def test_the_copies_say_what_the_map_says(fresh: Callable[..., Bench]) -> None:
    bench = fresh(static())
    program = bench.ns_filter.program
    for using in (static(datapath=PYTHON), static(vlan=Vlan(any=True)), table(entry(), entry(vlan=Vlan(tags=(5,))))):
        bench.use(using)
        assert [*shown(program)] == [IFINDEX]
        assert shown(program)[IFINDEX] in program._entries.values()
    bench.use(static(vlan=Vlan(tags=(5,))))
    assert [ENTRY.get(each, "datapath") for each in shown(program).values()] == [2], "nobody speaks for untagged ones"
    bench.ns_filter.apply(Table({}, {}, {}, {}, {}))
    assert shown(program) == {}
