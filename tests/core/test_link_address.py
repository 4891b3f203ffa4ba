# SPDX-License-Identifier: GPL-2.0-or-later
"""J6 of docs/rules.md: a MAC address that is not the port's own is advertised, while a device takes in what comes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.errors import ConfigError
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.explain import Question, explain, table_json, table_text
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.link_messages import LinkEntry, LinkFlag
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.roles import MacDevice
from npd6_xdp.core.stacking import Stacking, mac_devices
from npd6_xdp.core.table import Table
from npd6_xdp.core.warnings import warnings

MAC, OWN = "00:00:5e:00:02:33", "02:00:00:00:00:02"
PORT = LinkFacts("wan0", 2, bytes.fromhex(OWN.replace(":", "")))
VIRTUAL = bytes.fromhex(MAC.replace(":", ""))
WITH = replace(PORT, beside_macs={(): frozenset({VIRTUAL})})
TEXT = """
[[interface]]
name = "wan0"
link_address = "{}"
{}
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "{}"
"""


def table(link: LinkFacts, held: frozenset[str] | None = frozenset(), address: str = MAC, keys: str = "") -> Table:
    return build(parse(TEXT.format(address, keys, "static"), "test"), {"wan0": link}, held=held)


def only(table: Table) -> Entry:
    entry = table.entry_of(2)
    assert entry is not None
    return entry


def test_it_is_advertised_and_both_addresses_are_ours() -> None:
    found = only(table(WITH))
    assert (found.mac, found.port_mac, found.standby) == (VIRTUAL, PORT.mac, False)
    assert found.macs == {VIRTUAL, PORT.mac}


@pytest.mark.parametrize("address", ["", OWN, OWN.upper()])
def test_the_ports_own_needs_no_device(address: str) -> None:
    found = only(table(PORT, address=address))
    assert (found.mac, found.port_mac, found.standby) == (PORT.mac, b"", False)


def test_without_a_device_that_has_it_nothing_is_answered_and_that_is_said() -> None:
    without = table(PORT)
    assert (only(without).standby, only(without).is_at_work) == (True, False)
    why = f"no device on wan0 has its link_address, {MAC}, and is up"
    assert only(without).role == f"on standby: {why}"
    assert warnings(without) == [f"wan0: {why}: nothing is answered, as nobody takes in what is sent there"]
    assert only(without.with_roles(set())).standby, "whatever address is here"
    assert warnings(table(WITH)) == []


def test_it_takes_both_the_device_and_the_role_to_be_active() -> None:
    keys, held = 'active_with = "192.0.2.1"', frozenset({"192.0.2.1"})
    assert not only(table(WITH, held, keys=keys)).standby
    assert only(table(WITH, keys=keys)).standby
    assert only(table(PORT, held, keys=keys)).standby
    assert table(PORT, held, keys=keys).waiting == {0}
    assert not table(WITH, held, keys=keys).waiting


def test_the_advertisement_comes_from_it_and_has_it() -> None:
    its = table(WITH)
    (rule,) = its.rules
    target = IPv6Address("2001:db8:1::1").packed
    event = NsEvent(target, IPv6Address("2001:db8::1").packed, 0, rule, bytes.fromhex("020000000001"), bytes(4), 0)
    for answer in (Responder(its).answer(event), Responder(its).announcement(event)):
        found = NeighborAdvertisement.parse(answer.frame)
        assert (found.eth_source, found.link_layer_address) == (VIRTUAL, VIRTUAL)


def test_explain_shows_it_also_of_another_machines_interface() -> None:
    config = parse(TEXT.format(MAC, "", "static"), "test")
    question = Question("wan0", (), IPv6Address("2001:db8:1::1"), IPv6Address("fe80::1"))
    assert f"target link-layer address {MAC}" in explain(config, {}, question, held=frozenset())
    assert "outcome: standby (present, by method static, but no device on wan0" in explain(
        config, {"wan0": PORT}, question, held=frozenset()
    )


@pytest.mark.parametrize("written", ["00:00:5E:00:02:33", MAC])
def test_it_is_the_same_however_it_is_written(written: str) -> None:
    assert parse(TEXT.format(written, "", "static"), "test").interfaces[0].link_address == MAC


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("00:00:5e:00:02", 'must be a MAC address such as "00:00:5e:00:02:33"'),
        ("00-00-5e-00-02-33", "must be a MAC address"),
        ("33:33:00:00:00:01", "must be one station's MAC address"),
        ("00:00:00:00:00:00", "must be one station's MAC address"),
    ],
)
def test_what_no_station_has_is_refused(written: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(TEXT.format(written, "", "static"), "test")
    (mistake,) = refused.value.mistakes
    assert mistake.where == "interface[0].link_address"
    assert message in mistake.message


def test_the_kernels_proxy_which_has_another_one_cant_be_meant() -> None:
    with pytest.raises(ConfigError, match="answers with the port's own MAC address"):
        parse(TEXT.format(MAC, "", "kernel"), "test")
    parse(TEXT.format("", "", "kernel"), "test")


@pytest.mark.parametrize(("flags", "found"), [(LinkFlag.UP, {(): {VIRTUAL}}), (LinkFlag(0), {(): set()})])
def test_a_device_on_the_port_counts_while_it_is_up(flags: LinkFlag, found: dict[tuple[int, ...], set[bytes]]) -> None:
    port = LinkEntry(2, "wan0", PORT.mac, True, "", 0, 0, 0, flags=LinkFlag.UP)
    rider = LinkEntry(3, "vrrp.51", VIRTUAL, True, "macvlan", 0, 2, 0, flags=flags)
    assert Stacking({2: port, 3: rider}).of(port).rider_macs == found
    devices = mac_devices([port, rider], {VIRTUAL, PORT.mac})
    assert devices == {MacDevice(2, mac) for macs in found.values() for mac in macs}
    assert not mac_devices([port, rider], {PORT.mac})


def test_with_the_device_nothing_but_the_entry_changes_and_that_as_if_it_were_built_anew() -> None:
    """So it takes no time, and waits for nobody."""
    device = frozenset({MacDevice(PORT.ifindex, VIRTUAL)})
    with_it, without = table(WITH), table(PORT)
    for before, held, after in ((without, device, with_it), (with_it, frozenset[MacDevice](), without)):
        found = before.with_roles(held)
        assert found.decisions is before.decisions
        assert only(found) == only(after)
        assert found.with_roles(held) is found
    for other in (MacDevice(9, VIRTUAL), MacDevice(PORT.ifindex, PORT.mac)):
        assert without.with_roles({other}) is without
    needless = table(PORT, address=OWN)
    assert needless.with_roles(frozenset()) is needless


@pytest.mark.parametrize("keys", ["", 'active_with = "192.0.2.1"'])
def test_check_and_explain_say_what_status_says_where_there_is_no_device(keys: str) -> None:
    its, held = parse(TEXT.format(MAC, keys, "static"), "test"), frozenset({"192.0.2.1"})
    question = Question("wan0", (), IPv6Address("2001:db8:1::1"), IPv6Address("fe80::1"))

    def said(link: LinkFacts) -> tuple[str, bool]:
        (entry,) = table_json(its, {"wan0": link}, held)["interfaces"]
        return table_text(its, {"wan0": link}, held).splitlines()[1].strip(), entry["active"]

    role = only(table(PORT, held, keys=keys)).role
    assert role.startswith("on standby: no device on wan0")
    assert said(PORT) == (role, False)
    assert "outcome: standby" in explain(its, {"wan0": PORT}, question, held=held)
    assert said(WITH)[1]
    assert "on standby" not in table_text(its, {"wan0": WITH}, held)
    absent = replace(PORT, name="lan0")  # wan0 isn't there, and no device on it can be missed
    assert "on standby" not in table_text(its, {"lan0": absent}, held)
    assert "outcome: answered_xdp" in explain(its, {"lan0": absent}, question, held=held)


def test_check_says_which_ports_of_a_glob_have_no_device() -> None:
    its = parse(TEXT.format(MAC, "", "static").replace('"wan0"', '"wan*"'), "test")
    links = {"wan0": WITH, "wan1": replace(PORT, name="wan1", ifindex=3)}
    lines = table_text(its, links).splitlines()
    assert lines[1] == f"  on standby: no device on wan1 has its link_address, {MAC}, and is up"
    assert table_json(its, links)["interfaces"][0]["active"] is True
