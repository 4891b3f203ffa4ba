# SPDX-License-Identifier: GPL-2.0-or-later
"""Other proxies between the same links: which stations a test finds, which not, and what counts as an echo."""

from __future__ import annotations

import secrets
from ipaddress import IPv6Address, IPv6Network

import pytest

from npd6_xdp.core import loops as loops_module
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.loops import HOLD, LEAST, OTHER_PROXY_SECONDS, PERIOD, TESTS_AT_ONCE, Loops
from npd6_xdp.core.loops import _gather as gather
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.table import Origin, Table
from tests.core.test_steps import timed

OTHER_PROXY, HOST = bytes.fromhex("0200000000b2"), bytes.fromhex("020000000042")
COUNT = 30
LINKS = {
    name: LinkFacts(name, number, number.to_bytes(6, "big"))
    for number, name in enumerate(("wan0", "dmz0", *(f"lan{n}" for n in range(COUNT))), 1)
}
WAN, DMZ, LAN = 1, 2, 3
PREFIX = "2001:db8:1::/64"


def table(*entries: str, before: Table | None = None) -> Table:
    """Entries as "NAME PREFIX via VIA..." or "NAME PREFIX METHOD"; "monitor" at the end makes one that only counts."""
    lines = []
    for name, prefix, method, *more in map(str.split, entries):
        lines += ["[[interface]]", f'name = "{name}"']
        if more and more[-1] == "monitor":
            lines.append(f'datapath = "{more.pop()}"')
        lines += ["[[interface.rule]]", f'prefix = "{prefix}"']
        lines += ['method = "neighbour"', f"via = {more}"] if method == "via" else [f'method = "{method}"']
    return build(parse("\n".join(lines), "test"), LINKS, before)


BOTH_WAYS = table(f"wan0 {PREFIX} via lan0", f"lan0 {PREFIX} via wan0")


def loops(using: Table = BOTH_WAYS) -> Loops:
    found = Loops(secrets.randbelow)
    found.use(using)
    return found


def test_both_links_are_asked_for_an_address_of_the_prefix_that_nobody_can_know() -> None:
    testing = loops()
    assert testing.links == {WAN, LAN}
    look, needless = testing.take_tests(100.0)
    assert sorted(host.ifindex for host in look) == [WAN, LAN]
    assert needless == []
    drawn = [IPv6Address(host.address) for host in look]
    assert all(address in IPv6Network(PREFIX) for address in drawn)
    assert len({*drawn}) == 2
    assert all(testing.is_test(host.address) for host in look)
    assert testing.due == 101.0
    assert testing.take_tests(101.0) == ([], look), "the kernel needn't look for them any longer"
    assert testing.take_tests(110.0) == ([], [])
    assert not any(testing.is_test(host.address) for host in look)
    assert testing.due == 100.0 + PERIOD
    again, _ = testing.take_tests(100.0 + PERIOD)
    assert not {*again} & {*look}


@pytest.mark.parametrize(
    "entries",
    [
        (f"wan0 {PREFIX} via lan0",),
        (f"wan0 {PREFIX} via lan0", f"lan0 {PREFIX} static"),
        (f"wan0 {PREFIX} via lan0", f"lan1 {PREFIX} via wan0"),
        (f"wan0 {PREFIX} via lan0", f"lan0 {PREFIX} via wan0 monitor"),
        (f"wan0 {PREFIX} via lan0", "lan0 2001:db8:2::/64 via wan0"),
        ("wan0 2001:db8:1::/113 via lan0", "lan0 2001:db8:1::/113 via wan0"),
    ],
    ids=["one way", "static", "round about", "monitor", "another prefix", "few addresses"],
)
def test_where_no_question_is_carried_both_ways_nothing_is_asked(entries: tuple[str, ...]) -> None:
    testing = loops(table(*entries))
    assert testing.take_tests(100.0)[0] == []
    assert not testing.heard(bytes(16), WAN, OTHER_PROXY, 100.0)


def test_only_what_both_entries_carry_is_drawn() -> None:
    testing = loops(table("wan0 2001:db8::/32 via lan0", f"lan0 {PREFIX} via wan0"))
    drawn: list[Host] = []
    for number in range(20):
        drawn += testing.take_tests(100.0 + PERIOD * number)[0]
    assert len(drawn) >= 20
    assert all(IPv6Address(host.address) in IPv6Network(PREFIX) for host in drawn)


def test_rules_that_are_as_they_were_are_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be 100,000 of them, and a table comes with each change of the machine."""
    gathered = []

    def counted(origin: Origin) -> object:
        gathered.append(origin)
        return gather(origin)

    monkeypatch.setattr(loops_module, "_gather", counted)
    testing = loops()
    assert len(gathered) == 2
    same = table(f"wan0 {PREFIX} via lan0", f"lan0 {PREFIX} via wan0", before=BOTH_WAYS)
    testing.use(same)
    assert len(gathered) == 2
    testing.use(table(f"wan0 {PREFIX} via lan0", "lan0 2001:db8::/32 via wan0", before=same))
    assert len(gathered) == 3
    testing.use(table(f"wan0 {PREFIX} via lan0", "lan0 2001:db8::/32 static", before=same))
    assert len(gathered) == 3
    assert not testing.links


def test_who_asks_elsewhere_for_what_was_asked_here_is_a_proxy() -> None:
    testing = loops()
    (asked,) = [host for host in testing.take_tests(100.0)[0] if host.ifindex == LAN]
    assert not testing.heard(asked.address, LAN, HOST, 100.0), "who asks on the same link has heard it there himself"
    assert not testing.heard(IPv6Address("2001:db8:1::1").packed, WAN, HOST, 100.0)
    assert testing.other_proxies == {}
    assert testing.heard(asked.address, WAN, OTHER_PROXY, 100.1)
    assert not testing.heard(asked.address, WAN, OTHER_PROXY, 101.1), "said once"
    third = bytes.fromhex("0200000000c2")
    assert testing.heard(asked.address, WAN, third, 100.1)
    assert testing.other_proxies == {WAN: {OTHER_PROXY, third}}
    testing.use(table(f"wan0 {PREFIX} via lan1", f"lan1 {PREFIX} via wan0"))
    assert testing.other_proxies == {WAN: {OTHER_PROXY, third}}
    testing.take_tests(101.1 + OTHER_PROXY_SECONDS)
    assert testing.other_proxies == {}
    assert not testing.heard(asked.address, WAN, OTHER_PROXY, 110.1 + OTHER_PROXY_SECONDS), "too late"


def test_a_cycle_of_three_links_is_found_too() -> None:
    testing = loops(
        table(f"wan0 {PREFIX} via lan0 dmz0", f"lan0 {PREFIX} via dmz0 wan0", f"dmz0 {PREFIX} via wan0 lan0")
    )
    look, _ = testing.take_tests(100.0)
    assert len(look) == 6
    (asked, *_) = [host for host in look if host.ifindex == LAN]
    assert testing.heard(asked.address, DMZ, OTHER_PROXY, 100.1)
    assert testing.heard(asked.address, WAN, OTHER_PROXY, 100.1)
    assert testing.other_proxies == {DMZ: {OTHER_PROXY}, WAN: {OTHER_PROXY}}


def test_many_links_are_tested_a_few_at_a_time() -> None:
    lans = " ".join(f"lan{n}" for n in range(COUNT))
    testing = loops(table(f"wan0 {PREFIX} via {lans}", *(f"lan{n} {PREFIX} via wan0" for n in range(COUNT))))
    now, rounds, looked = 100.0, 0, 0
    while looked < 2 * COUNT:
        look, _ = testing.take_tests(now)
        assert 0 < len(look) <= TESTS_AT_ONCE
        looked += len(look)
        assert testing.take_tests(now + 0.5)[0] == []
        now, rounds = now + 1.0, rounds + 1
    assert rounds == -(-2 * COUNT // TESTS_AT_ONCE)


def test_who_is_new_on_a_link_calls_for_a_test_but_not_for_one_after_the_other() -> None:
    testing = loops()
    testing.take_tests(100.0)
    testing.take_tests(101.0)
    testing.met(LAN, HOST)
    assert testing.due == 100.0 + LEAST, "it was tested a moment ago, and a time that has passed would be due at once"
    assert testing.take_tests(101.5)[0] == []
    assert testing.due == 100.0 + LEAST
    assert len(testing.take_tests(100.0 + LEAST)[0]) == 2
    testing.take_tests(103.0)
    testing.met(LAN, HOST)
    testing.met(DMZ, OTHER_PROXY)
    assert testing.take_tests(110.0)[0] == [], "nobody new, nor where it matters"
    for number in range(10_000):
        testing.met(LAN, number.to_bytes(6, "big"))
    assert len(testing._met) <= 4096


def test_the_questions_of_another_proxy_are_echoes_for_as_long_as_ours_may_cause_them() -> None:
    testing = loops()
    (asked,) = [host for host in testing.take_tests(100.0)[0] if host.ifindex == WAN]
    testing.heard(asked.address, LAN, OTHER_PROXY, 100.0)
    target = Host(LAN, IPv6Address("2001:db8:1::42").packed)
    assert not testing.is_echo(target, OTHER_PROXY, 100.0), "of nothing"
    testing.began(target, 200.0)
    assert testing.is_echo(target, OTHER_PROXY, 206.0)
    assert not testing.is_echo(target, HOST, 206.0)
    assert not testing.is_echo(target._replace(ifindex=WAN), OTHER_PROXY, 206.0)
    assert not testing.is_echo(target, OTHER_PROXY, 200.0 + HOLD)
    for number in range(10_000):
        testing.began(Host(LAN, number.to_bytes(16, "big")), 201.0)
    assert len(testing._asked) <= 4096
    testing.began(Host(DMZ, bytes(16)), 201.0)
    assert not testing.is_echo(Host(DMZ, bytes(16)), OTHER_PROXY, 201.0), "nobody carries questions there"


def test_who_asks_for_a_target_himself_is_not_its_host() -> None:
    testing = loops()
    target = Host(LAN, IPv6Address("2001:db8:1::42").packed)
    testing.asks_too(target, OTHER_PROXY, 100.0)
    assert testing.is_asking(target, OTHER_PROXY, 101.0)
    assert not testing.is_asking(target, HOST, 101.0)
    assert not testing.is_asking(target._replace(ifindex=WAN), OTHER_PROXY, 101.0)
    assert not testing.is_asking(target, OTHER_PROXY, 100.0 + HOLD)
    for number in range(10_000):
        testing.asks_too(Host(LAN, number.to_bytes(16, "big")), HOST, 101.0)
    assert len(testing._asking_too) <= 4096


@pytest.mark.large
def test_what_is_to_be_tested_by_a_large_table_is_found_in_bits_before_it_is_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 100,000 rules it took 0.1 s in the turn that put them in force."""
    rules = "".join(
        f'[[interface.rule]]\nprefix = "2001:db8:{n:x}::/64"\nmethod = "neighbour"\nvia = ["lan0"]\n'
        for n in range(5_000)
    )
    back = '[[interface.rule]]\nprefix = "2001:db8::/32"\nmethod = "neighbour"\nvia = ["wan0"]\n'
    many = build(parse(f'[[interface]]\nname = "wan0"\n{rules}[[interface]]\nname = "lan0"\n{back}', "test"), LINKS)
    testing, at_once = loops(), loops(many)
    _, bits = timed(testing.expecting(many))
    assert len(bits) >= 10
    with monkeypatch.context() as patch:
        patch.setattr(loops_module, "_ways", None)
        testing.use(many)
    assert testing._ways == at_once._ways
    assert len(testing._ways) == 2
    timed(testing.expecting(BOTH_WAYS))
    testing.give_up()
    assert testing._expected is None, "it would hold a large table"
    testing.use(many)
    assert testing._ways == at_once._ways
