# SPDX-License-Identifier: GPL-2.0-or-later
"""A pair of edges (docs/rules.md, I): what `active_with` means in the file, in the table and in words."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, Datapath
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.errors import ConfigError
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.explain import Question, explain, table_json, table_text
from npd6_xdp.core.frames import Frames
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbour_messages import NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.pending import Pending
from npd6_xdp.core.places import Places
from npd6_xdp.core.proxy_entries import proxying_interfaces, via_set_of
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.roles import RoleAddress, role_address
from npd6_xdp.core.table import Decision, Table

WAN = LinkFacts("wan0", 2, bytes.fromhex("020000000002"), l3={(): 2})
LAN = LinkFacts("lan0", 3, bytes.fromhex("02000000000a"), l3={(): 3})
LINKS = {"wan0": WAN, "lan0": LAN}
ADDRESS = "192.0.2.1"
TEXT = """
[[interface]]
name = "wan0"
active_with = "{}"
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "static"
[[interface.rule]]
prefix = "2001:db8:2::/64"
method = "neighbour"
via = ["lan0"]
host_routes = true
[[interface.rule]]
prefix = "2001:db8:3::/64"
method = "kernel"
[[interface.rule]]
prefix = "2001:db8:4::/64"
method = "route"
"""


def config(active_with: str = ADDRESS, keys: str = "") -> Config:
    return parse(TEXT.format(active_with).replace("[[interface.rule]]", f"{keys}\n[[interface.rule]]", 1), "test")


def table(*held: str, before: Table | None = None) -> Table:
    return build(config(), LINKS, before, held=set(held))


def only(table: Table) -> Entry:
    entry = table.entry_of(WAN.ifindex)
    assert entry is not None
    return entry


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", ""),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::0001", "2001:db8::1"),
        ("fe80::0:1%lan0", "fe80::1%lan0"),
        ("fe80::1%vlan.7", "fe80::1%vlan.7"),
    ],
)
def test_an_address_is_the_same_however_it_is_written(written: str, meant: str) -> None:
    found = config(written)
    assert found.interfaces[0].active_with == meant
    assert found.role_addresses == ({meant} if meant else set())


def test_an_address_is_known_in_parts() -> None:
    assert role_address("192.0.2.1") == RoleAddress(IPv4Address("192.0.2.1"))
    assert role_address("fe80::1%lan0") == RoleAddress(IPv6Address("fe80::1"), "lan0")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("wan0", "must be an IPv4 or IPv6 address without a prefix length"),
        ("192.0.2.1/24", "without a prefix length"),
        ("2001:db8::1/64", "without a prefix length"),
        ("fe80::1", 'a link-local address needs its interface; write one such as "fe80::1%wan0"'),
        ("2001:db8::1%wan0", 'only a link-local address takes an interface (%); write "2001:db8::1"'),
        ("192.0.2.1%wan0", "only a link-local address takes an interface"),
        ("fe80::1%", "an interface's name has 1 to 15 characters"),
        ("fe80::1%wan*", "must be the exact name of one interface"),
        *((every, "that one machine holds at a time") for every in ("::", "::1", "ff02::1", "0.0.0.0", "127.0.0.1")),  # noqa: S104
        *((every, "that one machine holds at a time") for every in ("224.0.0.18", "255.255.255.255")),
    ],
)
def test_what_cant_move_from_one_machine_to_another_is_refused(written: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(written)
    (mistake,) = refused.value.mistakes
    assert mistake.where == "interface[0].active_with"
    assert message in mistake.message


def test_an_entry_is_active_while_its_address_is_here_and_always_without_one() -> None:
    assert (only(table()).standby, only(table(ADDRESS)).standby) == (True, False)
    assert not only(build(config(), LINKS)).standby, "who has no machine to look at asks what would be answered"
    assert not only(build(config(""), LINKS, held=set())).standby
    assert only(build(config(), LINKS, held={"192.0.2.2"})).standby


def test_a_change_of_role_makes_no_other_rules_lines_or_numbers() -> None:
    """So it is one flag that changes, however large the table is."""
    active = table(ADDRESS)
    standby = table(before=active)
    assert standby.decisions[only(active).id] is active.decisions[only(active).id]
    assert standby.origins == active.origins
    assert standby.rules == active.rules
    assert (standby.entry_ids, standby.vias) == (active.entry_ids, active.vias)
    assert only(standby) == replace(only(active), standby=True)
    assert only(table(before=standby)) is only(standby)


@pytest.mark.parametrize("held", [(), (ADDRESS,)])
@pytest.mark.parametrize("before", [(), (ADDRESS,)])
def test_where_nothing_but_roles_is_different_the_table_is_what_it_would_be_if_it_were_built(
    before: tuple[str, ...], held: tuple[str, ...]
) -> None:
    first = table(*before)
    found = first.with_roles(set(held))
    assert found == table(*held, before=first)
    assert (only(found) is only(first)) is (before == held)


def test_on_standby_nothing_is_proxied_routed_or_looked_for() -> None:
    active, standby = table(ADDRESS), table()
    target = IPv6Address("2001:db8:3::1")
    assert proxying_interfaces(active) == {WAN.ifindex}
    assert proxying_interfaces(standby) == set()
    assert via_set_of(active, Host(WAN.ifindex, target.packed)) is not None
    assert via_set_of(standby, Host(WAN.ifindex, target.packed)) is None
    host = IPv6Address("2001:db8:2::1")
    assert active.host_route_wanted(LAN.ifindex, host)
    assert not standby.host_route_wanted(LAN.ifindex, host)
    assert [len(each.at_work(Decision.NEIGHBOUR)) for each in (active, standby)] == [1, 0]


def test_who_is_there_is_known_on_standby_too_so_that_the_first_question_finds_it() -> None:
    host = IPv6Address("2001:db8:2::1")
    assert table().neighbour_via_sets(LAN.ifindex, host) == table(ADDRESS).neighbour_via_sets(LAN.ifindex, host) != []


def test_a_host_that_nobody_has_confirmed_is_no_host_on_standby_either_and_is_asked_once_it_matters() -> None:
    """One solicitation of anybody's makes a stale entry; else it would be announced, and nobody would have asked."""
    claim, word = Host(LAN.ifindex, IPv6Address("2001:db8:2::1").packed), Word(NeighbourState.STALE, b"\2" + bytes(5))
    places = Places()
    places.use(table(), 0.0)
    assert places.changed(claim, word, 1.0) == []
    assert (places.take_to_ask(1.0), places.due) == ([], None), "nobody is asked on standby"
    assert places.use(table(ADDRESS), 2.0) == []
    assert places.due is not None
    assert places.take_to_ask(2.0) == [claim]
    assert places.changed(claim, word._replace(state=NeighbourState.REACHABLE), 2.1) == [
        (claim, NeighbourState.REACHABLE)
    ]


def event(table: Table, target: str) -> NsEvent:
    match = table.lookup(only(table).id, IPv6Address(target))
    assert not isinstance(match, str)
    source = IPv6Address("2001:db8::1").packed
    return NsEvent(IPv6Address(target).packed, source, 0, match.rule, bytes.fromhex("020000000001"), bytes(4), 0)


def test_what_went_up_before_is_no_plain_answer_any_more() -> None:
    active, standby = table(ADDRESS), table()
    asked = event(active, "2001:db8:1::1")
    assert Responder(active).answer_run(asked.pack_record(), Frames(1)) == []
    assert Responder(standby).answer_run(asked.pack_record(), Frames(1)) == [asked]
    assert Responder(active).answer_one(asked.pack_record()) is not None
    assert Responder(standby).answer_one(asked.pack_record()) is None


def test_who_waits_for_a_target_waits_no_more_once_the_entry_is_on_standby() -> None:
    active, standby = table(ADDRESS), table()
    asked, pending = event(active, "2001:db8:2::1"), Pending()
    pending.add(active.rules[asked.rule].via_set, asked, [LAN.ifindex], 0.0, only(active).id)
    assert (pending.forget(active), len(pending)) == ([], 1)
    assert (pending.forget(standby), len(pending)) == ([], 0)


def test_check_says_the_role_that_an_entry_has_here() -> None:
    head, role, *_ = table_text(config(), LINKS, {ADDRESS}).splitlines()
    assert head.startswith("wan0: hybrid")
    assert role == f"  active: {ADDRESS} is on this machine"
    assert table_text(config(), LINKS).splitlines()[1] == f"  on standby: {ADDRESS} isn't on this machine"
    assert table_text(config(), {}).splitlines()[1] == f"  active with {ADDRESS}"
    (here,) = table_json(config(), LINKS, {ADDRESS})["interfaces"]
    assert (here["active_with"], here["active"]) == (ADDRESS, True)
    assert "active" not in table_json(config(""), LINKS)["interfaces"][0]


@pytest.mark.parametrize("datapath", Datapath)
def test_explain_says_that_the_other_edge_answers(datapath: Datapath) -> None:
    its = config(keys=f'datapath = "{datapath}"')

    def outcome(target: str, *held: str) -> str:
        question = Question("wan0", (), IPv6Address(target), IPv6Address("fe80::1"))
        lines = explain(its, LINKS, question, held=set(held)).splitlines()
        return next(line for line in lines if line.startswith("outcome: "))

    why = f"but {ADDRESS} isn't on this machine)"
    assert outcome("2001:db8:1::1") == f"outcome: standby (present, by method static, {why}"
    assert outcome("2001:db8:2::1").endswith(why)
    assert outcome("2001:db8:9::1") == "outcome: unmatched (no rule covers it)"
    assert "standby" not in outcome("2001:db8:1::1", ADDRESS)


def test_explain_says_the_role_of_this_machine_as_check_does_also_for_an_interface_that_is_yet_to_come() -> None:
    def outcome(links: dict[str, LinkFacts], *held: str) -> str:
        question = Question("wan0", (), IPv6Address("2001:db8:1::1"), IPv6Address("fe80::1"))
        lines = explain(config(), links, question, held=set(held)).splitlines()
        return next(line for line in lines if line.startswith("outcome: "))

    without = {name: link for name, link in LINKS.items() if name != "wan0"}
    assert table_text(config(), without).splitlines()[1] == f"  on standby: {ADDRESS} isn't on this machine"
    assert outcome(without).startswith("outcome: standby ")
    assert outcome(without, ADDRESS).startswith("outcome: answered_xdp ")
    assert outcome({}).startswith("outcome: answered_xdp "), "nothing is known of the machine"
