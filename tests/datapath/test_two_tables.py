# SPDX-License-Identifier: GPL-2.0-or-later
"""While one table follows another, each solicitation is decided by one of the two, however long its way takes.

The tables here both leave a target alone, each for its own reason; who comes upon some of the one and some of the other
would answer for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, NamedTuple

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig, Vlan
from npd6_xdp.core.layout import EXACT_KEY, INDEX, WRITES
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Method
from npd6_xdp.system.bpf import compiler, load
from npd6_xdp.system.bpf.port_entries import PLACES
from npd6_xdp.system.bpf.testrun import TestRun
from tests.datapath.harness import IFINDEX, PORT, XDP_DROP, XDP_PASS, XDP_TX, Bench, entry, link, rule, table
from tests.datapath.present import QUESTION, question
from tests.datapath.test_plain import TAGGED, shown
from tests.frames import SETTING

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading an XDP program needs root")

_LOOK_UP = "\treturn exact_matches.lookup(&exact);\n"
_LINGERING = """\
	struct rule *line;

	for (int i = 0; i < LINGER; i++)
		bpf_ktime_get_ns();
	line = exact_matches.lookup(&exact);
	for (int i = 0; i < LINGER; i++)
		bpf_ktime_get_ns();
	return line;
"""
_LINGER = 1000  # times of about 30 ns, before and behind a look-up
_RUNS = 50  # of a frame, a system call
_ENOUGH = 3000  # runs, with about as many changes meanwhile: one by a program that looks only once was wrong by then
_FAR, _WIDE = "2001:db9::/64", "2001:db8::/32"
_OTHER = "other"
_OTHERS_FACTS = LinkFacts(_OTHER, IFINDEX + PLACES, SETTING.mac)  # whose place is the port's as well


class Kind(NamedTuple):
    """A frame, the VLAN of the entry that speaks for it, and whether another port has that port's place."""

    frame: bytes
    vlan: Vlan = Vlan()
    placeless: bool = False


KINDS = {
    "untagged": Kind(QUESTION),
    "one tag": Kind(TAGGED, Vlan(tags=(100,))),
    "a port without a place": Kind(QUESTION, placeless=True),
    "the long way": Kind(question(options=b"")),
    "the long way, one tag": Kind(TAGGED + bytes(4), Vlan(tags=(100,))),
}


def made(kind: Kind, before: Table | None, *rules: RuleConfig, hop: bool) -> Table:
    """The table of these rules, where the target is a next hop or isn't."""
    entries = entry(*rules, vlan=kind.vlan), InterfaceConfig(_OTHER, (rule(_WIDE),))
    facts = {PORT: link(next_hops=["2001:db8:1::42"] if hop else ()), _OTHER: _OTHERS_FACTS}
    return build(Config(entries), facts, before)


def put(bench: Bench, kind: Kind, *rules: RuleConfig, hop: bool) -> Table:
    """Such a table, in force."""
    first = (
        build(Config((InterfaceConfig(_OTHER, (rule(_WIDE),)),)), {_OTHER: _OTHERS_FACTS}) if kind.placeless else None
    )
    if first is not None:
        bench.use(first)
    using = made(kind, first, *rules, hop=hop)
    bench.use(using)
    return using


def program(patch: pytest.MonkeyPatch, *changes: tuple[str, str]) -> Bench:
    """The program with these places of its text changed."""
    source = load._source(compiler.BPF_DIRECTORY)
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    patch.setenv("CACHE_DIRECTORY", os.devnull)
    patch.setattr(load, "_source", lambda _: source)
    return Bench(table(entry()))


@pytest.fixture(scope="module")
def lingering() -> Iterator[Bench]:
    """The program, but that it stands still for some microseconds before it looks for a line, and behind that."""
    with pytest.MonkeyPatch.context() as patch:
        bench = program(patch, (_LOOK_UP, _LINGERING.replace("LINGER", str(_LINGER))))
    yield bench
    bench.close()


class Asking:
    """Asks with a frame all the time, in a thread of its own."""

    def __init__(self, bench: Bench, frame: bytes) -> None:
        self.runs, self.answered = 0, 0
        self._fd, self._frame, self._over = bench.ns_filter.program.fd, frame, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        runs = TestRun()
        while not self._over.is_set():
            self.answered += runs.run(self._fd, self._frame, _RUNS).frame != self._frame
            self.runs += _RUNS


@pytest.mark.parametrize("others", [(), (rule(_FAR),)], ids=["one prefix", "two prefixes"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_two_tables_leave_alone_is_not_answered_while_they_follow_each_other(
    lingering: Bench, kind: Kind, others: tuple[RuleConfig, ...]
) -> None:
    using = put(lingering, kind, rule(_WIDE), *others, hop=True)
    with Asking(lingering, kind.frame) as asking:
        for method in cycle((Method.IGNORE, Method.STATIC)):
            using = made(kind, using, rule(_WIDE, method), *others, hop=method is Method.STATIC)
            lingering.ns_filter.apply(using)
            if asking.runs >= _ENOUGH or asking.answered:
                break
    assert asking.answered == 0, f"by neither table, {asking.answered} times of {asking.runs}"


@pytest.mark.parametrize("kind", [kind for name, kind in KINDS.items() if "long" not in name])
def test_the_short_way_leaves_what_it_found_to_the_long_one_if_another_table_has_begun(
    monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    found, end = "\trule = *found; /* a copy", "\trule_counter->outcome[OUTCOME_ANSWERED_XDP]++;\n"
    begun = f"\t*(u64 *)seen.place = 0;\n{found}"
    bench = program(monkeypatch, (found, begun), (f"{end}\treturn XDP_TX;", f"{end}\treturn XDP_DROP;"))
    put(bench, kind, rule(_WIDE), hop=False)
    assert (IFINDEX in shown(bench.ns_filter.program)) is not kind.placeless
    seen = [bench.see(kind.frame) for _ in range(3)]
    assert [each.counted for each in seen] == [("answered_xdp",)] * 3
    assert kind.frame != seen[0].frame == seen[1].frame == seen[2].frame
    assert seen[0].action == XDP_TX, "by the long way, since what was seen is another one"
    assert seen[-1].action == XDP_DROP, "by the short way, since nothing is another one any more"
    bench.close()


@pytest.mark.parametrize(
    ("when", "action", "counted"),
    [("look == 0", XDP_TX, "answered_xdp"), ("look < LOOKS", XDP_PASS, "lost")],
    ids=["once", "twice"],
)
def test_the_long_way_looks_twice_and_then_leaves_a_solicitation_alone(
    monkeypatch: pytest.MonkeyPatch, when: str, action: int, counted: str
) -> None:
    looked = "\t\tif (is_one_table(s)) {\n"
    begun = f"\t\tu64 *writes = table_writes.lookup(&key);\n\t\tif (writes && {when})\n\t\t\t*writes += 1;\n{looked}"
    bench = program(monkeypatch, (looked, begun))
    put(bench, KINDS["the long way"], rule(_WIDE), hop=False)
    seen = bench.see(KINDS["the long way"].frame)
    assert (seen.action, seen.counted) == (action, (counted,))
    bench.close()


def test_each_write_of_a_table_is_announced_before_it_is_done(
    lingering: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, or all of one length at once: of these, one target has one line at most."""
    maps, numbers = lingering.ns_filter.program, list[int]()

    def watched(name: str) -> Callable[..., None]:
        real = getattr(maps, name)

        def write(which: str, *rest: Any) -> None:
            if which in ("entries", "vias", "exact_matches", "prefix_trie"):
                (number,) = WRITES.unpack(maps.lookup("table_writes", INDEX.pack(0), WRITES.size) or b"")
                numbers.append(number)
                if name == "update_all" and which == "exact_matches":
                    assert len({EXACT_KEY.get(key, "length") for key in rest[0]}) == 1
            real(which, *rest)

        return write

    before = put(lingering, KINDS["one tag"], rule(_WIDE), rule(_FAR), hop=False)
    with monkeypatch.context() as patch:
        for name in ("update", "update_all", "delete", "delete_all"):
            patch.setattr(maps, name, watched(name))
        lingering.ns_filter.apply(made(KINDS["one tag"], before, rule(_WIDE, Method.IGNORE), hop=True))
    assert len(numbers) >= 4
    assert numbers == sorted(set(numbers)), "each has a number of its own"
